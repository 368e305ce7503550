"""The loop of a worker that publishes what is due: messages for later, and the ticks of schedules.

Every worker process has one, whatever its application declares. They need not agree on anything: the database
lets each message, and each tick, be published once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import suppress
from functools import partial

from outbox import scheduled, schedules, ticks
from outbox.alarm import Alarm
from outbox.database import Database
from outbox.errors import InvalidDeclaration
from outbox.logs import log
from outbox.scheduled import Look
from outbox.schedules import Due

#: Messages that one transaction publishes.
_AT_ONCE = 200
#: Seconds between looks while something is due soon, and while notifications can't come (behind a pooler), at most.
_POLL, _DEAF_POLL = 0.2, 0.4
#: What is due within so many seconds is soon: we stay awake, so that publishers need not notify.
_SOON = 1.0
#: Seconds between looks of one who dozes, at most; `outbox.publish_later` notifies of what is due within 10.
_SLOW = 3.0
#: The shortest rest.
_SHORTEST = 0.02
#: A look at all that is overdue may cost this part of the time; dead rows make it dear. Seconds between two, at most.
_PATIENCE, _LONGEST_PATIENCE = 200, 20.0
#: Seconds after which a schedule is tried again whose next tick could not be computed.
_FAILED = 60.0


class Scheduler:
    """Publishes what is due, until it is cancelled; while the database is away it waits."""

    #: Its name in the alarm: it reads no subscription.
    name: str | None = None

    def __init__(self, database: Database, alarm: Alarm) -> None:
        self._database, self._alarm = database, alarm
        self.rung = asyncio.Event()
        #: When something was to be done soon, and when the lock was taken that makes publishers notify.
        self._busy_at = self._dozed_at = -math.inf
        self._dozing = False
        #: When all that is overdue is looked at again.
        self._full_at = 0.0
        #: Schedules in a revision that failed here → when they are tried again.
        self._failed: dict[tuple[str, int], float] = {}

    async def run(self) -> None:
        while True:
            await self._wait(await self.look())

    async def _wait(self, until: float) -> None:
        """Wait until it is worth a look: until then at the latest."""
        now = time.monotonic()
        self._busy_at = now if until < _SOON else self._busy_at
        if now - self._busy_at < _SOON or not self._alarm.listening:
            if self._dozing:
                self._dozing = False
                await self._alarm.wake(self)
            await self._wait_for_ring(min(until, _POLL if self._alarm.listening else _DEAF_POLL))
            return
        self._dozing = True
        if await self._alarm.doze(self):
            self._dozed_at = now
            return  # to look once more: something may have been committed before the lock was there
        quiet = now - self._dozed_at  # who published before the lock was there, and commits after, does not notify
        await self._wait_for_ring(min(until, max(_SHORTEST, min(quiet / 4, _SLOW))))

    async def _wait_for_ring(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.rung.wait()
        self.rung.clear()

    async def look(self) -> float:
        """Publish what is due; returns the seconds until the next that we know of is."""
        began = time.monotonic()
        full = began >= self._full_at
        found = await self._database.persist(lambda: scheduled.look(_AT_ONCE, full))
        if full:
            cost = (time.monotonic() - began) / (1 + found.published)
            self._full_at = began + min(_PATIENCE * cost, _LONGEST_PATIENCE)
        ticked = found.tick_in is not None and found.tick_in <= 0 and await self._tick(full)
        return _rest(found, ticked)

    async def _tick(self, full: bool) -> bool:
        """Publish the ticks that have come; were there any of ours?"""
        now, ticked = time.monotonic(), False
        for due in await self._database.persist(lambda: schedules.due(full)):
            if self._failed.get((due.name, due.revision), 0) <= now:
                ticked |= await self._tick_one(due)
        return ticked

    async def _tick_one(self, due: Due) -> bool:
        try:
            plan = ticks.plan(due.timing, due.missed, due.next_at, due.now, due.name)
        except InvalidDeclaration as error:  # written past us, or this machine lacks the time zone
            log(logging.ERROR, "a schedule can't tick", schedule=due.name, reason=str(error))
            self._failed[due.name, due.revision] = time.monotonic() + _FAILED
            await self._database.persist(partial(schedules.note_error, due, str(error)))
            return False
        return await self._database.persist(partial(schedules.tick, due, plan)) is not None


def _rest(found: Look, ticked: bool) -> float:
    """Seconds until the next that we know of is due."""
    if ticked or (found.message_in is not None and found.message_in <= 0):
        return 0
    if found.tick_in is not None and found.tick_in <= 0:
        return _POLL  # another worker has it in hand, or nobody can compute it
    return max(_SHORTEST, min((s for s in (found.message_in, found.tick_in) if s is not None), default=math.inf))
