"""Invariant 7: while a transaction is held open and nothing can be vacuumed, no call gets dearer."""

import json
from typing import Any

import psycopg
import pytest

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


def cheapest(db: psycopg.Connection[Any], worker: int) -> dict[str, int]:
    """The least that each step costs in some lives: after an ANALYZE the next call plans, and reads catalogs."""
    lives = [life(db, worker) for _ in range(8)]
    return {step: min(one[step] for one in lives) for step in lives[0]}


def churn(db: psycopg.Connection[Any], worker: int, rounds: int) -> None:
    """Leaves dead rows in position, lease and redelivery; the redeliveries were due before what is looked at."""
    for _ in range(rounds):
        publish(db, "t", "x")
        (message,) = pull(db, "s", worker, 10)
        db.execute(f"SELECT {FAIL}", (worker, [message.lease], failure(message.lease, message.offset, delay=-3600)))
        settle(db, worker, pull(db, "s", worker, 10))


@pytest.mark.parametrize("analysed", ["as it comes", "position", "lease", "redelivery"])
def test_no_step_of_a_message_touches_more_pages_after_thousands_of_dead_rows(
    database: Database, db, analysed: str
) -> None:
    """Autovacuum may come by at any time, and then statistics say that hardly a row lives."""
    publish(db, "t", "first")
    subscribe(db, "s", "t")
    worker = register(db)
    holder = database.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(holder, "SELECT 1")

    settle(db, worker, pull(db, "s", worker))
    churn(db, worker, 20)
    before = cheapest(db, worker)
    churn(db, worker, 600)
    if analysed != "as it comes":
        db.execute(f"VACUUM ANALYZE outbox.{analysed}")
    after = cheapest(db, worker)

    for table in ("position", "lease", "redelivery"):
        assert value(db, f"SELECT pg_relation_size('outbox.{table}') / 8192") > 5, "no dead rows: this tests nothing"
    grown = {step: (before[step], after[step]) for step in before if after[step] > before[step] + 12}
    assert not grown, f"pages touched, before and after: {grown}"


def settle_parts(db: psycopg.Connection[Any], worker: int) -> int:
    """The pages that it touches to settle one message of a lease, and fail the other."""
    publish(db, "t", "done", "failed")
    done, failed = pull(db, "s", worker, 10)
    parts = [f"{{[{message.offset},{message.offset}]}}" for message in (done, failed)]
    one = "outbox.settle(%s, %s, %s::text[]::int8multirange[], %s::jsonb)"
    return pages(db, one, worker, [done.lease], parts[:1], None) + pages(
        db, one, worker, [failed.lease], parts[1:], failure(failed.lease, failed.offset, delay=3600)
    )


def test_a_settlement_of_parts_touches_no_more_pages_after_autovacuum_has_counted_the_dead(database, db) -> None:
    """With statistics that say that hardly any lease lives, joins by their id were made by a scan of all of them."""
    publish(db, "t", "first")
    subscribe(db, "s", "t")
    worker = register(db)
    holder = database.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(holder, "SELECT 1")
    settle(db, worker, pull(db, "s", worker))
    churn(db, worker, 20)
    before = min(settle_parts(db, worker) for _ in range(8))
    churn(db, worker, 600)
    db.execute("VACUUM ANALYZE outbox.lease")
    after = min(settle_parts(db, worker) for _ in range(8))
    assert after <= before + 12


def test_a_pull_reads_what_it_takes_and_not_the_log_whatever_the_statistics_say(database: Database, db) -> None:
    """Few distinct xids, or statistics of an empty table, once made the planner read the whole log at every pull."""
    publish(db, "t", "first")
    subscribe(db, "s", "t")
    worker = register(db)
    db.execute("ANALYZE outbox.message")
    settle(db, worker, pull(db, "s", worker))  # plans made while there is next to nothing
    for _ in range(5):
        value(db, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 4000) n")
    db.execute("SELECT outbox.seek('s', 1, NULL)")
    early = [life(db, worker) for _ in range(2)][-1]
    db.execute("ANALYZE outbox.message")
    analysed = [life(db, worker) for _ in range(2)][-1]
    newcomer = database.connect(autocommit=True)
    fresh_plans = [life(newcomer, worker) for _ in range(2)][-1]
    for cost in (early, analysed, fresh_plans):
        assert max(cost["pull"], cost["pull nothing"], cost["fail"]) < 150, cost


def test_late_messages_are_found_by_their_transaction_and_not_among_all_that_came_since(database: Database, db) -> None:
    publish(db, "t", "first")
    subscribe(db, "s", "t")
    worker = register(db)
    slow = database.connect()
    publish(slow, "t", "late")
    value(db, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 20000) n")
    while pulled := pull(db, "s", worker, 10_000):
        settle(db, worker, pulled)
    slow.commit()
    db.execute("ANALYZE outbox.message")
    pages(db, "outbox.pull('s', %s)", register(db))  # plans
    assert value(db, "SELECT count(*) FROM outbox.in_flight") == 1
    huge = database.connect()
    value(huge, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 20000) n")
    publish(db, "t", "after")
    settle(db, worker, pull(db, "s", worker))
    huge.commit()
    pull(db, "s", worker, 10)
    assert pages(db, "outbox.pull('s', %s, 10)", worker) < 150, "each pull of a huge late transaction read all of it"
