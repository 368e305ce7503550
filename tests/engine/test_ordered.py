"""Ordered subscriptions: a batch of a partition at a time, and what a failure does to those that come after it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Pulled, payloads, publish, pull, register, settle, subscribe, value, wait_for


@pytest.fixture
def worker(db) -> int:
    return register(db)


def fail(db: psycopg.Connection[Any], worker: int, pulled: list[Pulled], *failed: str, delay: float | None = 0) -> None:
    """Settle one lease: the first that failed is charged, those behind it are deferred."""
    failures = [
        {"lease": m.lease, "offset": m.offset, "delay": delay, "error": {"class": "E"}, "charged": True}
        for m in pulled
        if m.payload == failed[0]
    ] + [
        {"lease": m.lease, "offset": m.offset, "delay": 0, "charged": False} for m in pulled if m.payload in failed[1:]
    ]
    leases = sorted({m.lease for m in pulled})
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, leases, json.dumps(failures)))


def ordered(db: psycopg.Connection[Any], on_failure: str, **settings: Any) -> None:
    subscribe(db, "s", "t", on_failure=on_failure, **settings)


@pytest.mark.parametrize("on_failure", ["block", "park", "dead-letter"])
def test_a_partition_waits_while_its_batch_is_in_flight(database: Database, db, worker, on_failure: str) -> None:
    ordered(db, on_failure)
    publish(db, "t", "a", "b", "c")
    first = pull(db, "s", worker, 2)
    assert payloads(first) == ["a", "b"]
    assert len({m.lease for m in first}) == 1
    other = register(db)
    assert pull(db, "s", worker) == pull(db, "s", other) == []
    settle(db, worker, first)
    assert payloads(pull(db, "s", other)) == ["c"]


def test_a_batch_is_one_lease_whatever_its_size(db, worker) -> None:
    ordered(db, "park")
    publish(db, "t", "a", "b", "c")
    assert len({m.lease for m in pull(db, "s", worker, lease_size=1)}) == 1


def test_other_partitions_go_on(db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('t', partitions => 3)")
    ordered(db, "block")
    for n in range(30):
        publish(db, "t", str(n), key=str(n))
    batches = pull(db, "s", worker, 100)
    assert len({m.lease for m in batches}) == len({m.partition for m in batches}) == 3
    mine = [m for m in batches if m.partition == 0]
    settle(db, worker, mine)
    publish(db, "t", *("x" * n for n in range(9)), key=mine[0].key)
    assert {m.partition for m in pull(db, "s", worker, 100)} == {0}


def test_block_lets_nothing_of_the_partition_pass_the_failed_message(db, worker) -> None:
    ordered(db, "block")
    publish(db, "t", "a", "b", "c", "d")
    fail(db, worker, pull(db, "s", worker, 3), "b", "c")
    again = pull(db, "s", worker)
    assert [(m.payload, m.attempt) for m in again] == [("b", 2)]
    assert pull(db, "s", worker) == []
    settle(db, worker, again)
    last = pull(db, "s", worker)
    assert [(m.payload, m.attempt) for m in last] == [("c", 1)]
    settle(db, worker, last)
    assert payloads(pull(db, "s", worker)) == ["d"]


def test_a_blocked_partition_goes_on_when_the_message_is_given_up(db, worker) -> None:
    ordered(db, "block")
    publish(db, "t", "a", "b", "c")
    fail(db, worker, pull(db, "s", worker, 2), "a", "b")
    fail(db, worker, pull(db, "s", worker), "a", delay=None)
    b = pull(db, "s", worker)
    assert payloads(b) == ["b"]
    settle(db, worker, b)
    assert payloads(pull(db, "s", worker)) == ["c"]


def test_park_lets_other_keys_pass_and_keeps_the_order_of_the_key(db, worker) -> None:
    ordered(db, "park")
    for payload in ("a1", "b1", "a2", "b2"):
        publish(db, "t", payload, key=payload[0])
    fail(db, worker, pull(db, "s", worker), "a1", "a2", delay=0.3)
    for payload in ("a3", "b3", "a4"):
        publish(db, "t", payload, key=payload[0])
    passing = pull(db, "s", worker)
    assert payloads(passing) == ["b3"]
    settle(db, worker, passing)
    came: list[tuple[Any, int]] = []
    for _ in range(4):
        pulled = wait_for(lambda: pull(db, "s", worker), "the next of key a")
        assert pull(db, "s", worker) == []
        came += [(m.payload, m.attempt) for m in pulled]
        settle(db, worker, pulled)
    assert came == [("a1", 2), ("a2", 1), ("a3", 1), ("a4", 1)]
    assert pull(db, "s", worker) == []
    publish(db, "t", "a5", key="a")
    assert payloads(pull(db, "s", worker)) == ["a5"]


def test_messages_without_a_key_are_parked_alone(db, worker) -> None:
    ordered(db, "park")
    publish(db, "t", "a", "b")
    fail(db, worker, pull(db, "s", worker), "a", delay=60)
    publish(db, "t", "c")
    assert payloads(pull(db, "s", worker)) == ["c"]


def test_what_a_dead_worker_held_comes_back_in_order_and_before_what_follows(db, worker) -> None:
    for on_failure in ("block", "dead-letter", "park"):
        topic = on_failure
        subscribe(db, topic, topic, on_failure=on_failure)
        publish(db, topic, "1", "2", "3", key="k")
        pull(db, topic, worker)
        publish(db, topic, "4", key="k")
        db.execute("SELECT outbox.recover(%s)", (worker,))
        worker = register(db)
        came: list[Any] = []
        for _ in range(4):
            pulled = pull(db, topic, worker)
            assert len(pulled) == 1, on_failure
            came += payloads(pulled)
            settle(db, worker, pulled)
        assert came == ["1", "2", "3", "4"], on_failure


def test_what_is_given_back_comes_again_in_order(db, worker) -> None:
    ordered(db, "block")
    publish(db, "t", "1", "2", "3")
    db.execute("SELECT outbox.release(%s, %s)", (worker, [pull(db, "s", worker, 2)[0].lease]))
    came: list[Any] = []
    while pulled := pull(db, "s", worker):
        came += [(m.payload, m.attempt) for m in pulled]
        settle(db, worker, pulled)
    assert came == [("1", 1), ("2", 1), ("3", 1)]


def test_a_message_parked_while_its_predecessor_is_settled_is_not_forgotten(database: Database, db, worker) -> None:
    """The settlement can't see what a pull parks at the same moment: it waits for its turn."""
    ordered(db, "park")
    publish(db, "t", "1", key="k")
    fail(db, worker, pull(db, "s", worker), "1")
    first = pull(db, "s", worker)
    publish(db, "t", "2", key="k")
    puller, settler = database.connect(), database.connect()
    assert pull(puller, "s", worker) == []  # it has parked 2 behind 1, and not committed
    settling = psycopg.connect(database.url, autocommit=True)
    settler.close()
    settling.execute("SET lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        settle(settling, worker, first)
    puller.commit()
    settle(settling, worker, first)
    settling.close()
    assert payloads(pull(db, "s", worker)) == ["2"]


def test_a_settlement_in_an_old_snapshot_leaves_a_lane_that_is_mended(database: Database, db, worker) -> None:
    ordered(db, "park")
    publish(db, "t", "1", key="k")
    fail(db, worker, pull(db, "s", worker), "1")
    first = pull(db, "s", worker)
    old = database.connect()
    old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    old.execute("SELECT 1")
    publish(db, "t", "2", "3", key="k")
    assert pull(db, "s", worker) == []
    settle(old, worker, first)
    old.commit()
    assert pull(db, "s", worker) == []
    assert value(db, "SELECT outbox.mend_lanes()") == 1
    assert value(db, "SELECT outbox.mend_lanes()") == 0
    assert payloads(pull(db, "s", worker)) == ["2"]


def test_a_late_message_of_a_partition_in_flight_waits_for_its_batch(database: Database, db, worker) -> None:
    ordered(db, "block")
    publish(db, "t", "0")
    late = database.connect()
    publish(late, "t", "late")
    publish(db, "t", "1")
    first = pull(db, "s", worker)
    assert payloads(first) == ["0", "1"]
    late.commit()
    assert pull(db, "s", worker) == []
    settle(db, worker, first)
    second = pull(db, "s", worker)
    assert payloads(second) == ["late"]
    publish(db, "t", "2")
    assert pull(db, "s", worker) == [], "a batch of late messages is in flight, too"
    fail(db, worker, second, "late", delay=60)
    assert pull(db, "s", worker) == [], "it blocks though it lies below the others"


def test_a_redriven_dead_letter_waits_for_its_lane(db, worker) -> None:
    ordered(db, "park")
    publish(db, "t", "1", "2", key="k")
    pulled = pull(db, "s", worker)
    failures = [{"lease": pulled[0].lease, "offset": pulled[0].offset, "delay": None}]
    failures += [{"lease": pulled[1].lease, "offset": pulled[1].offset, "delay": 0}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [pulled[0].lease], json.dumps(failures)))
    second = pull(db, "s", worker)
    assert payloads(second) == ["2"]
    assert value(db, "SELECT outbox.redrive('s')") == 1
    assert pull(db, "s", worker) == []
    settle(db, worker, second)
    assert payloads(pull(db, "s", worker)) == ["1"]


