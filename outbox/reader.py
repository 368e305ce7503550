"""Read the log without a subscription: an iterator over its messages, that ends or follows."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypedDict

import msgspec

from outbox import commits, history
from outbox import start as starts
from outbox.binding import Binding
from outbox.errors import InvalidDeclaration
from outbox.history import Look, Position
from outbox.model import Message, MessageId
from outbox.operations import Operation
from outbox.start import Start

#: What reading consists of: operations, each in a transaction of its own; seconds to wait; and messages. What fails, or
#: is cancelled, may be done again.
Step = Callable[[], Operation[Any]] | float | Message

#: Seconds between two looks of a reader that follows: when something came just now, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

_LOOKS = "each look of a reader is a transaction of its own"


class ReadOptions(TypedDict, total=False):
    """Which messages a reader gets; those for which all that is given holds."""

    #: "first" is all history that is kept, "last" the last message of each partition, "next" what commits from now on;
    #: a `MessageId` that message and what follows in its partition, an int the same of a topic's only partition; a
    #: datetime, or a timedelta ago, what was published then and later. By default "next" if it follows, else "first".
    start: Start | MessageId | None
    #: Only what was published before.
    to: datetime | None
    #: Only the partitions of that number.
    partition: int | None
    key: str | None
    #: Names and values that a message must have; None as a value: any.
    headers: dict[str, str | None] | None
    #: A predicate on the JSON payload, in SQL/JSON path: `$.total > 100`.
    filter: str | None
    #: Wait for more, until it is closed; else it ends where the log ends when it begins.
    follow: bool
    #: The `token` of an earlier reader of the topic: go on there, whatever `start` says.
    resume: str | None


class Reading:
    """What is read, and how far it is; the same for both kinds of readers. No I/O."""

    def __init__(
        self,
        check: Callable[[], Operation[None]],
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
    ) -> None:
        Binding(topic, headers, filter=filter)  # says what is wrong with them
        began = ("next" if follow else "first") if start is None else start
        self._start: Start | MessageId = began if isinstance(began, MessageId) else starts.parsed(began)
        if to is not None:
            starts.parsed(to)
            if follow:
                raise InvalidDeclaration("a reading that follows has no end: leave `to` out")
        self._check = check
        self._wanted = history.Wanted(topic, partition, key, headers, filter, to)
        self._follow = follow
        self._until: Position | None = None
        self._token = history.token(resume, topic) if resume is not None else None

    @property
    def token(self) -> str | None:
        return None if self._token is None else msgspec.json.encode(self._token).decode()

    def steps(self) -> Generator[Step, Any, None]:
        yield self._check
        if self._token is None:
            self._token = yield partial(history.begin, self._wanted, self._start)
        if not self._follow:
            self._until = yield partial(history.end, self._wanted)
        pause = _FIRST_PAUSE
        while True:
            look: Look = yield partial(history.look, self._wanted, self._token, self._until)
            yield from self._pass_on(look)
            if look.has_more:
                continue
            if not self._follow:
                return
            pause = _FIRST_PAUSE if look.messages else min(pause * 1.5, _LONGEST_PAUSE)
            yield pause * random.uniform(0.75, 1.25)

    def _pass_on(self, look: Look) -> Iterator[Message]:
        """Its messages. The token is always that of the one that was passed on last."""
        assert self._token is not None
        position = dict(self._token.position)
        self._token = msgspec.structs.replace(self._token, position=position)
        for message, xid in look.messages:
            id = str(message.partition_id)
            position[id] = position.get(id, history.BEGINNING).after(xid, message.offset, look.position[id])
            yield message
        self._token = msgspec.structs.replace(self._token, position=look.position)


class Reader(Iterator[Message]):
    """Messages of the log, one by one: see `Outbox.read`. It ends at the end, or when it is closed.

    Each partition's messages come in the order of their offsets, but for those that commit later than what lies behind
    them: these come when they do. Nothing is missed or doubled. An error of the connection passes through; asked
    for the next message after it, it looks again.
    """

    def __init__(self, reading: Reading, connection: Any) -> None:
        self._reading = reading
        self._connection = connection
        self._steps = reading.steps()
        self._step: Step | None = None
        self._closed = threading.Event()

    @property
    def token(self) -> str | None:
        """Where it stands, behind the message that came last: `Outbox.read(resume=...)` goes on there, in any process.

        Text (JSON). None before the first message. Keep it in the transaction of what you make of the message, and
        nothing is lost or doubled.
        """
        return self._reading.token

    def close(self) -> None:
        """Let it end, also from another thread; who waits for the next message waits no more."""
        self._closed.set()

    def __next__(self) -> Message:
        result = None
        while not self._closed.is_set():
            step = self._step = self._steps.send(result) if self._step is None else self._step
            result = None
            if isinstance(step, float):
                self._closed.wait(step)
            elif not isinstance(step, Message):
                result = commits.commit(step(), commits.outside_of_a_transaction(self._connection, _LOOKS))
            self._step = None
            if isinstance(step, Message):
                return step
        raise StopIteration


class AsyncReader(AsyncIterator[Message]):
    """The same on an async connection: `async for message in app.read(...)`. See `Reader`."""

    def __init__(self, reading: Reading, connection: Any) -> None:
        self._reading = reading
        self._connection = connection
        self._steps = reading.steps()
        self._step: Step | None = None
        self._closed = asyncio.Event()

    @property
    def token(self) -> str | None:
        """Where it stands, behind the message that came last: see `Reader.token`."""
        return self._reading.token

    def close(self) -> None:
        """Let it end; who waits for the next message waits no more. In its event loop only."""
        self._closed.set()

    async def __anext__(self) -> Message:
        result = None
        while not self._closed.is_set():
            try:
                step = self._step = self._steps.send(result) if self._step is None else self._step
            except StopIteration:
                break
            result = None
            if isinstance(step, float):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), step)
            elif not isinstance(step, Message):
                connection = commits.outside_of_a_transaction(self._connection, _LOOKS)
                result = await commits.commit_async(step(), connection)
            self._step = None
            if isinstance(step, Message):
                return step
        raise StopAsyncIteration
