"""Make the calls of a chunk in flights: transactions that are sent without waiting for the commit of the one before.

What is known to have committed is noted. The first that did not is told why it failed; those behind it, of which the
server knows nothing, are made again. Where the error that a handler met may be that of a call before its own, nobody
is blamed: what did not commit is made again, the first one alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from outbox import handling
from outbox.chunks import Call, Chunk
from outbox.handling import Leases, Outcomes
from outbox.pipelining import AsyncFlight, AsyncPipelinedSeries, Flight, PipelinedSeries, Window
from outbox.posts import Interrupted, Post
from outbox.series import AsyncSeries, HandlerTransactionError, Series
from outbox.subscription import Subscription

#: Seconds that the first call of a flight may wait for the handlers behind it, until its outcome is known.
_LONGEST = 0.05


@dataclass(slots=True)
class _Book:
    """What was done in a flight."""

    chunk: Chunk
    window: Window
    #: The last one is being made.
    calls: list[Call]
    #: Of those calls whose handler came to its end: all, or all but the last.
    outcomes: list[Outcomes] = field(default_factory=list)
    until: float = field(default_factory=lambda: time.monotonic() + _LONGEST)

    def go_on(self) -> bool:
        """Take another call; False: the flight is to end."""
        if len(self.calls) >= int(self.window) or self.chunk.disturbed or time.monotonic() >= self.until:
            return False
        if call := self.chunk.next_call():
            self.calls.append(call)
        return call is not None

    def close(self, committed: int, error: BaseException | None) -> None:
        """Tell the chunk what became of the calls."""
        for call, outcomes in zip(self.calls[:committed], self.outcomes, strict=False):
            self.chunk.note(call, outcomes)
        rest = self.calls[committed:]
        self.window.note(failed=bool(rest))
        if error is None or not rest:
            return
        guilty = rest[:1] if len(rest) == 1 or self._is_told(error) else []
        self.chunk.put_back(rest[len(guilty) :])
        for call in guilty:
            self.chunk.note(call, handling.failed(self.chunk.subscription, call.messages, error))

    def _is_told(self, error: BaseException) -> bool:
        """Is it the database's own word of the first that failed? No handler met it before us."""
        has_ended = len(self.outcomes) == len(self.calls)
        return has_ended and not isinstance(error, HandlerTransactionError)


def make(chunk: Chunk, call: Call, books: Leases, series: Series | None, post: Post) -> None:
    """Make a call, and maybe some of those behind it; the chunk is told. Never raises."""
    if isinstance(series, PipelinedSeries) and _is_tried_again(chunk):
        _fly(chunk, call, books, series, post)
    else:
        more = bool(chunk.calls)
        chunk.note(call, handling.handle(chunk.subscription, call, books, series, post, more))


async def make_async(chunk: Chunk, call: Call, books: Leases, series: AsyncSeries | None, post: Post) -> None:
    """Make a call with coroutines, as `make` does."""
    if isinstance(series, AsyncPipelinedSeries) and _is_tried_again(chunk):
        await _fly_async(chunk, call, books, series, post)
    else:
        more = bool(chunk.calls)
        chunk.note(call, await handling.handle_async(chunk.subscription, call, books, series, post, more))


def _is_tried_again(chunk: Chunk) -> bool:
    return chunk.subscription.guarantee != "at-most-once"


def _fly(chunk: Chunk, call: Call, books: Leases, series: PipelinedSeries, post: Post) -> None:
    book, flight, error = _Book(chunk, series.window, [call]), None, None
    try:
        with series.flight() as flight:
            going = True
            while going:
                _fly_one(book, books, flight, post)
                going = book.go_on()
    except BaseException as broken:  # whatever it is, the thread goes on
        error = Interrupted() if post.interrupted else broken
    book.close(flight.committed if flight else 0, error)


def _fly_one(book: _Book, books: Leases, flight: Flight, post: Post) -> None:
    subscription, call = book.chunk.subscription, book.calls[-1]
    post.take(book.chunk, call)
    post.connection = flight.connection
    outcomes = handling.talk(subscription, call, _given(subscription, flight), post)
    last = books.last(call, outcomes)
    book.outcomes.append(outcomes)
    flight.commit(last)


async def _fly_async(chunk: Chunk, call: Call, books: Leases, series: AsyncPipelinedSeries, post: Post) -> None:
    book, flight, error = _Book(chunk, series.window, [call]), None, None
    try:
        async with series.flight() as flight:
            going = True
            while going:
                await _fly_one_async(book, books, flight, post)
                going = book.go_on()
    except BaseException as broken:
        if handling.is_cancelled(broken, post):
            raise
        error = Interrupted() if post.interrupted else broken
    book.close(flight.committed if flight else 0, error)


async def _fly_one_async(book: _Book, books: Leases, flight: AsyncFlight, post: Post) -> None:
    subscription, call = book.chunk.subscription, book.calls[-1]
    post.take(book.chunk, call)
    outcomes = await handling.talk_async(subscription, call, _given(subscription, flight), post)
    last = books.last(call, outcomes)
    book.outcomes.append(outcomes)
    await flight.commit(last)


def _given(subscription: Subscription, flight: Flight | AsyncFlight) -> dict[str, object]:
    assert subscription.wants is not None
    return {subscription.wants[1]: flight.connection}
