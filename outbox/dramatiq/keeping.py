"""What keeps queues, results and counters in order: who runs what, who is gone, what has expired."""

from __future__ import annotations

import asyncio
import logging
import random

from outbox.database import Database
from outbox.logs import log
from outbox.operations import Operation, Statement

#: Seconds between looks for results and counters that have expired.
_PAUSE = 60.0


def enlist(worker: int, subscription: str) -> Operation[None]:
    """Note that a worker runs one more subscription."""
    yield Statement("SELECT outbox.enlist(%s, %s)", (worker, subscription))


def kin() -> Operation[list[tuple[int, str]]]:
    """Workers that are processes of dramatiq and have not ended: id and name."""
    rows = yield Statement("SELECT id, name FROM outbox.worker WHERE retired_at IS NULL AND name LIKE '%%dramatiq/%%'")
    return [(id, name) for id, name in rows]


def recover(worker: int) -> Operation[int]:
    """Hand on what a worker held that is gone."""
    rows = yield Statement("SELECT outbox.recover(%s)", (worker,))
    return int(rows[0][0])


async def keep_results(database: Database) -> None:
    """Empty the slots of results that have expired, and delete counters that have; for ever."""
    while True:
        await asyncio.sleep(_PAUSE * random.uniform(0.5, 1))
        for slot, held_by in await database.persist(_rotate):
            if held_by:
                log(logging.WARNING, "a slot can't be emptied", log="result", slot=slot, held_by=held_by)
        await database.persist(_expire)


def _rotate() -> Operation[list[tuple[int, str | None]]]:
    rows = yield Statement("SELECT slot, held_by FROM outbox.rotate_results()")
    return [(slot, held_by) for slot, held_by in rows]


def _expire() -> Operation[int]:
    rows = yield Statement("SELECT outbox.expire_counters()")
    return int(rows[0][0])