def test_a_seek_leaves_the_batch_in_flight_alone(db, worker) -> None:
    ordered(db, "block")
    publish(db, "t", "1", "2")
    first = pull(db, "s", worker, 1)
    db.execute("SELECT outbox.seek('s', 1, 0)")
    assert pull(db, "s", worker) == []
    settle(db, worker, first)
    assert payloads(pull(db, "s", worker)) == ["1", "2"]


def test_order_needs_leases(db) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        ordered(db, "park", guarantee="at-most-once")


def test_a_late_message_of_a_lane_is_not_mended_past_the_one_in_hand(database: Database, db, worker) -> None:
    """It lies below it, and waits at infinity as if nobody were before it."""
    ordered(db, "park")
    publish(db, "t", "1", "2", key="k")
    late = database.connect()
    publish(late, "t", "late", key="k")
    publish(db, "t", "3", key="k")
    fail(db, worker, pull(db, "s", worker), "1", "2", "3")
    first = pull(db, "s", worker)
    settle(db, worker, first)
    second = pull(db, "s", worker)
    settle(db, worker, second)
    third = pull(db, "s", worker)
    assert payloads(first + second + third) == ["1", "2", "3"]
    late.commit()
    assert pull(db, "s", worker) == []
    assert value(db, "SELECT outbox.mend_lanes()") == 0
    assert pull(db, "s", worker) == []
    settle(db, worker, third)
    assert payloads(pull(db, "s", worker)) == ["late"]


