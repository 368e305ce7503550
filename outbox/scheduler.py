"""The loop of a worker that publishes what is due: messages for later, and the ticks of schedules.

Every worker process has one, whatever its application declares. They need not agree on anything: the database
lets each message, and each tick, be published once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from outbox import scheduled, schedules, ticks
from outbox.database import Database
from outbox.errors import InvalidDeclaration
from outbox.logs import log
from outbox.scheduled import Look
from outbox.schedules import Due

#: Messages that one transaction publishes.
_AT_ONCE = 200
#: Seconds between looks, at most: a message may be stored that is due before all that we know of.
_POLL = 0.4
#: The shortest rest while something is due that another worker has in hand.
_SHORTEST = 0.02
#: A look at all that is overdue may cost this part of the time; dead rows make it dear. Seconds between two, at most.
_PATIENCE, _LONGEST_PATIENCE = 200, 20.0
#: Seconds after which a schedule is tried again whose next tick could not be computed.
_FAILED = 60.0


class Scheduler:
    """Publishes what is due, until it is cancelled; while the database is away it waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        #: When all that is overdue is looked at again.
        self._full_at = 0.0
        #: Schedules in a revision that failed here → when they are tried again.
        self._failed: dict[tuple[str, int], float] = {}

    async def run(self) -> None:
        rest = 0.0
        while True:
            await asyncio.sleep(rest)
            rest = await self.look()

    async def look(self) -> float:
        """Publish what is due; returns the seconds until the next look is worth it."""
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
    if ticked or (found.message_in is not None and found.message_in <= 0):
        return 0
    known = [seconds for seconds in (found.message_in, found.tick_in) if seconds is not None and seconds > 0]
    return max(_SHORTEST, min([_POLL, *known]))
