"""One subscription in one worker process: pull ahead, hand to the runners, settle in batches.

pull ──► waiting ──► runner (thread or coroutine) ──► ledger ──► settle
  ▲                                                     │
  └───────────── room, as messages are handled ◄────────┘
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress

from outbox import chunks, flights, operations
from outbox.alarm import Alarm
from outbox.chunks import Call, Chunk
from outbox.database import AWAY, Database
from outbox.errors import WorkerLost
from outbox.handling import Leases
from outbox.logs import log
from outbox.model import Message
from outbox.observer import NOBODY, Observer
from outbox.operations import Pulled, Settlement
from outbox.pace import Pace
from outbox.resting import Rest
from outbox.runners import Coroutines, Threads
from outbox.settler import Settler
from outbox.subscription import Subscription
from outbox.transactions import Transactions
from outbox.watchdog import Watchdog

#: Messages, and bytes of payloads, in one pull at most: more at a time costs Postgres more a message, not less.
_MOST, _MOST_BYTES = 2_000, 1024 * 1024
#: Seconds until the next pull, where there is more: at least, and at most; and while the worker registers anew.
_SHORTLY, _LONG, _REGISTERING = 0.001, 1.0, 0.1
#: Seconds between looks at all redeliveries that are due, and not only at those of the last moments.
_OVERDUE = 20.0


class Consumer:
    """Consumes one subscription until it is stopped."""

    def __init__(
        self,
        subscription: Subscription,
        database: Database,
        alarm: Alarm,
        transactions: Transactions,
        watchdog: Watchdog,
        worker: int,
        observer: Observer = NOBODY,
    ) -> None:
        self.observer = observer
        self.name = subscription.name
        self.subscription = subscription
        self.rung = asyncio.Event()
        #: Set when the worker was found dead and must register anew.
        self.lost = asyncio.Event()
        #: Set when a settlement may have made something due that had to wait.
        self._freed = asyncio.Event()
        #: Set when a handler could not be stopped: the process must be replaced.
        self.stuck = asyncio.Event()
        self._database, self._line, self._transactions = database, database.line(), transactions
        self._leased = subscription.guarantee != "at-most-once"
        whole_leases = subscription.guarantee == "exactly-once"
        self._pace = Pace(subscription.concurrency, subscription.prefetch, subscription.batch, whole_leases)
        self._settler = Settler(subscription, database, observer, worker, self._lose, self._forget)
        self._waiting: deque[Message] = deque()
        self._under_way: set[Chunk] = set()
        self._running = 0
        self._idle_runners = subscription.concurrency
        self._room, self._still = asyncio.Event(), asyncio.Event()
        self._pulled = asyncio.Event()
        self._still.set()
        self._stopping = asyncio.Event()
        #: Leases of redeliveries: a suspect is handed out only when the one before it is settled.
        self._redelivered: set[int] = set()
        #: What `Database.breaks` was when we last looked for leases that we don't know of.
        self._breaks = 0
        self._last_overdue = -1e9
        self._rest = Rest(self, alarm)
        #: Seconds that the last pull took.
        self._cost = 0.0
        self._runner: Threads | Coroutines = self._make_runner(watchdog)

    @property
    def worker(self) -> int:
        """Whose leases they are."""
        return self._settler.worker

    @property
    def _books(self) -> Leases:
        return Leases(self.subscription, self.worker)

    @property
    def running(self) -> int:
        """Messages that handlers are at work on, or have in their chunk."""
        return self._running

    @property
    def waiting(self) -> int:
        """Messages that were pulled and wait for a runner."""
        return len(self._waiting)

    async def run(self) -> None:
        """Pull and settle until `stop` and `finish`; an error of either ends both."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pull_until_stopped())
            group.create_task(self._settler.run())

    async def _pull_until_stopped(self) -> None:
        try:
            await self._pull_while_there_is_room()
        finally:
            self._pulled.set()

    async def _pull_while_there_is_room(self) -> None:
        while not self._stopping.is_set():
            if not self._has_room:
                self._room.clear()
                await self._room.wait()
                continue
            limit = min(self._pace.in_hand - self._in_hand, _MOST, self._pace.fitting(_MOST_BYTES))
            self._freed.clear()
            pulled = await self._pull(limit)
            if self._stopping.is_set() and self._leased:
                return  # they go back with all that the worker holds
            self._accept(pulled.batches)
            if pulled.again_in is not None:
                await self._wait_until_freed(pulled.again_in)
            elif not pulled.was_limited(limit, _MOST_BYTES):
                await self._rest.wait(bool(pulled.batches), self._cost)

    async def _wait_until_freed(self, seconds: float) -> None:
        """There is more, that may be pulled then, or when a lease of ours is settled that it waits behind."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(_SHORTLY, seconds), _LONG)):
                await self._freed.wait()

    @property
    def _in_hand(self) -> int:
        return len(self._waiting) + self._running

    @property
    def _has_room(self) -> bool:
        """Is there room for so many messages that a pull is worth while?"""
        want = self._pace.in_hand
        return want - self._in_hand >= max(1, want // 2)

    def stop(self) -> None:
        """Pull no more, and begin with no more messages; those without a lease are handled, or they would be lost."""
        self._stopping.set()
        for event in (self._room, self.rung, self._freed):
            event.set()
        if self._leased:
            for chunk in self._under_way:
                chunk.halt()
            self._runner.stop()
            self._waiting.clear()

    async def drain(self) -> None:
        """Wait until no handler is at work, nor will be."""
        if not self._leased:
            await self._pulled.wait()
        await self._still.wait()

    def finish(self) -> None:
        """Settle all that is finished, whatever is not; then `run` returns."""
        self._settler.finish()

    def abandon(self, worker: int) -> None:
        """Begin anew as another worker: what was in hand is in other hands now."""
        self._settler.abandon(worker)
        if self._leased:
            self._waiting.clear()
            for chunk in self._under_way:
                chunk.halt()
        self._redelivered.clear()
        self.lost.clear()
        self._room.set()

    def _make_runner(self, watchdog: Watchdog) -> Threads | Coroutines:
        subscription, transactions = self.subscription, self._transactions
        limit = subscription.time_limit.total_seconds() if subscription.time_limit else None
        told = (self._done, self._give_up, watchdog, limit)
        if subscription.is_async:
            return Coroutines(
                lambda chunk, call, series, post: flights.make_async(chunk, call, self._books, series, post),
                lambda: transactions.async_series(subscription),
                *told,
            )
        return Threads(
            subscription.concurrency,
            lambda chunk, call, series, post: flights.make(chunk, call, self._books, series, post),
            lambda: transactions.series(subscription),
            *told,
        )

    async def _pull(self, limit: int) -> Pulled:
        worker, overdue = self.worker, time.monotonic() - self._last_overdue > _OVERDUE
        asked = time.monotonic()
        try:
            if overdue or self._breaks != self._database.breaks:
                await self._release_unknown()
                asked = time.monotonic()
            pulled = await self._line.run(
                operations.pull(self.name, worker, limit, _MOST_BYTES, self._lease_size, overdue, self._leased)
            )
        except WorkerLost:
            if worker == self.worker:
                self.lost.set()
            self.observer.pulled("lost", time.monotonic() - asked)
            await asyncio.sleep(_REGISTERING)  # while the worker registers anew
            return Pulled([], None)
        except AWAY as error:
            self.observer.pulled("away", time.monotonic() - asked)
            await self._database.wait_until_back(error)
            return Pulled([], None)
        self._cost = time.monotonic() - asked
        self.observer.pulled(pulled, self._cost)
        looked = bool(pulled.batches) or pulled.again_in is None  # it may have had no turn, or been allowed nothing
        if overdue and looked and not any(batch[0].redelivered for batch in pulled.batches):
            self._last_overdue = time.monotonic()
        return pulled if worker == self.worker or not self._leased else Pulled([], None)

    async def _release_unknown(self) -> None:
        """Give back leases that are ours and that we don't know of.

        A pull may have committed though its connection broke, and a crash of the database may have undone a settlement
        that did not wait for the disk. Now and then, too: the broken pull may have been under way when we looked.
        """
        breaks = self._database.breaks
        released = await self._database.run(operations.release_unknown(self.name, self.worker, self._settler.leases))
        self._breaks = breaks
        if released:
            log(logging.WARNING, "gave back what a broken connection hid", subscription=self.name, messages=released)

    @property
    def _lease_size(self) -> int | None:
        """A transaction that settles has leases of its own, so that handlers don't wait for one another."""
        return self.subscription.batch if self.subscription.guarantee == "exactly-once" else None

    def _accept(self, batches: list[list[Message]]) -> None:
        for messages in batches:
            batch = messages[0].batch
            if batch.lease_id is not None:
                self._settler.open(batch.lease_id, messages)
                if batch.redelivered:
                    self._redelivered.add(batch.lease_id)
            self._waiting.extend(messages)
            self._pace.note_size(len(messages), batch.bytes)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._idle_runners and self._waiting:
            size = min(self._pace.chunk, -(-len(self._waiting) // self._idle_runners))
            chunk = chunks.cut(self._waiting, self.subscription, size)
            self._idle_runners -= 1
            self._under_way.add(chunk)
            self._running += chunk.size
            self._still.clear()
            self._runner.start(chunk)

    def _done(self, chunk: Chunk) -> None:
        if chunk.given_up:
            return  # it came to its end after all; its worker is on its way out
        self._under_way.discard(chunk)
        self._idle_runners += 1
        self._running -= chunk.size
        if chunk.outcomes:
            self._pace.note(chunk.outcomes, chunk.seconds)
            self.observer.handled(chunk)
        self._settler.close(chunk)
        self._give_back_surplus()
        self._dispatch()
        if self._has_room:
            self._room.set()
        if self._running == 0:
            self._still.set()

    def _give_back_surplus(self) -> None:
        """The handler became slow: what was pulled when it was fast goes to whoever has time for it."""
        if not self._leased or self.subscription.on_failure:
            return  # nobody would get it; or its order would be lost
        for message in self._pace.surplus(self._waiting):
            self._settler.defer(message)

    def _give_up(self, chunk: Chunk, call: Call) -> None:
        """A handler goes on beyond its limit: settle what else there is, as far as it can be known."""
        if chunk not in self._under_way or chunk.current is not call:
            return  # it ended while we were being told
        self._under_way.discard(chunk)
        self._running -= chunk.size
        self.stuck.set()
        self._settler.close_stuck(chunk, call)
        if self._running == 0:
            self._still.set()

    def close_from_outside(self) -> Iterator[Settlement]:
        """What can be settled while the event loop stands still, and who is to blame for it; in another thread."""
        under_way = self._runner.interrupted_chunks() if isinstance(self._runner, Coroutines) else []
        for chunk, blocking in under_way:
            if blocking:
                self.stuck.set()
            self._settler.close_stuck(chunk, blocking)
        yield from self._settler.all_from_outside()

    def _lose(self, lease: int) -> None:
        """It is in other hands: begin with none of its messages any more."""
        self._waiting = deque(message for message in self._waiting if message.lease_id != lease)
        for chunk in self._under_way:
            chunk.lose(lease)

    def _forget(self, leases: Iterable[int]) -> None:
        """They are settled. If one was a redelivery, or of an ordered partition, others wait for it: look at once."""
        if self.subscription.on_failure or not self._redelivered.isdisjoint(leases):
            self._redelivered.difference_update(leases)
            self.rung.set()
            self._freed.set()
