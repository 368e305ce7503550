"""What whoever runs workers does for the database now and then: nobody else would."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial

from outbox import dead_letters, operations, retention
from outbox.database import Database
from outbox.logs import log

#: Seconds between rotations of the log's slots.
_HOUSEKEEPING = 60.0


async def keep_house(database: Database) -> None:
    """Empty slots of the log that nobody needs, drop old dead letters, mend lanes that nobody promoted; for ever."""
    last_loss = 0  # up to which the log has said it
    while True:
        await asyncio.sleep(_HOUSEKEEPING * random.uniform(0.5, 1))
        await database.persist(operations.mend_lanes)
        while await database.persist(dead_letters.expire):
            pass
        while slots := await database.persist(operations.rotate):
            held = [slot for slot in slots if slot.held_by]
            for slot in held:
                log(logging.WARNING, "a slot can't be emptied", log=slot.log, slot=slot.slot, held_by=slot.held_by)
            if len(held) == len(slots):
                break
        for loss in await database.persist(partial(retention.losses, last_loss)):
            last_loss = loss.id
            log(
                logging.WARNING,
                "messages were lost: their retention was over",
                subscription=loss.subscription,
                topic=loss.topic,
                messages=loss.messages,
                partition_id=loss.partition_id,
                first_offset=loss.first_offset,
                last_offset=loss.last_offset,
            )
