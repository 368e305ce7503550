"""A circuit breaker: while another system is away, it is asked seldom, and by one message at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Literal, NamedTuple, TypeVar

T = TypeVar("T")
State = Literal["closed", "open", "half-open", "disabled"]

#: Seconds of the first pause.
_FIRST = 0.1


class Stopped(Exception):
    """Raised to who waits for a circuit when nobody is to wait any more, or the other side wants nothing any more."""


async def unless(stopping: asyncio.Event, doing: Awaitable[T]) -> T:
    """Wait for it; give up, and raise Stopped, when asked to stop."""
    task, stop = asyncio.ensure_future(doing), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Stopped
    finally:
        for one in (task, stop):
            one.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


class Ticket(NamedTuple):
    """Leave to try."""

    #: Is it to find out whether the other side is back? Then one message is enough.
    is_probe: bool
    #: When it was given: a verdict on what was begun before the circuit changed changes nothing.
    epoch: int


class Circuit:
    """Closed, messages flow. Open, everybody waits. When a pause is over one may try: it closes, or the pause doubles.

    Args:
        longest: seconds of the longest pause.
    """

    def __init__(self, longest: float) -> None:
        self.state: State = "closed"
        #: Why it is open or disabled: the last error.
        self.reason: str | None = None
        self._longest = longest
        self._pause = _FIRST
        self._until = 0.0
        self._since = time.monotonic()
        self._epoch = 0
        self._changed = asyncio.Event()
        self._is_stopped = False

    @property
    def seconds(self) -> float:
        """For how long it has not been open or disabled; or, if it is, for how long."""
        return time.monotonic() - self._since

    async def admit(self) -> Ticket:
        """Wait until something may be tried. Raises Stopped."""
        while True:
            if self._is_stopped or self.state == "disabled":
                raise Stopped
            if self.state == "closed":
                return Ticket(False, self._epoch)
            left = self._until - time.monotonic()
            if self.state == "open" and left <= 0:
                self._become("half-open")
                return Ticket(True, self._epoch)
            await self.change(left if self.state == "open" else None)

    def succeeded(self, ticket: Ticket) -> None:
        """The other side has answered."""
        if ticket.epoch != self._epoch:
            return
        self._pause = _FIRST
        if self.state != "closed":
            self.reason = None
            self._become("closed")

    def failed(self, ticket: Ticket, reason: str, after: float | None = None, at_once: bool = False) -> bool:
        """It has not; leave it alone for a pause, or for as long as it asked for. Is that news?

        Args:
            at_once: without a pause: to try costs the other side nothing.
        """
        if ticket.epoch != self._epoch:
            return False
        news = self.state == "closed"
        if not at_once:
            pause = self._pause * random.uniform(0.5, 1)
            self._pause = min(2 * self._pause, self._longest)
            self._until = time.monotonic() + max(pause, after or 0)
        self.reason = reason
        self._become("open")
        return news

    def disable(self, reason: str) -> None:
        """The other side wants nothing any more."""
        self.reason = reason
        self._become("disabled")

    def enable(self) -> None:
        """It does, after all."""
        self.reason = None
        self._become("closed")

    def stop(self) -> None:
        """Nobody waits any more."""
        self._is_stopped = True
        self._ring()

    async def change(self, seconds: float | None) -> None:
        """Wait until it changes, or so many seconds are over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def _become(self, state: State) -> None:
        if {self.state, state} != {"open", "half-open"}:
            self._since = time.monotonic()
        self.state = state
        self._epoch += 1
        self._ring()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
