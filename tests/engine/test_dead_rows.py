"""Invariant 7: while a transaction is held open and nothing can be vacuumed, no call gets dearer."""

import json
from typing import Any

import psycopg

from tests.shop_floor import Database, publish, pull, register, settle, subscribe, value

FAIL = "outbox.settle(%s, %s, NULL, %s::jsonb)"


def pages(db: psycopg.Connection[Any], call: str, *arguments: Any) -> int:
    """The pages that a call touches: a cost that no noise disturbs."""
    plan = value(db, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT {call}", *arguments)
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def failure(lease: int, offset: int, delay: float) -> str:
    return json.dumps([{"lease": lease, "offset": offset, "delay": delay}])


def life(db: psycopg.Connection[Any], worker: int) -> dict[str, int]:
    """Publish a message, fail it once, settle it; the pages that each step touches."""
    cost = {"publish": pages(db, "outbox.publish('t', '1')")}
    cost["pull"] = pages(db, "outbox.pull('s', %s, 10, overdue => false)", worker)
    row = db.execute("SELECT id, lower(offsets) FROM outbox.lease").fetchone()
    assert row is not None
    cost["fail"] = pages(db, FAIL, worker, [row[0]], failure(*row, delay=0))
    cost["pull a redelivery"] = pages(db, "outbox.pull('s', %s, 10, overdue => false)", worker)
    cost["settle"] = pages(db, "outbox.settle(%s, %s)", worker, [value(db, "SELECT id FROM outbox.lease")])
    cost["pull nothing"] = pages(db, "outbox.pull('s', %s, 10, overdue => false)", worker)
    return cost


def churn(db: psycopg.Connection[Any], worker: int, rounds: int) -> None:
    """Leaves dead rows in position, lease and redelivery; the redeliveries were due before what is looked at."""
    for _ in range(rounds):
        publish(db, "t", "x")
        (message,) = pull(db, "s", worker, 10)
        db.execute(f"SELECT {FAIL}", (worker, [message.lease], failure(message.lease, message.offset, delay=-3600)))
        settle(db, worker, pull(db, "s", worker, 10))


def test_no_step_of_a_message_touches_more_pages_after_thousands_of_dead_rows(database: Database, db) -> None:
    publish(db, "t", "first")
    subscribe(db, "s", "t")
    worker = register(db)
    holder = database.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(holder, "SELECT 1")

    settle(db, worker, pull(db, "s", worker))
    churn(db, worker, 20)
    before = [life(db, worker) for _ in range(8)][-1]
    churn(db, worker, 600)
    after = [life(db, worker) for _ in range(8)][-1]

    for table in ("position", "lease", "redelivery"):
        assert value(db, f"SELECT pg_relation_size('outbox.{table}') / 8192") > 5, "no dead rows: this tests nothing"
    grown = {step: (before[step], after[step]) for step in before if after[step] > before[step] + 12}
    assert not grown, f"pages touched, before and after: {grown}"
