"""What an application holds: publish in its transactions, subscribe its handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar, Unpack, overload

from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import backfill as backfills
from outbox import operations, replay, schedules, seek, subscription
from outbox import retention as retentions
from outbox.binding import Binding
from outbox.connection import AsyncTransaction, is_async
from outbox.errors import InvalidDeclaration
from outbox.model import MessageId
from outbox.operations import Operation
from outbox.payload import Limits
from outbox.publisher import checked
from outbox.reader import AsyncReader, Reader, Reading
from outbox.replay import Chosen, Range, Replay, Replayed
from outbox.requests import Requests
from outbox.retries import Retries
from outbox.schedules import MessageOptions, Schedule
from outbox.seek import Move
from outbox.settings import Settings
from outbox.start import Start
from outbox.subscription import Guarantee, OnFailure, Subscription
from outbox.ticks import Missed

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])

#: How long a call of a handler may take if its subscription does not say.
TIME_LIMIT = timedelta(minutes=10)


class Outbox(Requests):
    """An application's publishers and subscriptions.

    Holds no connection: `publish` uses the caller's, `outbox worker` brings its own.

    Args:
        limits: what a publish refuses.
        session_factory: makes the sessions for handlers that ask for one; by default the worker makes plain ones.
        async_session_factory: the same for coroutine handlers.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        session_factory: Callable[[], orm.Session] | None = None,
        async_session_factory: Callable[[], sqlalchemy_async.AsyncSession] | None = None,
    ) -> None:
        super().__init__(limits or Limits())
        self.session_factory = session_factory
        self.async_session_factory = async_session_factory
        self.subscriptions: dict[str, Subscription] = {}
        self.schedules: dict[str, Schedule] = {}

    def schedule(
        self,
        name: str,
        when: str | timedelta,
        topic: str,
        payload: Any = None,
        *,
        timezone: str = "UTC",
        missed: Missed = "one",
        **options: Unpack[MessageOptions],
    ) -> None:
        """Declare a message that is published again and again. `outbox worker` puts it into the database at start.

        Each tick is published once, however many workers run, with the headers `schedule` and `scheduled-for`. To
        change the declaration changes the schedule; to remove it does not: `outbox schedules delete` does.

        Args:
            when: a cron expression of five fields, or six with the second first; or the interval between ticks.
            timezone: an IANA name; docs/schedules.md says what happens when its clocks change.
            missed: ticks more than 60 s late, since no worker ran: "skip" them, publish "one" for all, or "all".
            options: key, headers, priority, content_type, ttl, as `publish` takes them.

        Raises:
            InvalidDeclaration: the name is taken, or it never ticks.
        """
        if name in self.schedules:
            raise InvalidDeclaration(f"there is a schedule {name!r} already")
        self.schedules[name] = schedules.new(name, when, topic, payload, timezone, missed, self.limits, options)

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

    def subscribe(
        self,
        name: str,
        *topics: str | Binding,
        guarantee: Guarantee = "at-least-once",
        concurrency: int = 1,
        prefetch: int | None = None,
        retries: Retries | None = None,
        start: Start = "first",
        batch: int | None = None,
        ordered: bool = False,
        on_failure: OnFailure | None = None,
        time_limit: timedelta | None = TIME_LIMIT,
        pipeline: bool = False,
        **settings: Unpack[Settings],
    ) -> Callable[[H], H]:
        """Make the decorated function, sync or async, the handler of a subscription. `outbox worker` runs it.

        It takes the message, or a `list[Message]`, and, if its signature asks, a `Session`, `AsyncSession`,
        `psycopg.Connection` or `psycopg.AsyncConnection`, in a transaction that commits when it returns. Returning is
        an ack; an exception is a retry; `Ack`, `Retry` and `Reject` may be returned, the last two raised as well. A
        handler of a list may return a list of outcomes, one a message; what is not acked must have had no effects.

        Args:
            name: each subscription gets every message; the workers of one share them.
            topics: names, patterns of words between dots (`*` is one word, `#` any number of words), or a `Binding`,
                which can look at headers and payloads as well.
            guarantee: "at-most-once", "at-least-once", or "exactly-once" for effects in this database.
            concurrency: handlers at once in each worker process.
            prefetch: messages in hand at most in each worker process; None adapts to the handler's speed.
            retries: when a failed message is tried again, and how often.
            start: where a new subscription starts: "first" is all history that is kept, "next" what commits from now,
                "last" the newest message of each partition; or an offset, a time, how long ago: see `outbox.start`.
            batch: messages at most in a list, or that share a transaction. When one fails, all are tried one by one
                (dropped, if at-most-once). 100 by default for a list, else 1.
            ordered: messages of a partition are handled one after the other, in order, by one worker at a time.
            on_failure: of an ordered subscription: "park" (the default): later messages of its key wait behind the
                failed one; "block": all of its partition do; "dead-letter": it is given up on at once.
            time_limit: a call of the handler that takes longer is cancelled, and fails; one that can't be cancelled
                has its process replaced. None: it may take for ever.
            pipeline: the statements of the handler's psycopg connection are sent without waiting for each: several
                times faster where a handler only writes. An error comes at the next fetch, or at the end.
            settings: what lives in the database, see `outbox.Settings`; what is not named stays as it is there.

        Raises:
            InvalidDeclaration: the name is taken, or the handler's signature does not fit.
        """

        if on_failure is not None and not ordered:
            raise InvalidDeclaration(f"on_failure={on_failure!r} goes with ordered=True")
        if not isinstance(name, str):
            raise InvalidDeclaration("subscribe needs a name and topics: @app.subscribe('mailer', 'orders.*')")

        def register(handler: H) -> H:
            if name in self.subscriptions:
                raise InvalidDeclaration(f"subscription {name!r} has a handler already")
            self.subscriptions[name] = subscription.declare(
                name,
                topics,
                handler,
                guarantee=guarantee,
                concurrency=concurrency,
                prefetch=prefetch,
                retries=retries or Retries(),
                start=start,
                batch=batch,
                on_failure=(on_failure or "park") if ordered else None,
                time_limit=time_limit,
                pipeline=pipeline,
                settings=settings,
            )
            return handler

        return register

    @overload
    def read(
        self,
        connection: AsyncTransaction,
        topic: str,
        *,
        start: Start | MessageId | None = None,
        to: datetime | None = None,
        partition: int | None = None,
        key: str | None = None,
        headers: dict[str, str | None] | None = None,
        filter: str | None = None,
        follow: bool = False,
        resume: str | None = None,
    ) -> AsyncReader: ...

    @overload
    def read(
        self,
        connection: Any,
        topic: str,
        *,
        start: Start | MessageId | None = None,
        to: datetime | None = None,
        partition: int | None = None,
        key: str | None = None,
        headers: dict[str, str | None] | None = None,
        filter: str | None = None,
        follow: bool = False,
        resume: str | None = None,
    ) -> Reader: ...

    def read(
        self,
        connection: Any,
        topic: str,
        *,
        start: Start | MessageId | None = None,
        to: datetime | None = None,
        partition: int | None = None,
        key: str | None = None,
        headers: dict[str, str | None] | None = None,
        filter: str | None = None,
        follow: bool = False,
        resume: str | None = None,
    ) -> Reader | AsyncReader:
        """Read messages straight from the log, without a subscription: nothing is written, nobody else is affected.

        Returns an iterator over messages, async if the connection is. Each look is a transaction of its own: the
        connection must be outside of one whenever the next message is asked for, and is so again then. What is in
        memory is bounded. Cancelled messages are not shown; those that are too old to be delivered are.

        Args:
            connection: as `publish` takes it; of DB-API connections psycopg2's and Django's.
            topic: a name or pattern: `*` is one word, `#` any number of words.
            start: "first" is all history that is kept, "last" the last message of each partition, "next" what commits
                from now on, a `MessageId` that message and what follows in its partition, an int the same of a topic's
                only partition; a datetime, or a timedelta ago, what was published then and later. By default "next" if
                it follows, else "first".
            to: only what was published before.
            partition: only the partitions of that number.
            key: only messages with that key.
            headers: only messages with these headers; None as a value: any.
            filter: only messages for whose payload this is true, in SQL/JSON path: `$.total > 100`.
            follow: wait for more, until it is closed; else it ends where the log ends when it begins.
            resume: the `token` of an earlier reader of the topic: go on there, whatever `start` says.

        Raises:
            InvalidDeclaration: an argument makes no sense.
            TopicNotDeclared: there is no such topic; a pattern may match none.
            NotOwnTransaction: the connection is in a transaction.
            CursorBeyondLog: the token stands beyond the log: a restore took it back.
        """
        reading = Reading(
            lambda: self._on_checked_schema(_nothing()),
            topic,
            start=start,
            to=to,
            partition=partition,
            key=key,
            headers=headers,
            filter=filter,
            follow=follow,
            resume=resume,
        )
        return AsyncReader(reading, connection) if is_async(connection) else Reader(reading, connection)

    def pause(self, connection: Any, subscription: str) -> bool | Awaitable[bool]:
        """Let a subscription's workers get no more messages, when the caller's transaction commits.

        What they have in hand goes on. Returns False if it was paused before.

        Raises:
            SubscriptionNotFound: there is no such subscription.
        """
        return self._run(operations.pause(subscription), connection)

    def resume(self, connection: Any, subscription: str) -> bool | Awaitable[bool]:
        """Let a paused subscription go on, when the caller's transaction commits. Returns False if it was not paused.

        Raises:
            SubscriptionNotFound: there is no such subscription.
        """
        return self._run(operations.resume(subscription), connection)

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


def _nothing() -> Operation[None]:
    return
    yield
