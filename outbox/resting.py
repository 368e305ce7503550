"""When a consumer that has taken all there was looks again: soon in a flow, otherwise when the alarm rings, or seldom.

in a flow ──(nothing came for a moment)──► dozing: publishers ring
    ▲                                          │
    └────────(messages come in a flow)─────────┘
"""

from __future__ import annotations

import asyncio
import random
import time

from outbox.alarm import Alarm, Sleeper

#: Seconds without a message after which a flow counts as ended.
_FLOW = 0.005
#: Seconds between looks in a flow, at least; or as long as a look takes.
_PAUSE = 0.003
#: Seconds between looks of a dozing consumer, at most: with notifications, and without.
_SLOW, _DEAF = 1.0, 0.2
#: For so many seconds after a message looks are no further apart than this: who is warm answers twice as fast.
_WARM, _WARM_PAUSE = 0.25, 0.007
#: The rest is so many times as long as the look: an idle consumer takes half a percent of a core.
_IDLE, _LONGEST = 200, 5.0


class Rest:
    """The rest of one consumer.

    Args:
        sleeper: who rests; its `rung` ends the rest.
    """

    def __init__(self, sleeper: Sleeper, alarm: Alarm) -> None:
        self._sleeper, self._alarm = sleeper, alarm
        #: When a message came last, and when the locks were taken that make publishers ring.
        self._found = self._dozed = -1e9
        self._dozing = False
        self._waking: asyncio.Future[None] | None = None
        self._chance = random.Random()

    async def wait(self, found: bool, cost: float) -> None:
        """Wait until it is worth a look.

        Args:
            found: did the last look find messages?
            cost: seconds that it took.
        """
        now = time.monotonic()
        flows = now - self._found < _FLOW
        self._found = now if found else self._found
        if flows and self._dozing and found:
            self._dozing = False
            self._waking = asyncio.ensure_future(self._alarm.wake(self._sleeper))
        if not self._dozing and (flows or found):
            await self._wait_for_ring(max(_PAUSE, cost))
            return
        self._dozing = True
        if await self._alarm.doze(self._sleeper):
            self._dozed = now
            return  # to look once more: something may have been committed before the locks were there
        await self._wait_for_ring(self._patience(now, cost))

    def _patience(self, now: float, cost: float) -> float:
        """Who published before the locks were there, and commits after, does not ring: look now and then."""
        listening = self._alarm.listening
        quiet = now - (self._dozed if listening else self._found)
        longest = max(_SLOW if listening else _DEAF, min(_IDLE * cost, _LONGEST)) * self._chance.uniform(0.8, 1)
        if now - self._found < _WARM:
            longest = max(_WARM_PAUSE, 5 * cost)
        return max(_PAUSE, min(quiet / 4, longest))

    async def _wait_for_ring(self, seconds: float) -> None:
        try:  # not wait_for: in Python 3.11 it may swallow a cancellation
            async with asyncio.timeout(seconds):
                await self._sleeper.rung.wait()
        except TimeoutError:
            return
        self._sleeper.rung.clear()
