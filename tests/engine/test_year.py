"""Weeks of hourly rotation, by moving the clock; a year with OUTBOX_TEST_DAYS=365 (five minutes)."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from datetime import timedelta

import psycopg
import pytest

from tests.engine.test_retention import HOUR, START, configure, declare
from tests.shop_floor import Database, drain, register, subscribe, value

pytestmark = pytest.mark.slow

HOURS = int(os.environ.get("OUTBOX_TEST_DAYS", "28")) * 24
#: Messages an hour.
RATE = 3
#: Hours in which nobody runs a subscription.
STOPPED = {"holds": range(HOURS // 4, HOURS // 4 + 100), "loses": range(HOURS // 6, HOURS - 100)}

WRITE = """
INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, payload)
SELECT outbox.slot(r.first_slot, r.slots, r.slot_width, %(at)s), p.id, nextval(p.sequence), x.id, %(at)s, k::text,
       to_json(%(hour)s * 10 + k)
FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS x, generate_series(1, %(rate)s) AS k
JOIN outbox.partition p ON p.number = k %% 2
JOIN outbox.retention r ON r.name = p.retention
"""


def rotate(db: psycopg.Connection, hour: int) -> None:
    db.execute("SELECT outbox.rotate_as_of(%s)", (START + hour * HOUR + timedelta(minutes=5),))


def test_hourly_rotation_for_long_loses_nothing_unseen_and_needs_no_more_disk(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("SET synchronous_commit = off")
    db.execute("UPDATE outbox.retention SET slot_width = '1 hour' WHERE name = 'short'")
    declare(db, retention="short", partitions=2)
    for name in ("quick", *STOPPED):
        subscribe(db, name, "t")
    configure(db, "loses", '{"backlog": "expire"}')
    worker, dice = register(db), random.Random(4711)
    got: dict[str, list[int]] = defaultdict(list)
    rows = []
    for hour in range(HOURS):
        db.execute(WRITE, {"at": START + hour * HOUR, "hour": hour, "rate": RATE})
        for name in ("quick", *STOPPED):
            if hour not in STOPPED.get(name, ()) and (dice.random() < 0.5 or hour % 2):
                got[name] += drain(db, name, worker)
        rotate(db, hour)
        if hour % 10 == 0:
            rows.append((hour, value(db, "SELECT count(*) FROM outbox.message")))
    for name in ("quick", *STOPPED):
        got[name] += drain(db, name, worker)

    everything = {hour * 10 + k for hour in range(HOURS) for k in range(1, RATE + 1)}
    for name in ("quick", "holds"):
        assert len(got[name]) == len(everything)
        assert set(got[name]) == everything
    lost = everything - set(got["loses"])
    assert len(got["loses"]) == len(everything) - len(lost)
    stopped = STOPPED["loses"]
    assert stopped.start - 1 <= min(lost) // 10 <= stopped.start
    assert stopped.stop - 10 <= max(lost) // 10 < stopped.stop
    assert value(db, "SELECT sum(messages) FROM outbox.lost WHERE subscription = 'loses'") == len(lost)
    assert value(db, "SELECT count(*) FROM outbox.lost WHERE subscription <> 'loses'") == 0

    held = STOPPED["holds"]
    assert max(count for hour, count in rows if hour not in range(held.start, held.stop + 5)) <= 4 * RATE
    assert max(count for hour, count in rows if hour in held) >= (len(held) - 10) * RATE, "it was held"
    size = value(db, "SELECT bytes FROM outbox.kept WHERE name = 'short'")
    assert size < 1_000_000
    assert value(db, "SELECT count(*) FROM outbox.lost") == value(db, "SELECT count(*) FROM outbox.loss")
