"""Publish, now or later, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar, Unpack, overload

from outbox import connection as connections
from outbox import operations
from outbox import scheduled as to_come
from outbox.connection import AsyncTransaction
from outbox.errors import InvalidMessage
from outbox.model import MessageId, NewMessage
from outbox.operations import Operation
from outbox.payload import Encoded, Limits, check_topic, encode
from outbox.published import Published
from outbox.scheduled import Later
from outbox.sending import Sending

T = TypeVar("T")

#: Messages that one bulk statement carries.
_CHUNK = 5_000


class Publisher:
    """What an `Outbox` has for publishing. Holds no connection."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        #: What was published in this process, and what was refused.
        self.published = Published()
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

        def operation(sending: Sending) -> Operation[MessageId]:
            with_context = sending.headers(headers, self.limits.headers)
            message = encode(payload, self.limits, key, with_context, content_type, idempotency_key, ttl)
            return operations.publish(topic, message, priority)

        return self._send(topic, operation, connection, lambda found: (1, found))

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

        def operation(sending: Sending) -> Operation[int]:
            return _publish_in_chunks(topic, (self._encode(message, sending) for message in messages), priority)

        return self._send(topic, operation, connection, lambda stored: (stored, None))

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

        def operation(sending: Sending) -> Operation[int]:
            delay, at = options.get("delay"), options.get("at")
            to_come.check_time(delay, at)
            message = encode(
                payload, self.limits, options.get("key"), sending.headers(options.get("headers"), self.limits.headers),
                options.get("content_type"), options.get("idempotency_key"), options.get("ttl"),
            )  # fmt: skip
            return to_come.publish_later(topic, message, options.get("priority", 0), delay, at)

        return self._send(topic, operation, connection, lambda found: (0, f"scheduled-{found}"))

    @overload
    def cancel_scheduled(self, connection: AsyncTransaction, id: int) -> Awaitable[bool]: ...

    @overload
    def cancel_scheduled(self, connection: Any, id: int) -> bool: ...

    def cancel_scheduled(self, connection: Any, id: int) -> bool | Awaitable[bool]:
        """Call off a message of `publish_later`, in the caller's transaction; False: it was published already."""
        return self._run(to_come.cancel(id), connection)

    def _encode(self, message: Any, sending: Sending) -> Encoded:
        """A payload, or a NewMessage."""
        if not isinstance(message, NewMessage):
            return encode(message, self.limits, headers=sending.headers(None, self.limits.headers))
        return encode(
            message.payload,
            self.limits,
            message.key,
            sending.headers(message.headers, self.limits.headers),
            idempotency_key=message.idempotency_key,
            ttl=message.ttl,
        )

    def _send(
        self,
        topic: str,
        prepare: Callable[[Sending], Operation[T]],
        connection: Any,
        result: Callable[[T], tuple[int, object]],
    ) -> T | Awaitable[T]:
        """Run a publish; `result` says of what it returns how many messages that is, and which id one has."""
        sending = Sending(checked(topic), self.published)
        try:
            operation = prepare(sending)
            if not self._schema_checked:
                operation = self._on_checked_schema(operation)
            if connections.is_async(connection):
                return self._send_async(sending, operation, connection, result)
            returned = connections.run(operation, connection)
        except BaseException as error:
            sending.failed(error)
            raise
        sending.sent(*result(returned))
        return returned

    async def _send_async(
        self, sending: Sending, operation: Operation[T], connection: Any, result: Callable[[T], tuple[int, object]]
    ) -> T:
        try:
            returned = await connections.run_async(operation, connection)
        except BaseException as error:
            sending.failed(error)
            raise
        sending.sent(*result(returned))
        return returned

    def _run(self, operation: Operation[T], connection: Any) -> T | Awaitable[T]:
        """Run it on the caller's connection: the result, or an awaitable of it."""
        if not self._schema_checked:
            operation = self._on_checked_schema(operation)
        if connections.is_async(connection):
            return connections.run_async(operation, connection)
        return connections.run(operation, connection)

    def _on_checked_schema(self, operation: Operation[T]) -> Operation[T]:
        """The operation, after a look at the schema's version."""
        yield from operations.check_schema()
        self._schema_checked = True
        return (yield from operation)


def checked(topic: str) -> str:
    check_topic(topic)
    return topic


def _publish_in_chunks(topic: str, messages: Iterator[Encoded], priority: int) -> Operation[int]:
    published = 0
    while chunk := list(islice(messages, _CHUNK)):
        published += yield from operations.publish_many(topic, chunk, priority)
    return published
