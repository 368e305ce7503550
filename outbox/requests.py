"""Ask, and wait for the answer: a request is a message, and so is its reply, which carries its correlation id.

The reply is published under that id as its idempotency key, so that it is there once however often the request is
handled, and whoever asked finds it by an exact look-up: no subscription, no lease, no scan.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Generator, Iterator
from datetime import timedelta
from typing import Any, TypeVar, overload

import msgspec

from outbox import commits, operations
from outbox import connection as connections
from outbox.connection import AsyncTransaction
from outbox.errors import InvalidDeclaration, InvalidMessage, RequestFailed, RequestTimedOut
from outbox.model import Batch, Message, MessageId
from outbox.operations import Operation
from outbox.payload import Encoded, check_topic, encode
from outbox.publisher import Publisher

T = TypeVar("T")

#: Headers of a request, and of its reply.
REPLY_TO, CORRELATION_ID, ERROR = "reply-to", "correlation-id", "error"

#: What a request consists of: operations, each in a transaction of its own, and seconds to wait between them.
Steps = Generator[Operation[Any] | float, Any, T]

_COMMITS = "a request commits: what is not committed nobody can answer"

#: Seconds between two looks for the reply: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05


class Requests(Publisher):
    """A publisher that asks, and answers."""

    @overload
    def request(
        self,
        connection: AsyncTransaction,
        topic: str,
        payload: Any,
        *,
        timeout: timedelta,
        reply_topic: str | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Awaitable[Message]: ...

    @overload
    def request(
        self,
        connection: Any,
        topic: str,
        payload: Any,
        *,
        timeout: timedelta,
        reply_topic: str | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Message: ...

    def request(
        self,
        connection: Any,
        topic: str,
        payload: Any,
        *,
        timeout: timedelta,
        reply_topic: str | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Message | Awaitable[Message]:
        """Publish a request, commit it, and wait for its reply; await it if the connection is async.

        It commits: what is not committed nobody can answer. So the connection must be outside of a transaction, and is
        so again at the end. The request is handled at least once; its reply is there once. An error of the
        connection, as a timeout, leaves open whether the request is handled; asking again is another request.

        Args:
            connection: as `publish` takes it, outside of a transaction; of DB-API connections psycopg2's and Django's.
            timeout: how long to wait for the reply, more than 0.
            reply_topic: where the reply is to be published; by default "replies." and the request's topic.
            key: as of `publish`.
            headers: as of `publish`; the reply's topic and the correlation id are added.

        Returns:
            The reply.

        Raises:
            RequestTimedOut: there was no reply in time.
            RequestFailed: the reply says so: whoever handled it called `reply_error`.
            NotOwnTransaction: the connection is in a transaction.
            InvalidMessage, TopicNotDeclared, SchemaOutdated: as `publish`.
        """
        if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
            raise InvalidDeclaration(f"timeout is {timeout!r}, it must be a timedelta of more than 0")
        reply_topic = f"replies.{topic}" if reply_topic is None else reply_topic
        for name in topic, reply_topic:
            check_topic(name)
        id = str(uuid.uuid4())
        asked = _with(headers, {REPLY_TO: reply_topic, CORRELATION_ID: id})
        message = encode(payload, self.limits, key, asked, ttl=timeout)  # then nobody waits for its reply any more
        published = self._on_checked_schema(operations.publish(topic, message, 0))
        steps = _ask(published, topic, reply_topic, id, timeout)
        connection = commits.outside_of_a_transaction(connection, _COMMITS)
        return _take_async(steps, connection) if connections.is_async(connection) else _take(steps, connection)

    @overload
    def reply(
        self, connection: AsyncTransaction, message: Message, payload: Any, *, headers: dict[str, str] | None = None
    ) -> Awaitable[MessageId | None]: ...

    @overload
    def reply(
        self, connection: Any, message: Message, payload: Any, *, headers: dict[str, str] | None = None
    ) -> MessageId | None: ...

    def reply(
        self, connection: Any, message: Message, payload: Any, *, headers: dict[str, str] | None = None
    ) -> MessageId | Awaitable[MessageId | None] | None:
        """Answer a request, in the caller's transaction; await it if the connection is async.

        The first reply that commits is the reply, for as long as its topic remembers idempotency keys; another stores
        nothing. In the handler's own transaction it is there if and only if the handler's effects are.

        Args:
            connection: as `publish` takes it: the handler's, or another to the same database.
            message: the request.
            payload: as of `publish`.
            headers: as of `publish`; the correlation id is added.

        Returns:
            The reply's id; that of the first one if there was one; None if the message asks for no reply.

        Raises:
            InvalidMessage, TopicNotDeclared: as `publish`.
        """
        return self._run(self._answer(message, payload, headers), connection)

    @overload
    def reply_error(
        self, connection: AsyncTransaction, message: Message, text: str, payload: Any = None
    ) -> Awaitable[MessageId | None]: ...

    @overload
    def reply_error(self, connection: Any, message: Message, text: str, payload: Any = None) -> MessageId | None: ...

    def reply_error(
        self, connection: Any, message: Message, text: str, payload: Any = None
    ) -> MessageId | Awaitable[MessageId | None] | None:
        """Answer a request with an error, as `reply` does: whoever asked gets `RequestFailed` with its text.

        The request is handled then: this is the answer that it can't be done, not another try.

        Args:
            text: the reply's header "error"; what is too long for a header is cut off.
            payload: details for programs, in the reply of the `RequestFailed`.
        """
        headers = {ERROR: _cut(text, self.limits.header_value)}
        return self._run(self._answer(message, payload, headers), connection)

    def _answer(self, message: Message, payload: Any, headers: dict[str, str] | None) -> Operation[MessageId | None]:
        """Publish the reply, if one is asked for."""
        topic, id = message.headers.get(REPLY_TO), message.headers.get(CORRELATION_ID)
        if not topic or not id:
            return _nothing()
        check_topic(topic)
        reply = encode(payload, self.limits, id, _with(headers, {CORRELATION_ID: id}), idempotency_key=id)
        return _published(topic, reply)


def _ask(published: Operation[MessageId], topic: str, reply_topic: str, id: str, timeout: timedelta) -> Steps[Message]:
    until = time.monotonic() + timeout.total_seconds()
    yield published
    for pause in _pauses():
        reply: Message | None = yield _reply_to(reply_topic, id)
        if reply is not None:
            break
        left = until - time.monotonic()
        if left <= 0:
            raise RequestTimedOut(topic, id, timeout)
        yield min(pause, left)
    assert reply is not None
    if ERROR in reply.headers:
        raise RequestFailed(topic, reply.headers[ERROR], reply)
    return reply


def _pauses() -> Iterator[float]:
    """Growing ones, by chance longer or shorter, so that many who wait don't look at once."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.75, 1.25)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _reply_to(topic: str, id: str) -> Operation[Message | None]:
    rows = yield operations.Statement(
        'SELECT partition, priority, partition_id, "offset", '
        "CAST(extract(epoch FROM published_at - CAST('2000-01-01 00:00Z' AS timestamptz)) * 1000000 AS bigint), "
        "key, CAST(headers AS text), CAST(payload AS text), body "
        "FROM outbox.reply_to(CAST(%s AS text), CAST(%s AS text))",
        (topic, id),
    )
    return _message(topic, *rows[0]) if rows else None


