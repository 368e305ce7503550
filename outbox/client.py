"""What an application holds: publish in its transactions, subscribe its handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, Literal, TypeVar, Unpack, overload

from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import connection as connections
from outbox import operations, schedules, subscription
from outbox import scheduled as to_come
from outbox.binding import Binding
from outbox.errors import InvalidDeclaration, InvalidMessage
from outbox.model import MessageId, NewMessage
from outbox.operations import Operation
from outbox.payload import Encoded, Limits, check_topic, encode
from outbox.requests import Requests
from outbox.retries import Retries
from outbox.scheduled import Later
from outbox.schedules import MessageOptions, Schedule
from outbox.settings import Settings
from outbox.subscription import Guarantee, OnFailure, Subscription
from outbox.ticks import Missed

T = TypeVar("T")
H = TypeVar("H", bound=Callable[..., Any])
AsyncTransaction = connections.AsyncTransaction

#: How long a call of a handler may take if its subscription does not say.
TIME_LIMIT = timedelta(minutes=10)
#: Messages that one bulk statement carries.
_CHUNK = 5_000


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
        self.limits = limits or Limits()
        self.session_factory = session_factory
        self.async_session_factory = async_session_factory
        self.subscriptions: dict[str, Subscription] = {}
        self.schedules: dict[str, Schedule] = {}
        self._schema_checked = False

    @overload
    def publish(
        self,
        connection: AsyncTransaction,
        topic: str,
        payload: Any,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        priority: int = 0,
        content_type: str | None = None,
        idempotency_key: str | None = None,
        ttl: timedelta | None = None,
    ) -> Awaitable[MessageId]: ...

    @overload
    def publish(
        self,
        connection: Any,
        topic: str,
        payload: Any,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        priority: int = 0,
        content_type: str | None = None,
        idempotency_key: str | None = None,
        ttl: timedelta | None = None,
    ) -> MessageId: ...

    def publish(
        self,
        connection: Any,
        topic: str,
        payload: Any,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        priority: int = 0,
        content_type: str | None = None,
        idempotency_key: str | None = None,
        ttl: timedelta | None = None,
    ) -> MessageId | Awaitable[MessageId]:
        """Append a message to a topic, in the caller's transaction; await it if the connection is async.

        Delivered if and when the transaction commits, never if it rolls back; does not commit. A topic that does
        not exist is declared, with one partition.

        Args:
            connection: psycopg or SQLAlchemy connection or session, sync or async; or a DB-API connection (Django's).
            payload: any JSON value, pydantic model, dataclass or msgspec Struct; bytes are stored as they are.
            key: messages with the same key are delivered in the order in which their transactions serialised on it.
            headers: names and values are text.
            priority: 0 to 9, the higher is delivered first; capped at the topic's highest.
            content_type: of a payload of bytes; "application/octet-stream" by default.
            idempotency_key: names what is published: if a message was published to the topic with it before, within
                the topic's deduplication window, nothing is stored. Waits for a transaction that is just doing so.
            ttl: how long it may wait for its delivery; then the subscription drops it, or makes it a dead letter.

        Returns:
            The message's id; that of the earlier message if there was one.

        Raises:
            InvalidMessage: it breaks a limit or can't be encoded; nothing was sent.
            TopicNotDeclared: the topic does not exist and `outbox.declare_topics` is off.
            BacklogFull: too many messages wait for a subscription that rejects more.
            SchemaOutdated: run `outbox migrate`.
        """
        message = encode(payload, self.limits, key, headers, content_type, idempotency_key, ttl)
        return self._run(operations.publish(_checked(topic), message, priority), connection)

    @overload
    def publish_many(
        self, connection: AsyncTransaction, topic: str, messages: Iterable[Any], *, priority: int = 0
    ) -> Awaitable[int]: ...

    @overload
    def publish_many(self, connection: Any, topic: str, messages: Iterable[Any], *, priority: int = 0) -> int: ...

    def publish_many(
        self, connection: Any, topic: str, messages: Iterable[Any], *, priority: int = 0
    ) -> int | Awaitable[int]:
        """Append many messages to a topic, in order, in the caller's transaction; many times faster than one by one.

        Args:
            messages: payloads, or `NewMessage`s with key, headers and idempotency key.

        Returns:
            How many were stored: all, but for those with an idempotency key that is known.

        Raises:
            InvalidMessage: one of them breaks a limit or can't be encoded; roll back, since others may have been sent.
        """
        if isinstance(messages, str | bytes | dict):
            raise InvalidMessage(f"publish_many takes many messages, not one {type(messages).__name__}")
        encoded = map(self._encode, messages)
        return self._run(_publish_in_chunks(_checked(topic), encoded, priority), connection)

    @overload
    def publish_later(
        self, connection: AsyncTransaction, topic: str, payload: Any, **options: Unpack[Later]
    ) -> Awaitable[int]: ...

    @overload
    def publish_later(self, connection: Any, topic: str, payload: Any, **options: Unpack[Later]) -> int: ...

    def publish_later(
        self, connection: Any, topic: str, payload: Any, **options: Unpack[Later]
    ) -> int | Awaitable[int]:
        """Store a message that workers publish at a time, in the caller's transaction; does not commit.

        Published once, about when it is due or as soon as a worker runs, if the transaction commits. What `publish`
        refuses is refused now.

        Args:
            options: `delay`, or `at`; and as `publish` takes them, see `outbox.scheduled.Later`.

        Returns:
            The id by which `cancel_scheduled` finds it, until it is published; the message gets another.

        Raises:
            InvalidMessage: it breaks a limit; or the delay is negative, or the time has no zone.
        """
        delay, at = options.get("delay"), options.get("at")
        to_come.check_time(delay, at)
        message = encode(
            payload, self.limits, options.get("key"), options.get("headers"), options.get("content_type"),
            options.get("idempotency_key"), options.get("ttl"),
        )  # fmt: skip
        priority = options.get("priority", 0)
        return self._run(to_come.publish_later(_checked(topic), message, priority, delay, at), connection)

    @overload
    def cancel_scheduled(self, connection: AsyncTransaction, id: int) -> Awaitable[bool]: ...

    @overload
    def cancel_scheduled(self, connection: Any, id: int) -> bool: ...

    def cancel_scheduled(self, connection: Any, id: int) -> bool | Awaitable[bool]:
        """Call off a message of `publish_later`, in the caller's transaction; False: it was published already."""
        return self._run(to_come.cancel(id), connection)

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
    ) -> None: ...

    def declare_topic(
        self,
        connection: Any,
        name: str,
        *,
        partitions: int = 1,
        max_priority: int = 0,
        deduplication_window: timedelta | None = None,
    ) -> Awaitable[None] | None:
        """Create a topic, in the caller's transaction; the same again changes nothing.

        Args:
            partitions: 1 to 1,024 ordered sub-logs; a key always goes to the same one.
            max_priority: 0 to 9; each priority is a sub-log of its own.
            deduplication_window: how long an idempotency key is remembered, 1 second to 28 days; None: as it is, or
                7 days. It may be changed; keys that were published before keep theirs.

        Raises:
            InvalidDeclaration: it exists with other settings.
        """
        if not isinstance(deduplication_window, timedelta | None):
            raise InvalidDeclaration(f"deduplication_window is {deduplication_window!r}, it must be a timedelta")
        return self._run(
            operations.declare_topic(_checked(name), partitions, max_priority, deduplication_window), connection
        )

    def subscribe(
        self,
        name: str,
        *topics: str | Binding,
        guarantee: Guarantee = "at-least-once",
        concurrency: int = 1,
        prefetch: int | None = None,
        retries: Retries | None = None,
        start: Literal["first", "next"] = "first",
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
            start: where a new subscription starts: "first" is all history that is kept, "next" what commits from now.
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

    def _encode(self, message: Any) -> Encoded:
        """A payload, or a NewMessage."""
        if not isinstance(message, NewMessage):
            return encode(message, self.limits)
        return encode(
            message.payload,
            self.limits,
            message.key,
            message.headers,
            idempotency_key=message.idempotency_key,
            ttl=message.ttl,
        )

    def _run(self, operation: Operation[T], connection: Any) -> T | Awaitable[T]:
        """Run it on the caller's connection: the result, or an awaitable of it."""
        operation = self._on_checked_schema(operation)
        if connections.is_async(connection):
            return connections.run_async(operation, connection)
        return connections.run(operation, connection)

    def _on_checked_schema(self, operation: Operation[T]) -> Operation[T]:
        """The operation, after a look at the schema's version the first time."""
        if not self._schema_checked:
            yield from operations.check_schema()
            self._schema_checked = True
        return (yield from operation)


def _checked(topic: str) -> str:
    check_topic(topic)
    return topic


def _publish_in_chunks(topic: str, messages: Iterator[Encoded], priority: int) -> Operation[int]:
    published = 0
    while chunk := list(islice(messages, _CHUNK)):
        published += yield from operations.publish_many(topic, chunk, priority)
    return published
