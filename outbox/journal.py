"""Topics and their history: what an `Outbox` has to declare, alter, keep, seek, replay and read them."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, Unpack, overload

from outbox import backfill as backfills
from outbox import operations, replay, seek
from outbox import retention as retentions
from outbox.connection import AsyncTransaction, is_async
from outbox.errors import InvalidDeclaration
from outbox.operations import Operation
from outbox.publisher import Publisher, checked
from outbox.reader import AsyncReader, Reader, Reading, ReadOptions
from outbox.replay import Chosen, Range, Replay, Replayed
from outbox.seek import Move
from outbox.start import Start


class Journal(Publisher):
    """A publisher that looks after topics, and what was published to them."""

    @overload
    def declare_topic(
        self,
        connection: AsyncTransaction,
        name: str,
        *,
        partitions: int = 1,
        max_priority: int = 0,
        deduplication_window: timedelta | None = None,
        retention: str = "standard",
        compact: bool | None = None,
    ) -> Awaitable[None]: ...

    @overload
    def declare_topic(
        self,
        connection: Any,
        name: str,
        *,
        partitions: int = 1,
        max_priority: int = 0,
        deduplication_window: timedelta | None = None,
        retention: str = "standard",
        compact: bool | None = None,
    ) -> None: ...

    def declare_topic(
        self,
        connection: Any,
        name: str,
        *,
        partitions: int = 1,
        max_priority: int = 0,
        deduplication_window: timedelta | None = None,
        retention: str = "standard",
        compact: bool | None = None,
    ) -> Awaitable[None] | None:
        """Create a topic, in the caller's transaction; the same again changes nothing.

        Args:
            partitions: 1 to 1,024 ordered sub-logs; a key always goes to the same one.
            max_priority: 0 to 9; each priority is a sub-log of its own.
            deduplication_window: how long an idempotency key is remembered, 1 second to 28 days; None: as it is, or
                7 days. It may be changed; keys that were published before keep theirs.
            retention: the class that says how long messages are kept: "transient", "short", "standard" or "long".
            compact: is the newest message of each key kept for ever? A payload of None ends a key. None: as it is, or
                no. It may be changed.

        Raises:
            InvalidDeclaration: it exists with other settings.
        """
        if not isinstance(deduplication_window, timedelta | None):
            raise InvalidDeclaration(f"deduplication_window is {deduplication_window!r}, it must be a timedelta")
        declared = operations.declare_topic(
            checked(name), partitions, max_priority, deduplication_window, retention, compact
        )
        return self._run(declared, connection)

    def alter_topic(
        self,
        connection: Any,
        name: str,
        *,
        partitions: int | None = None,
        max_priority: int | None = None,
        retention: str | None = None,
    ) -> bool | Awaitable[bool]:
        """Give a topic other partitions, priorities or another retention class, when the caller's transaction commits.

        Publishers go on. What is published from then on lies in new partitions, which a subscription reads when it has
        read all of those before (an ordered one: settled), so that the messages of a key stay in order.

        Args:
            partitions: 1 to 1,024; None: as many as it has. Like this the others, too.

        Returns:
            False if nothing was to be changed.

        Raises:
            TopicNotDeclared: there is no such topic.
            InvalidDeclaration: it can't be so.
        """
        operation = operations.alter_topic(checked(name), partitions, max_priority, retention)
        return self._run(operation, connection)

    def backfill(self, connection: Any, subscription: str, topic: str, query: str) -> int | Awaitable[int]:
        """Let a new subscription read what a query finds, and then a topic: under one snapshot, no gap and no overlap.

        In the caller's transaction, which must be REPEATABLE READ and have written nothing; does not commit. The rows
        come as messages of the topic with the header `outbox-backfill`. Publishers and other readers go on.

        Args:
            subscription: one that does not read the topic yet; it is created if there is none.
            query: SQL with the columns `key` and `payload` (JSON), run with the connection's rights.

        Returns:
            How many rows there were.

        Raises:
            NotOwnTransaction: the transaction is not REPEATABLE READ, or has written.
            TopicNotDeclared: there is no such topic.
            InvalidDeclaration: the subscription reads the topic already, or a row has no payload.
        """
        return self._run(backfills.backfill(subscription, checked(topic), query), connection)

    def set_retention(
        self, connection: Any, name: str, *, keep: timedelta | None = None, max_bytes: int | None = None
    ) -> bool | Awaitable[bool]:
        """Change a retention class, when the caller's transaction commits. Returns False if that changed nothing.

        Args:
            keep: its messages are kept for this long at least; those that are there already, too. None: as it is.
            max_bytes: if they are more, with their indexes, the oldest go before their time, unless a subscription
                holds them. 0: no limit; None: as it is.

        Raises:
            InvalidDeclaration: there is no such class, or it can't be so.
        """
        return self._run(retentions.set_class(name, keep, max_bytes), connection)

    @overload
    def seek(
        self,
        connection: AsyncTransaction,
        subscription: str,
        to: Start,
        *,
        topic: str | None = None,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> Awaitable[list[Move]]: ...

    @overload
    def seek(
        self,
        connection: Any,
        subscription: str,
        to: Start,
        *,
        topic: str | None = None,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> list[Move]: ...

    def seek(
        self,
        connection: Any,
        subscription: str,
        to: Start,
        *,
        topic: str | None = None,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> list[Move] | Awaitable[list[Move]]:
        """Move a subscription's cursors, all or none: back, to have messages again, or on, to skip some.

        Must be the beginning of a READ COMMITTED transaction, or in autocommit mode; does not commit. Waits for pulls
        that are under way. What is in workers' hands, or waits for another try, goes on as it would have.

        Args:
            to: where they go: see `outbox.start`. An offset is that of the message that comes next, in one partition.
            topic: only those of this topic, or of topics that match a pattern.
            partition: only of the topic's partition of this number.
            dry_run: change nothing, and count the messages between where they stand and would stand.

        Returns:
            How each cursor moved.

        Raises:
            SubscriptionNotFound: there is no such subscription, or it reads no such topic or partition.
            InvalidDeclaration: that is nowhere to go.
            NotOwnTransaction: the transaction wrote before.
        """
        operation = seek.dry_run if dry_run else seek.seek
        return self._run(operation(subscription, to, topic, partition), connection)

    @overload
    def replay(
        self,
        connection: AsyncTransaction,
        subscription: str,
        topic: str | None = None,
        *,
        ranges: list[Range] | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        **chosen: Unpack[Chosen],
    ) -> Awaitable[Replayed]: ...

    @overload
    def replay(
        self,
        connection: Any,
        subscription: str,
        topic: str | None = None,
        *,
        ranges: list[Range] | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        **chosen: Unpack[Chosen],
    ) -> Replayed: ...

    def replay(
        self,
        connection: Any,
        subscription: str,
        topic: str | None = None,
        *,
        ranges: list[Range] | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        **chosen: Unpack[Chosen],
    ) -> Replayed | Awaitable[Replayed]:
        """Deliver messages again, to one subscription and no other, beside what is published meanwhile.

        Those that its bindings let pass, and that it has taken before: what is to come to it anyway, waits for another
        try or is in a worker's hands is not doubled. They take at most half of its workers' time, and have no order.
        In portions of 1,000; on a connection in autocommit mode each commits for itself.

        Args:
            topic: a topic that it reads, or a pattern.
            ranges: offsets of partitions, instead of a topic.
            rate: messages a second; None: as fast as its workers can.
            dry_run: only count them.
            chosen: from_at, to_at, key, headers, filter, partition: see `outbox.replay.Chosen`.

        Raises:
            SubscriptionNotFound: there is no such subscription, or it reads no such topic.
            InvalidDeclaration: an argument is none.
        """
        run = Replay(subscription, topic, chosen, ranges, rate, dry_run)
        return self._run(replay.replay(run), connection)

    @overload
    def read(self, connection: AsyncTransaction, topic: str, **options: Unpack[ReadOptions]) -> AsyncReader: ...

    @overload
    def read(self, connection: Any, topic: str, **options: Unpack[ReadOptions]) -> Reader: ...

    def read(self, connection: Any, topic: str, **options: Unpack[ReadOptions]) -> Reader | AsyncReader:
        """Read messages straight from the log, without a subscription: nothing is written, nobody else is affected.

        Returns an iterator over messages, async if the connection is. Each look is a transaction of its own: the
        connection must be outside of one whenever the next message is asked for, and is so again then. What is in
        memory is bounded. Cancelled messages are not shown; those that are too old to be delivered are.

        Args:
            connection: as `publish` takes it; of DB-API connections psycopg2's and Django's.
            topic: a name or pattern: `*` is one word, `#` any number of words.
            options: start, to, partition, key, headers, filter, follow, resume: see `outbox.reader.ReadOptions`.

        Raises:
            InvalidDeclaration: an argument makes no sense.
            TopicNotDeclared: there is no such topic; a pattern may match none.
            NotOwnTransaction: the connection is in a transaction.
            CursorBeyondLog: the token stands beyond the log: a restore took it back.
        """
        reading = Reading(lambda: self._on_checked_schema(_nothing()), topic, **options)
        return AsyncReader(reading, connection) if is_async(connection) else Reader(reading, connection)


def _nothing() -> Operation[None]:
    return
    yield