def _message(
    topic: str, partition: int, priority: int, partition_id: int, offset: int, published_at: int,
    key: str | None, headers: str, json: str | None, body: Any,
) -> Message:  # fmt: skip  # a row of outbox.reply_to
    """The reply as handlers get messages, under no lease."""
    raw, bytes_ = (None, bytes(body)) if json is None else (json.encode(), None)
    batch = Batch(None, 1, False, topic, partition, priority, partition_id, len(raw or bytes_ or b""))
    return Message(batch, offset, published_at, key, msgspec.json.decode(headers, type=dict[str, str]), raw, bytes_)


def _published(topic: str, reply: Encoded) -> Operation[MessageId | None]:
    return (yield from operations.publish(topic, reply, 0))


def _nothing() -> Operation[None]:
    return
    yield


def _with(headers: dict[str, str] | None, ours: dict[str, str]) -> dict[str, str]:
    if headers is not None and not isinstance(headers, dict):
        raise InvalidMessage(f"headers are a dict of names and values, not a {type(headers).__name__}")
    for name in ours:
        if name in (headers or {}):
            raise InvalidMessage(f"the header {name!r} is set by outbox: it leads the reply to whoever asked")
    return {**(headers or {}), **ours}


def _cut(text: str, limit: int) -> str:
    """A header's value: within the limit of bytes, and without what Postgres can't store."""
    return text.replace("\0", "").encode(errors="replace")[:limit].decode(errors="ignore")


def _take(steps: Steps[T], connection: Any) -> T:
    """Run the operations, each in a transaction of its own, and wait where it says so."""
    try:
        step = next(steps)
        while True:
            result = None
            if isinstance(step, float):
                time.sleep(step)
            else:
                result = commits.commit(step, connection)
            step = steps.send(result)
    except StopIteration as end:
        reply: T = end.value
        return reply


async def _take_async(steps: Steps[T], connection: Any) -> T:
    """The same on an async connection."""
    try:
        step = next(steps)
        while True:
            result = None
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                result = await commits.commit_async(step, connection)
            step = steps.send(result)
    except StopIteration as end:
        reply: T = end.value
        return reply
