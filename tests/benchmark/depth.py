"""Whether a deep or a scattered log makes a subscription slow."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import psycopg

from tests.benchmark.competitors.competitor import order
from tests.benchmark.competitors.outbox import READER
from tests.benchmark.draining import read_by
from tests.benchmark.latency import idle_cost
from tests.benchmark.rig import prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

_CALLS, _WARM_UP = 200, 20
_PULL = "SELECT * FROM outbox.pull(%s, %s, 100)"
_FILL = """
SELECT outbox.publish_many('orders.0', (SELECT array_agg(%s::json) FROM generate_series(1, %s)))
FROM generate_series(1, %s)
"""


def backlog(server: Server, competitor: str, deepest: int, shallowest: int = 10_000) -> Measures:
    """Microseconds of a pull of 100 messages, and of its settlement, in SQL, with more and more messages behind."""
    found: Measures = {}
    with prepared(server, competitor, 0) as rig, rig.connect() as db:
        worker = _register(db)
        depth = shallowest
        while depth <= deepest:
            _fill(db, 1_000, calls=(depth - rig.competitor.remaining(rig.url)) // 1_000)
            server.checkpoint()
            times = [_pull_and_settle(db, worker) for _ in range(_WARM_UP + _CALLS)][_WARM_UP:]
            found[f"pull_us_at_{depth}"] = 1e6 * statistics.median(pull for pull, _ in times)
            found[f"settle_us_at_{depth}"] = 1e6 * statistics.median(settle for _, settle in times)
            depth *= 10
    return {"deep_to_shallow": found[f"pull_us_at_{depth // 10}"] / found[f"pull_us_at_{shallowest}"], **found}


def scatter(server: Server, competitor: str, messages: int, idle: float) -> Measures:
    """Drain messages that lie in one topic or in many, and what looking for more costs when there is none."""
    with prepared(server, competitor, messages) as rig:
        rig.fill(messages, size=messages)
        consumers = rig.consumers("nothing")
        found = {**read_by(rig, consumers, messages), **idle_cost(consumers, idle)}
        with rig.connect() as db:
            worker = _register(db)
            times = [_timed(db, _PULL, READER, worker) for _ in range(_WARM_UP + _CALLS)][_WARM_UP:]
    return {**found, "idle_pull_us": 1e6 * statistics.median(times)}


def _fill(db: psycopg.Connection[Any], messages: int, calls: int) -> None:
    db.execute(_FILL, (json.dumps(order(0)), messages, calls))


def _pull_and_settle(db: psycopg.Connection[Any], worker: int) -> tuple[float, float]:
    """The seconds of each; as much is published again, so that the log stays as deep as it is."""
    _fill(db, 100, calls=1)
    began = time.perf_counter()
    rows = db.execute(_PULL, (READER, worker)).fetchall()
    pulled = time.perf_counter() - began
    return pulled, _timed(db, "SELECT outbox.settle(%s, %s, durable => false)", worker, list({row[0] for row in rows}))


def _timed(db: psycopg.Connection[Any], statement: str, *arguments: Any) -> float:
    began = time.perf_counter()
    db.execute(statement, arguments).fetchall()
    return time.perf_counter() - began


def _register(db: psycopg.Connection[Any]) -> int:
    row = db.execute("SELECT outbox.register('benchmark', '{}', '1 hour')").fetchone()
    assert row is not None
    return int(row[0])
