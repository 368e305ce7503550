"""Where the messages of lanes are handled, and what becomes of them: runners, as a consumer of our own log has them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from outbox import chunks, handling
from outbox.chunks import Call, Chunk, Deferred
from outbox.errors import LeaseLost
from outbox.handling import Outcomes
from outbox.logs import log
from outbox.model import Reject
from outbox.observer import Observer
from outbox.pace import Pace
from outbox.relay.feeding.books import FeedBooks
from outbox.relay.feeding.lanes import Lane
from outbox.relay.feeding.message import Fed
from outbox.runners import Coroutines, Threads
from outbox.series import NotBegun
from outbox.subscription import Subscription
from outbox.tracing import trace_id
from outbox.transactions import Transactions
from outbox.watchdog import Watchdog


class Handlers:
    """Hands messages of lanes to runners, lane by lane, and notes what became of each in it.

    Args:
        lanes: those that are ours, by name; who changes them is the feed.
        is_fenced: do positions move in the handlers' transactions? Then those of a lane follow one another.
        changed: told when messages have come to something.
        lost: told of a lane that stands elsewhere than we think.
    """

    def __init__(
        self,
        subscription: Subscription,
        lanes: dict[str, Lane],
        transactions: Transactions,
        watchdog: Watchdog,
        observer: Observer,
        is_fenced: bool,
        changed: Callable[[], None],
        lost: Callable[[Lane, Exception], None],
    ) -> None:
        self._subscription, self._lanes, self._transactions, self._observer = (
            subscription,
            lanes,
            transactions,
            observer,
        )
        self._is_fenced, self._changed, self._lost = is_fenced, changed, lost
        self._is_sequential = is_fenced or subscription.on_failure is not None
        self._is_settled_before = subscription.guarantee == "at-most-once"
        self.pace = Pace(subscription.concurrency, subscription.prefetch, subscription.batch)
        #: Messages that handlers are at work on, or have in their chunk.
        self.running = 0
        self._doubtful: list[tuple[Lane, Fed]] = []
        #: Set when a handler could not be stopped: the process must be replaced.
        self.stuck = asyncio.Event()
        self.is_paused = self._is_stopping = False
        self._idle_runners = subscription.concurrency
        self._under_way: dict[Chunk, tuple[Lane, list[Fed]]] = {}
        self._runner = self._make_runner(watchdog)

    def stop(self) -> None:
        """Begin with no more messages, but for those that are settled: they would be lost."""
        if self._is_settled_before:
            return
        self._is_stopping = True
        for chunk in self._under_way:
            chunk.halt()
        self._runner.stop()

    def doubt(self, lane: Lane, message: Fed) -> None:
        """The database refused it, for somebody may have done it: it is to be looked at again."""
        self._doubtful.append((lane, message))

    def take_doubtful(self) -> list[tuple[Lane, Fed]]:
        doubtful, self._doubtful = self._doubtful, []
        return doubtful

    def dispatch(self) -> None:
        """Give runners that are idle something to do."""
        while not (self.is_paused or self._is_stopping) and self._idle_runners:
            lane = self._next_lane()
            if lane is None:
                return
            if messages := self._take(lane):
                self._start(lane, messages)

    def _start(self, lane: Lane, messages: list[Fed]) -> None:
        chunk = chunks.cut(deque(messages), self._subscription, len(messages))
        self._idle_runners -= 1
        self.running += chunk.size
        lane.chunks.add(chunk)
        self._under_way[chunk] = (lane, messages)
        self._runner.start(chunk)

    def _next_lane(self) -> Lane | None:
        """The next in turn that may go on."""
        for name, lane in self._lanes.items():
            if lane.waiting and self._may_go_on(lane):
                self._lanes[name] = self._lanes.pop(name)  # to the end
                return lane
        return None

    def _may_go_on(self, lane: Lane) -> bool:
        if self._is_sequential and (lane.chunks or lane.settling.locked()):
            return False
        if self._is_fenced and lane.has_failures:
            return False
        return not lane.parked or self._subscription.on_failure == "park"

    def _take(self, lane: Lane) -> list[Fed]:
        """What a runner gets next of a lane; what must stay behind a message on a detour follows it."""
        size = max(self.pace.chunk, self._subscription.batch)
        if not self._is_sequential:
            size = max(self._subscription.batch, min(size, -(-len(lane.waiting) // self._idle_runners)))
        taken: list[Fed] = []
        follow = False
        while lane.waiting and len(taken) < size:
            if lane.parked and lane.waiting[0].key in lane.parked:
                if taken and self._is_fenced:  # whose transactions move on over it
                    break
                lane.waiting.popleft().outcome = Deferred()
                follow = True
            elif follow and self._is_fenced:  # the same: it is not on its detour yet
                break
            else:
                taken.append(lane.waiting.popleft())
        if follow:
            self._changed()
        return taken

    def _make_runner(self, watchdog: Watchdog) -> Threads | Coroutines:
        subscription, transactions = self._subscription, self._transactions
        limit = subscription.time_limit.total_seconds() if subscription.time_limit else None
        told = (self._done, self._give_up, watchdog, limit)
        if subscription.is_async:
            return Coroutines(self._make_async, lambda: transactions.async_series(subscription), *told)
        return Threads(subscription.concurrency, self._make, lambda: transactions.series(subscription), *told)

    def _make(self, chunk: Chunk, call: Call, series: Any, post: Any) -> None:
        more = bool(chunk.calls)
        outcomes = handling.handle(self._subscription, call, self._books(chunk), series, post, more)
        self._heed(chunk, outcomes)
        chunk.note(call, outcomes)

    async def _make_async(self, chunk: Chunk, call: Call, series: Any, post: Any) -> None:
        more = bool(chunk.calls)
        outcomes = await handling.handle_async(self._subscription, call, self._books(chunk), series, post, more)
        self._heed(chunk, outcomes)
        chunk.note(call, outcomes)

    def _books(self, chunk: Chunk) -> FeedBooks:
        return FeedBooks(self._subscription, self._under_way[chunk][0], self._is_fenced)

    def _heed(self, chunk: Chunk, outcomes: Outcomes | None) -> None:
        """Go on with a chunk only if its lane may: what failed is led round first, if positions move with effects."""
        errors = [error for error in outcomes or () if error is not None]
        if errors and (self._is_fenced or any(isinstance(error, NotBegun | LeaseLost) for error in errors)):
            chunk.halt()

    def _done(self, chunk: Chunk) -> None:
        if chunk.given_up:
            return  # it came to its end after all; its worker is on its way out
        self._idle_runners += 1
        if chunk.outcomes:
            self.pace.note(chunk.outcomes, chunk.seconds)
            self._observer.handled(chunk)
        self._close(chunk)
        self.dispatch()

    def _close(self, chunk: Chunk) -> None:
        """Note what a chunk has come to."""
        lane, messages = self._under_way.pop(chunk)
        lane.chunks.discard(chunk)
        self.running -= chunk.size
        for message in chunk.done:
            cast(Fed, message).outcome = True
        for failed, error in chunk.failed:
            self._fail(lane, cast(Fed, failed), error)
        doubtful = {id(one) for _, one in self._doubtful}
        lane.put_back(one for one in messages if one.outcome is None and id(one) not in doubtful)
        self._changed()

    def _give_up(self, chunk: Chunk, call: Call) -> None:
        """A handler goes on beyond its limit: settle what else there is, as far as it can be known."""
        if chunk not in self._under_way or chunk.current is not call:
            return  # it ended while we were being told
        chunk.give_up()
        self._observer.handled(chunk)
        guilty = cast(list[Fed], chunk.open_messages(call)[: 1 if call.apart else None])
        lane = self._under_way[chunk][0]
        for message, error in zip(guilty, handling.stuck(self._subscription, list(guilty)), strict=True):
            self._lead_round(lane, message, error)
        self._close(chunk)
        self.stuck.set()

    def _fail(self, lane: Lane, message: Fed, error: Exception) -> None:
        if isinstance(error, LeaseLost):
            self._observer.lost()
            if self._is_fenced:
                self._lost(lane, error)
            else:
                self.doubt(lane, message)
        elif self._is_settled_before:
            self._observer.failed("dropped", None)
            self._log(logging.ERROR, "failed without a lease: message dropped", message, error)
        elif isinstance(error, Deferred) and self._subscription.on_failure != "park":
            self._observer.failed("deferred", None)  # it is put back, as is what could not begin
        elif not isinstance(error, NotBegun):
            self._lead_round(lane, message, error)

    def _lead_round(self, lane: Lane, message: Fed, error: Exception) -> None:
        """It is tried again where one message can wait, or it is a dead letter."""
        message.outcome = error
        is_final = chunks.is_final(self._subscription, message, error)
        if not is_final:
            lane.park(message, self._subscription.on_failure)
        if isinstance(error, Deferred):
            self._observer.failed("deferred", None)
        elif is_final:
            self._observer.failed("dead", "rejected" if isinstance(error, Reject) else "attempts exhausted")
            self._log(logging.ERROR, "dead letter", message, error)
        else:
            self._observer.failed("retry", None)
            self._log(logging.WARNING, "retry", message, error)

    def _log(self, level: int, event: str, message: Fed, error: Exception) -> None:
        known = {"subscription": self._subscription.name, "message": message.id, "topic": message.topic, "attempt": 1}
        traced = {"trace": id} if (id := trace_id(message)) else {}
        log(level, event, **known, **traced, cause=handling.cause_of(error))
