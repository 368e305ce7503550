"""One queue in a worker process: pull ahead in the event loop, hand out to dramatiq's thread as it has room.

pull ──► buffer ──► (dramatiq: prefetched, or running) ──► settler
  ▲                                                          │
  └──────────────── room, as messages are done ◄─────────────┘
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from outbox import operations
from outbox.alarm import Alarm
from outbox.database import AWAY, Database
from outbox.dramatiq.settler import Outcome, Settler
from outbox.errors import WorkerLost
from outbox.logs import log
from outbox.model import Message
from outbox.operations import Failure, Pulled
from outbox.resting import Rest

#: Messages, and bytes of payloads, in one pull at most.
_MOST, _MOST_BYTES = 1_000, 1024 * 1024
#: Seconds of work to have pulled, beyond what dramatiq prefetches: so that fast actors never wait for a pull.
_AHEAD = 0.1
#: Of the messages that dramatiq may have, so many must be done before it gets more: its thread wakes less often.
_STEP = 4
#: Seconds until the next pull, where there is more: at least, and at most; and while the worker registers anew.
_SHORTLY, _LONG, _REGISTERING = 0.001, 1.0, 0.1
#: Seconds between looks at all redeliveries that are due, and not only at those of the last moments.
_OVERDUE = 20.0
#: So many times what should be in hand is too much: the actors have become slow, and others may have time.
_FAR = 4


class Intake:
    """Pulls while a consumer of dramatiq is open. `take`, `done` and `close` are for dramatiq's threads.

    Args:
        name: of the subscription.
        worker: says who pulls.
        lost: called when the worker was found dead.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        alarm: Alarm,
        settler: Settler,
        worker: Callable[[], int],
        lost: Callable[[], None],
    ) -> None:
        self.name = name
        self.rung = asyncio.Event()
        self._database, self._line, self._settler = database, database.line(), settler
        self._worker, self._lost = worker, lost
        self._loop = asyncio.get_running_loop()
        self._rest = Rest(self, alarm)
        self._room = asyncio.Event()
        #: What threads share: all below is read and written under its lock.
        self._change = threading.Condition()
        self._buffer: deque[Message] = deque()
        self._prefetch = 0
        self._handed = 0
        self._done = 0
        #: Is the loop waiting for room, and dramatiq's thread for messages to be done?
        self._is_stalled = self._full = False
        #: Messages that are done in a second, of late.
        self._rate = 0.0
        self._counted, self._counted_at = 0, time.monotonic()
        self._breaks, self._last_overdue, self._cost = 0, -1e9, 0.0

    # dramatiq's threads

    def open(self, prefetch: int) -> None:
        """Pull, and let dramatiq have so many messages that are not done."""
        with self._change:
            self._prefetch = prefetch
        self._loop.call_soon_threadsafe(self._room.set)

    def take(self, timeout: float) -> Message | None:
        """The next message; None: within so many seconds there was none, or no room for it."""
        with self._change:
            if not self._change.wait_for(self._can_take, timeout):
                return None
            self._handed += 1
            return self._buffer.popleft()

    def done(self, outcome: Outcome) -> None:
        """Settle a message that was taken, soon."""
        with self._change:
            self._handed -= 1
            self._done += 1
            if self._buffer and self._can_take():
                self._change.notify()
            has_room = self._is_stalled and self._has_room()
            self._is_stalled = self._is_stalled and not has_room
        self._settler.add(outcome)
        if has_room:
            self._loop.call_soon_threadsafe(self._room.set)

    def close(self) -> None:
        """Pull no more, and give back what was not taken, uncharged; what was taken stays in hand."""
        with self._change:
            self._prefetch = 0
            left = [*self._buffer]
            self._buffer.clear()
        self._give_back(left)

    def _can_take(self) -> bool:
        """At the limit it waits for some messages to be done, and not for one."""
        if not self._buffer:
            return False
        self._full = self._handed >= self._prefetch or (
            self._full and self._handed > self._prefetch - max(1, self._prefetch // _STEP)
        )
        return not self._full

    # the event loop

    async def run(self) -> None:
        """Pull until cancelled."""
        while True:
            limit = self._next_limit()
            if limit == 0:
                await self._wait_for_room()
                continue
            pulled = await self._pull(limit)
            self._accept(pulled)
            if pulled.again_in is not None:
                await asyncio.sleep(min(max(_SHORTLY, pulled.again_in), _LONG))
            elif not pulled.was_limited(limit, _MOST_BYTES):
                await self._rest.wait(bool(pulled.batches), self._cost)

    def abandon(self) -> None:
        """Others have what was pulled: the worker was found dead."""
        with self._change:
            self._buffer.clear()
        self._room.set()

    def _next_limit(self) -> int:
        """How many messages to pull; 0: not yet."""
        self._measure()
        with self._change:
            if self._has_room():
                return min(self._wanted - self._in_hand, _MOST)
            self._room.clear()
            self._is_stalled = True
            return 0

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(_LONG):
                await self._room.wait()
        except TimeoutError:
            self._measure()
            self._give_back_surplus()

    @property
    def _in_hand(self) -> int:
        return len(self._buffer) + self._handed

    @property
    def _wanted(self) -> int:
        """Messages to have in hand. Who prefetches one alone wants no other to wait behind it."""
        if self._prefetch <= 1:
            return self._prefetch
        return max(self._prefetch, min(int(self._rate * _AHEAD), _MOST))

    def _has_room(self) -> bool:
        want = self._wanted
        return want - self._in_hand >= max(1, want // 2) if want > 1 else want > self._in_hand

    def _measure(self) -> None:
        now = time.monotonic()
        if (passed := now - self._counted_at) < _AHEAD / 2:
            return
        with self._change:
            rate = (self._done - self._counted) / passed
            self._rate = rate if passed > _LONG / 2 else 0.5 * (self._rate + rate)
            self._counted, self._counted_at = self._done, now

    def _give_back_surplus(self) -> None:
        with self._change:
            left = []
            if len(self._buffer) > _FAR * self._wanted:
                while self._in_hand > self._wanted and self._buffer:
                    left.append(self._buffer.pop())
        self._give_back(left)

    def _give_back(self, messages: list[Message]) -> None:
        for message in messages:
            self._settler.add(given_back(message))

    def _accept(self, pulled: Pulled) -> None:
        for messages in pulled.batches:
            lease = messages[0].lease_id
            assert lease is not None
            self._settler.open(lease, [message.offset for message in messages], messages[0].redelivered)
        messages = [message for batch in pulled.batches for message in batch]
        with self._change:
            is_open = self._prefetch > 0
            if is_open:
                self._buffer.extend(messages)
                self._change.notify()
        if not is_open:
            self._give_back(messages)

    async def _pull(self, limit: int) -> Pulled:
        worker, overdue = self._worker(), time.monotonic() - self._last_overdue > _OVERDUE
        if overdue or self._breaks != self._database.breaks:
            await self._release_unknown(worker)
        asked = time.monotonic()
        try:
            pulled = await self._line.run(operations.pull(self.name, worker, limit, _MOST_BYTES, None, overdue, True))
        except WorkerLost:
            if worker == self._worker():
                self._lost()
            await asyncio.sleep(_REGISTERING)
            return Pulled([], None)
        except AWAY as error:
            await self._database.wait_until_back(error)
            return Pulled([], None)
        self._cost = time.monotonic() - asked
        if overdue and not any(batch[0].redelivered for batch in pulled.batches):
            self._last_overdue = time.monotonic()
        return pulled if worker == self._worker() else Pulled([], None)

    async def _release_unknown(self, worker: int) -> None:
        """Give back leases that we don't know of: a pull may have committed though its answer never came."""
        self._breaks = self._database.breaks
        known = self._settler.known
        released = await self._database.persist(lambda: operations.release_unknown(self.name, worker, known))
        if released:
            log(logging.WARNING, "gave back what a broken connection hid", subscription=self.name, messages=released)


def given_back(message: Message) -> Outcome:
    """It is due for others at once, and spends no attempt."""
    assert message.lease_id is not None
    failure = Failure(message.lease_id, message.offset, 0, None, None, charged=False)
    return Outcome(message.lease_id, message.offset, failure)
