"""What it costs an application that the changes of its table are captured."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import time
from typing import Any

import psycopg

from outbox import captures
from outbox import connection as connections
from outbox.captures import Wanted
from tests.benchmark.competitors.competitor import order
from tests.benchmark.rig import prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

#: A table of an application: an order of 200 bytes in ten columns.
_COLUMNS = """
id int PRIMARY KEY, customer text NOT NULL, placed_at timestamptz NOT NULL DEFAULT now(),
status text NOT NULL DEFAULT 'new', total numeric(12, 2) NOT NULL DEFAULT 99.90, currency text NOT NULL DEFAULT 'EUR',
street text, city text, body jsonb, revision int
"""
_INSERT = """
INSERT INTO {} (id, customer, street, city, body)
SELECT n, 'customer-' || n, 'Street 1', 'City', %s::jsonb FROM generate_series(%s::int, %s::int) AS n
"""
_UPDATE = "UPDATE {} SET status = 'paid', revision = coalesce(revision, 0) + 1 WHERE id BETWEEN %s AND %s"
_TABLES = ("plain", "captured")


def capture(server: Server, competitor: str, transactions: int, bulks: int, size: int = 1_000) -> Measures:
    """Transactions of one INSERT, one UPDATE, many of each, on a table with a capture and in turns with one without."""
    with prepared(server, competitor, 0) as rig, rig.connect() as db:
        for table in _TABLES:
            db.execute(f"CREATE TABLE {table} ({_COLUMNS})")
        connections.run(captures.install(Wanted(table="captured")), db)
        server.checkpoint()
        return {**_figures(db, "one", 1, transactions), **_figures(db, "many", size, bulks)}


def _figures(db: psycopg.Connection[Any], name: str, size: int, times: int) -> Measures:
    """Microseconds of a row with and without a capture, and how many times as much."""
    figures: Measures = {}
    for kind, found in _measured(db, size, times).items():
        plain, captured = (statistics.median(found[table]) / size for table in _TABLES)
        figures[f"{kind}_{name}_plain_us"], figures[f"{kind}_{name}_us"] = plain, captured
        figures[f"{kind}_{name}_ratio"] = captured / plain
    return figures


def _measured(db: psycopg.Connection[Any], size: int, times: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds of each statement, by kind and table; the tables take turns in random order."""
    found: dict[str, dict[str, list[float]]] = {kind: {table: [] for table in _TABLES} for kind in ("insert", "update")}
    chance, body = random.Random(size), json.dumps(order(0))
    for first in itertools.islice(itertools.count(size * 1_000_000 if size == 1 else 0, size), times):
        for table in chance.sample(_TABLES, len(_TABLES)):
            last = first + size - 1
            found["insert"][table].append(_timed(db, _INSERT.format(table), body, first, last))
            found["update"][table].append(_timed(db, _UPDATE.format(table), first, last))
    return found


def _timed(db: psycopg.Connection[Any], statement: str, *arguments: Any) -> float:
    began = time.perf_counter()
    db.execute(statement, arguments)
    return 1e6 * (time.perf_counter() - began)