CHANGES = [(None, "block"), (None, "park"), ("block", "park"), ("park", "block"), ("park", None), ("block", None)]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_what_waits_keeps_its_place_when_the_policy_changes(db, worker, before: str | None, after: str | None) -> None:
    subscribe(db, "s", "t", on_failure=before)
    publish(db, "t", "1", "2", key="k")
    pulled = pull(db, "s", worker)
    failures = [{"lease": m.lease, "offset": m.offset, "delay": 60 if m.payload == "1" else 0} for m in pulled]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [pulled[0].lease], json.dumps(failures)))
    publish(db, "t", "3", key="k")
    subscribe(db, "s", on_failure=after)
    if after is None:
        assert payloads(pull(db, "s", worker)) == ["3", "2"]
        return
    assert pull(db, "s", worker) == []
    db.execute("UPDATE outbox.redelivery SET due_at = now() WHERE due_at <> 'infinity'")
    came: list[Any] = []
    while len(came) < 3 and (pulled := pull(db, "s", worker)):
        came += payloads(pulled)
        settle(db, worker, pulled)
    assert came == ["1", "2", "3"]


def test_a_pull_that_only_parked_has_more(db, worker) -> None:
    ordered(db, "park")
    publish(db, "t", "1", key="k")
    fail(db, worker, pull(db, "s", worker), "1", delay=60)
    publish(db, "t", "2", "3", key="k")
    publish(db, "t", "other", key="o")
    more = "SELECT again_in FROM outbox.pull_batches('s', %s, 2) WHERE offsets = '{}'"
    assert value(db, more, worker) == 0
    assert payloads(pull(db, "s", worker, 2)) == ["other"]
    assert db.execute(more, (worker,)).fetchall() == []


def test_a_dead_worker_that_still_holds_a_turn_keeps_nobody_from_recovering(database: Database, db, worker) -> None:
    """It was stopped between its settlement and its COMMIT."""
    ordered(db, "park")
    subscribe(db, "other", "t")
    publish(db, "t", "1", "2", key="k")
    fail(db, worker, pull(db, "s", worker), "1", "2")
    stopped = database.connect()
    settle(stopped, worker, pull(db, "s", worker))
    pull(db, "other", worker)
    db.execute("SET statement_timeout = '30s'")
    assert value(db, "SELECT outbox.recover(%s)", worker) == 2
    assert len(pull(db, "other", register(db))) == 1
    stopped.rollback()
    assert value(db, "SELECT outbox.recover(%s)", worker) == 1
