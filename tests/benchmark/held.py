"""A transaction that stays open while messages come at a steady rate: does anything grow, slow down or get lost?"""

from __future__ import annotations

import itertools
import time
from typing import Any, Literal

import psycopg

from tests.benchmark import load
from tests.benchmark.figures import percentile
from tests.benchmark.notes import Notes, arrivals, ledger
from tests.benchmark.rig import Consumers, Rig, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

#: "snapshot": a REPEATABLE READ reader; "xid": a transaction that wrote and is idle now; "both".
Holder = Literal["snapshot", "xid", "both", "none"]

#: Seconds until processes have warmed up, for which they go on after the last window, and until what they did is in
#: the statistics.
_WARM_UP, _SLACK, _FLUSHED = 2.0, 1.0, 2.0
#: Seconds that consumers get to come to an end, while the transaction is still held.
_PATIENCE = 30.0
#: All tables of the competitor's, with their TOAST; not those of the business.
DEAD_TUPLES = """
SELECT coalesce(sum(pg_stat_get_dead_tuples(c.oid)), 0)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 't', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT c.oid = ANY (ARRAY['orders', 'effect']::regclass[])
  AND NOT EXISTS (SELECT FROM pg_class b WHERE b.reltoastrelid = c.oid
                  AND (b.relnamespace = 'pg_catalog'::regnamespace OR b.relname IN ('orders', 'effect')))
"""


def held(
    server: Server, competitor: str, holder: Holder, seconds: float, rate: float, rolled_back: float, windows: int = 6
) -> Measures:
    """The first and the last of several windows of time.

    Args:
        rate: messages a second.
        rolled_back: the share of publishing transactions that roll back.
    """
    lasting = seconds + _WARM_UP + _SLACK
    total = int(rate * lasting)
    with prepared(server, competitor, total) as rig, psycopg.connect(rig.url) as holding:
        consumers = rig.consumers("nothing")
        consumers.begin()
        publishers = load.steady(rig, total, rate, rolled_back=rolled_back, seconds=lasting)
        load.begin(publishers)
        hold(holding, holder)
        marks = _watch(rig, consumers, seconds, windows)
        given_up = sum(publisher.result()["rolled_back"] for publisher in publishers)
        settled = consumers.settle_within(_PATIENCE)
        time.sleep(_FLUSHED)
        with rig.connect() as db:
            dead = scalar(db, DEAD_TUPLES)
        pages = load.pages_of(publishers)
        series = _windows(marks, pages, consumers.notes)
        return {**_compared(series), **_books(pages, consumers.notes, dead, given_up, settled), "series": series}


def hold(connection: psycopg.Connection[Any], holder: Holder) -> None:
    """Begin a transaction, and leave it open."""
    if holder in ("snapshot", "both"):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM orders")
    if holder in ("xid", "both"):
        connection.execute("SELECT pg_current_xact_id()")


def scalar(db: psycopg.Connection[Any], statement: str) -> float:
    row = db.execute(statement).fetchone()
    assert row is not None
    return float(row[0])


def _watch(rig: Rig, consumers: Consumers, seconds: float, windows: int) -> list[dict[str, float]]:
    """Time and processor time at the ends of the windows."""
    began = time.monotonic() + _WARM_UP
    marks = []
    for nth in range(windows + 1):
        time.sleep(max(0, began + nth * seconds / windows - time.monotonic()))
        marks.append(
            {
                "at": time.monotonic(),
                "postgres": rig.server.cpu_seconds() or 0,
                "consumer": consumers.cpu_seconds,
            }
        )
    return marks


def _windows(marks: list[dict[str, float]], published: list[Notes], handled: list[Notes]) -> list[dict[str, float]]:
    """What happened between one mark and the next: messages handled then, and the latency of those committed then."""
    found, series = arrivals(published, handled), []
    for start, end in itertools.pairwise(marks):
        wall = end["at"] - start["at"]
        times = [one.latency for one in found if start["at"] <= one.committed / 1e9 < end["at"]]
        handled_now = sum(1 for one in found if start["at"] <= one.committed / 1e9 + one.latency / 1e3 < end["at"])
        series.append(
            {
                "second": start["at"] - marks[0]["at"],
                "rate": handled_now / wall,
                "p50_ms": percentile(times, 50),
                "p99_ms": percentile(times, 99),
                "postgres_percent": 100 * (end["postgres"] - start["postgres"]) / wall,
                "consumer_percent": 100 * (end["consumer"] - start["consumer"]) / wall,
            }
        )
    return series


def _compared(series: list[dict[str, float]]) -> Measures:
    first, last = series[0], series[-1]
    keys = ("rate", "p50_ms", "p99_ms", "postgres_percent")
    return {
        **{f"{key}_ratio": last[key] / first[key] for key in keys if first[key]},
        **{f"{key}_first": first[key] for key in keys},
        **{f"{key}_last": last[key] for key in keys},
    }


def _books(published: list[Notes], handled: list[Notes], dead: float, rolled_back: int, settled: bool) -> Measures:
    """Dead tuples a message; what rolled back left one in the log each, which nobody can help."""
    books = ledger(published, handled)
    return {
        "dead_tuples": dead / books.published,
        "dead_tuples_besides": (dead - rolled_back) / books.published,
        "left": 0 if settled else books.lost,
        "lost": books.lost if settled else 0,
        "doubled": books.doubled,
        "made_up": books.made_up,
    }
