"""One subscription in one process, whose log is another system's: read, handle, settle; what fails takes a detour.

read ──► lanes ──► runner ──► effects, what is done, how far it is read: one commit ──► confirm there
                     └─ failed ──► how far it is read, and a redelivery in our own log: one commit
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from outbox.database import AWAY, Database
from outbox.errors import LeaseLost
from outbox.logs import log
from outbox.observer import NOBODY, Observer
from outbox.operations import Pulled, Settlement
from outbox.relay import operations as relay_operations
from outbox.relay.circuit import Stopped, unless
from outbox.relay.feeding import operations
from outbox.relay.feeding.handlers import Handlers
from outbox.relay.feeding.judging import Judge
from outbox.relay.feeding.lanes import Lane
from outbox.relay.feeding.message import Fed
from outbox.relay.feeding.operations import Begun
from outbox.relay.feeding.stream import Silent, Stream
from outbox.relay.tally import Tally
from outbox.relay.target import Unavailable
from outbox.subscription import Subscription
from outbox.transactions import Transactions
from outbox.watchdog import Watchdog

#: Messages that are read at once.
_READ = 500
#: Messages, and bytes, in hand of a lane beyond which it is held. Kafka's client forgets what it has fetched of a
#: partition that is held: what there is room for must fit into one lane, so that none is held without need.
_FULL, _FULL_BYTES = 2000, 8 * 1024 * 1024
#: Of whoever died twice in the same place: so many may have been in hand of the lane, at most.
_UNTRIED, _DEATHS = _FULL + _READ, 2
#: Seconds that the other log waits for room here before lanes that are full are held, so that others may go on.
_PATIENCE = 1.0
#: Seconds between looks at what is on a detour, and whether the subscription is paused; or so many times as long as
#: the look takes.
_LOOK, _SELDOM = 0.5, 20
#: Seconds between settlements, at least.
_PARTS = 0.5
#: Seconds in which handlers may end before a lane goes to another process.
_HANDOVER = 10.0


class Feed:
    """Reads another log for one subscription until it is stopped. A worker runs it as it runs a `Consumer`.

    Args:
        connect: makes the stream that the feed reads, which asks and tells it: see `stream.Reader`.
    """

    def __init__(
        self,
        subscription: Subscription,
        connect: Callable[[Feed], Stream],
        database: Database,
        transactions: Transactions,
        watchdog: Watchdog,
        tally: Tally,
        observer: Observer = NOBODY,
    ) -> None:
        self.name, self.subscription, self.observer = subscription.name, subscription, observer
        self.tally, self.circuit = tally, tally.circuit
        #: Never set: a feed holds no leases that could be.
        self.lost = asyncio.Event()
        self._database = database
        self._stream = connect(self)
        self._judge = Judge(subscription, database)
        self._lanes: dict[str, Lane] = {}
        is_one_by_one = subscription.on_failure is not None or subscription.concurrency == 1
        self._is_once = subscription.guarantee == "exactly-once"
        self._is_fenced = self._is_once and self._stream.keeps_offsets and is_one_by_one
        self._handlers = Handlers(
            subscription, self._lanes, transactions, watchdog, observer, self._is_fenced, self._changed, self._restart
        )
        self._finishing = False
        self._stopping, self._settleable, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room, self._read_all = asyncio.Event(), asyncio.Event()
        self._chance = random.Random()

    @property
    def running(self) -> int:
        """Messages that handlers are at work on, or have in their chunk."""
        return self._handlers.running

    @property
    def waiting(self) -> int:
        """Messages that were read and wait for a runner."""
        return sum(len(lane.waiting) for lane in list(self._lanes.values()))

    @property
    def stuck(self) -> asyncio.Event:
        """Set when a handler could not be stopped: the process must be replaced."""
        return self._handlers.stuck

    async def run(self) -> None:
        """Read and settle until `stop` and `finish`; an error of either ends both."""
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._look_around())
                group.create_task(self._read_until_stopped())
                await self._settle_until_finished()
                looking.cancel()
        finally:
            await self._stream.close()

    def stop(self) -> None:
        """Read no more, and begin with no more messages; those that are settled are handled, or they would be lost."""
        self._stopping.set()
        self._room.set()
        self.circuit.stop()
        self._handlers.stop()

    async def drain(self) -> None:
        """Wait until no handler is at work, nor will be."""
        await self._read_all.wait()
        while self.running:
            self._ended.clear()
            await self._ended.wait()

    def finish(self) -> None:
        """Settle all that is finished, whatever is not; then `run` returns."""
        self._finishing = True
        self._settleable.set()

    def abandon(self, worker: int) -> None:
        """Another worker's id changes nothing."""

    def close_from_outside(self) -> Iterator[Settlement]:
        """Nothing: what is not settled comes again."""
        return iter(())

    async def begin(self, lane: str, number: int, first: int | None) -> Begun | None:
        """A lane is ours from now on. Raises Unavailable while our own database is away."""
        begun: Begun | None = Begun(0, 0)
        parked: set[str] = set()
        try:
            if self._stream.keeps_offsets:
                begun = await self._database.run(operations.begin(self.name, lane, first))
            if self.subscription.on_failure:
                parked = await self._database.run(operations.detoured(self.name, number))
        except AWAY as error:
            raise Unavailable(f"our own database is away: {error}") from error
        if begun is None:
            return None
        untried = begun.offset + _UNTRIED if begun.deaths >= _DEATHS else 0
        if untried:
            known = {"subscription": self.name, "partition": lane, "offset": begun.offset}
            log(logging.WARNING, "workers died here, twice: what they may have had in hand is tried apart", **known)
        log(logging.INFO, "feed reads", subscription=self.name, partition=lane, offset=begun.offset)
        self._drop(lane)
        stands = begun.offset if self._stream.keeps_offsets else None
        self._lanes[lane] = Lane(lane, number, stands, untried, parked)
        return begun

    async def end(self, lanes: list[str]) -> None:
        """Lanes go to another process: what is under way ends, and is settled, if it does so in time."""
        ending = [self._lanes[name] for name in lanes if name in self._lanes]
        for lane in ending:
            lane.halt()
        with suppress(TimeoutError):
            async with asyncio.timeout(_HANDOVER):
                while any(lane.chunks for lane in ending):
                    self._ended.clear()
                    await self._ended.wait()
                for lane in ending:
                    await self._settle(lane)
                offsets = {lane.name: lane.stands for lane in ending if lane.stands is not None and not lane.is_over}
                await self._database.persist(lambda: operations.end(self.name, offsets))
        for lane in ending:
            self._drop(lane.name)

    def _drop(self, name: str) -> None:
        """It is none of ours any more: what handlers still do of it is fenced, or known when it comes again."""
        lane = self._lanes.pop(name, None)
        if lane is not None:
            lane.halt()
            lane.is_over = True
            self._judge.forget(lane.window)

    def _restart(self, lane: Lane, error: Exception) -> None:
        """Somebody else has moved on there."""
        log(
            logging.INFO, "feed reads on from elsewhere", subscription=self.name, partition=lane.name, reason=str(error)
        )
        if not lane.is_over:
            self._drop(lane.name)
            self._stream.restart(lane.name)

    def _changed(self) -> None:
        for event in (self._settleable, self._ended, self._room):
            event.set()

    async def _read_until_stopped(self) -> None:
        try:
            with suppress(Stopped):
                while not self._stopping.is_set():
                    await self._read()
        finally:
            self._read_all.set()

    async def _read(self) -> None:
        has_room = await self._wait_for_room()
        ticket = await self.circuit.admit()
        began = time.monotonic()
        try:
            found: list[Fed] = await unless(self._stopping, self._stream.read(_READ, self._held(has_room)))
            self.circuit.succeeded(ticket)
        except Unavailable as error:
            stays = isinstance(error, Silent)
            if self.circuit.failed(ticket, str(error), error.after, at_once=stays):
                log(logging.WARNING, "feed's circuit open", subscription=self.name, reason=str(error))
            self.observer.pulled("away", time.monotonic() - began)
            for name in () if stays else list(self._lanes):
                self._drop(name)
            return
        if found:
            self.observer.pulled(Pulled([list(found)], None), time.monotonic() - began)
            await unless(self._stopping, self._accept(found))

    async def _wait_for_room(self) -> bool:
        """Is there any, or will there be within a moment?"""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while not self._has_room and not self._stopping.is_set():
                    self._room.clear()
                    await self._room.wait()
        return self._has_room

    @property
    def _has_room(self) -> bool:
        want = max(self._handlers.pace.in_hand, 2 * self.subscription.batch * len(self._lanes))
        return want - sum(len(lane.window) for lane in self._lanes.values()) >= max(1, want // 2)

    def _held(self, has_room: bool) -> set[str]:
        """Lanes of which nothing more is to be read now."""
        if self._handlers.is_paused:
            return set(self._lanes)
        return {
            lane.name
            for lane in self._lanes.values()
            if len(lane.window) > _FULL or lane.bytes > _FULL_BYTES or (lane.waiting and not has_room)
        }

    async def _accept(self, found: list[Fed]) -> None:
        lanes = dict(self._lanes)
        entered = [one for one in found if one.lane in lanes and lanes[one.lane].enter(one)]
        wanted = await self._judge.judge(entered, lanes)
        self._judge.forget(one for one in wanted if lanes[one.lane].is_over)  # it comes again
        if self.subscription.guarantee == "at-most-once":
            wanted = await self._settled_before(wanted, lanes)
        for message in wanted:
            if not lanes[message.lane].is_ending:
                lanes[message.lane].waiting.append(message)
        if len(wanted) < len(entered):
            self._settleable.set()
        self._handlers.dispatch()

    async def _settled_before(self, messages: list[Fed], lanes: dict[str, Lane]) -> list[Fed]:
        """What is handled at most once is done with before; those of which that is sure."""
        for message in messages:
            message.outcome = True
        for name in {message.lane for message in messages}:
            await self._settle(lanes[name])
        return [message for message in messages if not lanes[message.lane].is_over]

    async def _settle_until_finished(self) -> None:
        """Settle what is finished, as soon as it is and the settlement before has committed; in the end all of it."""
        while not self._finishing:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PARTS):
                    await self._settleable.wait()
            self._settleable.clear()
            await self._settle_all()
        await self._settle_all()

    async def _settle_all(self) -> None:
        if doubtful := [(lane, one) for lane, one in self._handlers.take_doubtful() if not lane.is_over]:
            lanes = {lane.name: lane for lane, _ in doubtful}
            wanted = set(map(id, await self._judge.judge([one for _, one in doubtful], lanes)))
            self._judge.forget(one for lane, one in doubtful if lane.is_over)
            for lane, one in doubtful:
                lane.put_back([one] if id(one) in wanted else ())
        await asyncio.gather(*(self._settle(lane) for lane in list(self._lanes.values())))
        self._room.set()
        self._handlers.dispatch()

    async def _settle(self, lane: Lane) -> None:
        """Move on over what is done, lead round what failed, and confirm both there."""
        async with lane.settling:
            if lane.is_over or (self._is_fenced and lane.chunks):
                return
            to_offset: int | None = None
            if self._stream.keeps_offsets:
                closed, to_offset = lane.closed()
            else:
                closed = lane.closed_anywhere()
            try:
                await self._move(lane, closed, None if to_offset == lane.stands else to_offset)
            except LeaseLost as error:
                self._refused(lane, closed, error)
                return
            lane.stands = to_offset
            lane.forget(closed)
            self._judge.forget(closed)
            failed = sum(isinstance(one.outcome, Exception) for one in closed)
            self.tally.note("delivered", len(closed) - failed)
            self.tally.note("retried", failed)
            if closed:
                with suppress(Unavailable):  # they come again, and are known; or again, at least once
                    await self._stream.note_settled(closed, lane.name, to_offset or 0)

    async def _move(self, lane: Lane, closed: list[Fed], to_offset: int | None) -> None:
        """One commit, however long the database is away. Raises LeaseLost."""
        failed = [(one, one.outcome) for one in closed if isinstance(one.outcome, Exception)]
        if to_offset is None and not failed:
            return
        detours = [operations.detour(self.subscription, *one, lane.number, self._chance) for one in failed]
        keys = [one.inbox for one, _ in failed if one.inbox] if self._is_once else []
        stands = None if to_offset is None else lane.stands
        is_durable = bool(detours) or self.subscription.guarantee == "at-most-once"
        began = time.monotonic()
        looked = began - min((one.judged_at for one, _ in failed), default=began)
        await self._database.persist(
            lambda: operations.move(
                self.name, lane.name, stands, to_offset, keys, detours, is_durable, looked + time.monotonic() - began
            )
        )
        self.observer.settled(1, time.monotonic() - began)

    def _refused(self, lane: Lane, closed: list[Fed], error: Exception) -> None:
        """Somebody else has been there: read anew, or look again at what failed."""
        self.observer.lost()
        if self._stream.keeps_offsets:
            self._restart(lane, error)
            return
        for message in closed:
            if isinstance(message.outcome, Exception):
                message.outcome = None
                self._handlers.doubt(lane, message)
        self._settleable.set()

    async def _look_around(self) -> None:
        """See now and then what is still on a detour, and whether somebody has paused the subscription."""
        pause = _LOOK
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            with suppress(*AWAY):
                self._note_pause(await self._database.run(relay_operations.is_paused(self.name)))
                for lane in list(self._lanes.values()):
                    if lane.parked:
                        await self._look_for_detours(lane)
            pause = max(_LOOK, _SELDOM * (time.monotonic() - began))
            self._handlers.dispatch()

    def _note_pause(self, is_paused: bool) -> None:
        if is_paused != self._handlers.is_paused:
            log(logging.INFO, "feed paused" if is_paused else "feed resumed", subscription=self.name)
        self._handlers.is_paused = is_paused

    async def _look_for_detours(self, lane: Lane) -> None:
        """Nothing of the lane is settled meanwhile: what is not yet on its detour is seen in its window."""
        async with lane.settling:
            found = await self._database.run(operations.detoured(self.name, lane.number))
            keys = {one.key for one in lane.window if isinstance(one.outcome, Exception)}
            if self.subscription.on_failure == "park":
                lane.parked = found | {key for key in keys if key is not None}
            else:
                lane.parked = found | ({""} if keys else set())
