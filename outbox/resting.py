"""When a consumer that found nothing looks again: at once at first, then when the alarm rings, or it is time."""

from __future__ import annotations

import asyncio
import random
import time

from outbox.alarm import Alarm, Sleeper

#: Seconds that an idle consumer polls fast before it dozes: a publisher may have looked before it commits.
_LINGER = 0.005
_LINGER_POLL = 0.001
#: Seconds between polls of a dozing consumer, at most: with notifications, and without.
_SLOW_POLL = 1.0
_DEAF_POLL = 0.1
#: The rest is so many times as long as the look: an idle consumer takes a hundredth of a core, however much it reads.
_COST = 100


class Rest:
    """The rest of one consumer.

    Args:
        sleeper: who rests; its `rung` ends the rest.
    """

    def __init__(self, sleeper: Sleeper, alarm: Alarm) -> None:
        self._sleeper, self._alarm = sleeper, alarm
        self._last_message = -1e9
        self._dozing = False
        self._waking: asyncio.Future[None] | None = None
        self._chance = random.Random()

    def end(self) -> None:
        """A message came: publishers need not notify."""
        self._last_message = time.monotonic()
        if self._dozing:
            self._dozing = False
            self._waking = asyncio.ensure_future(self._alarm.wake(self._sleeper))

    async def wait(self, cost: float) -> None:
        """Wait until it is worth a look.

        Args:
            cost: seconds that the look took which found nothing.
        """
        quiet = time.monotonic() - self._last_message
        if quiet < _LINGER:
            await asyncio.sleep(_LINGER_POLL)
            return
        self._dozing = True
        if await self._alarm.doze(self._sleeper):
            return  # to pull once more
        longest = max(_SLOW_POLL if self._alarm.listening else _DEAF_POLL, _COST * cost)
        try:  # not wait_for: in Python 3.11 it may swallow a cancellation
            async with asyncio.timeout(min(quiet / 8, longest * self._chance.uniform(0.8, 1))):
                await self._sleeper.rung.wait()
        except TimeoutError:
            return
        self._sleeper.rung.clear()
        self._last_message = time.monotonic()
