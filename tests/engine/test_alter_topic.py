"""Another number of partitions for a topic that is in use: the new ones are read when the old ones have been."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Pulled, drain, payloads, publish, pull, register, settle, subscribe, value


@pytest.fixture
def worker(db) -> int:
    return register(db)


@pytest.fixture
def topic(db) -> str:
    db.execute("SELECT outbox.declare_topic('t', 2)")
    subscribe(db, "s", "t")
    return "t"


def alter(db: psycopg.Connection[Any], partitions: int) -> bool:
    return bool(value(db, "SELECT outbox.alter_topic('t', %s)", partitions))


def keys(count: int) -> list[str]:
    return [f"k{n}" for n in range(count)]


def publish_to_all(db: psycopg.Connection[Any], payload: str, count: int = 20) -> None:
    for key in keys(count):
        publish(db, "t", payload, key=key)


def nack(db: psycopg.Connection[Any], worker: int, message: Pulled, delay: float) -> None:
    failure = {"lease": message.lease, "offset": message.offset, "delay": delay, "error": {"class": "E"}}
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [message.lease], json.dumps([failure])))


def test_what_was_published_before_comes_before_what_comes_after(db, worker, topic) -> None:
    publish_to_all(db, "old")
    assert alter(db, 5)
    publish_to_all(db, "new")
    found = drain(db, "s", worker, 7)
    assert found == ["old"] * 20 + ["new"] * 20
    assert value(db, "SELECT count(*) FROM outbox.lag WHERE lag > 0") == 0


def test_altering_it_to_what_it_is_changes_nothing(db, topic) -> None:
    before = value(db, "SELECT count(*) FROM outbox.partition")
    assert not alter(db, 2)
    assert not value(db, "SELECT outbox.alter_topic('t')")
    assert value(db, "SELECT count(*) FROM outbox.partition") == before


def test_altering_is_undone_with_its_transaction(database: Database, db, worker, topic) -> None:
    other = database.connect()
    alter(other, 5)
    publish(other, "t", "nobody's", key="k")
    other.rollback()
    publish(db, "t", "a", key="k")
    assert drain(db, "s", worker) == ["a"]
    assert value(db, "SELECT partitions FROM outbox.topic") == 2


def test_a_key_goes_to_its_hash_modulo_the_new_number(db, worker, topic) -> None:
    alter(db, 12)
    publish_to_all(db, "new")
    found = pull(db, "s", worker)
    assert len(found) == 20
    for message in found:
        assert message.partition == value(db, "SELECT outbox.partition_number(%s, 12)", message.key)


@pytest.mark.parametrize(
    ("partitions", "priority", "retention"), [(0, 0, None), (1025, 0, None), (1, 10, None), (1, 0, "x")]
)
def test_what_a_topic_cannot_be_is_an_error(db, topic, partitions, priority, retention) -> None:
    with pytest.raises(psycopg.DatabaseError) as error:
        db.execute("SELECT outbox.alter_topic('t', %s, %s, %s)", (partitions, priority, retention))
    assert error.value.sqlstate == "OB007"
    with pytest.raises(psycopg.DatabaseError, match="does not exist"):
        db.execute("SELECT outbox.alter_topic('nothing', 2)")


def test_priorities_can_be_added(db, worker, topic) -> None:
    publish(db, "t", "old", priority=9)
    db.execute("SELECT outbox.alter_topic('t', max_priority => 9)")
    publish(db, "t", "low")
    publish(db, "t", "high", priority=9)
    assert drain(db, "s", worker, 1) == ["high", "old", "low"]  # order is kept within a priority


def test_the_new_partitions_wait_for_a_transaction_that_publishes_to_the_old_ones(database, db, worker, topic) -> None:
    """It began before, and it had the key: who comes after it in the key comes after it in the log."""
    slow = database.connect()
    publish(slow, "t", "1", key="k")
    assert alter(db, 5)
    publish(db, "t", "of another key", key="other")
    assert pull(db, "s", worker) == []  # it takes note of the one that is under way, and looks again at once
    assert drain(db, "s", worker) == ["of another key"]  # nobody waits for what is not committed
    slow.commit()
    publish(db, "t", "2", key="k")
    assert drain(db, "s", worker) == ["1", "2"]


def test_a_publisher_with_an_old_snapshot_keeps_the_order_of_its_key(database, db, worker, topic) -> None:
    late = database.connect()
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    late.execute("SELECT")
    assert alter(db, 5)
    publish(db, "t", "of another key", key="other")
    assert drain(db, "s", worker) == ["of another key"]
    publish(late, "t", "1", key="k")  # it sees the two partitions of before
    late.commit()
    publish(db, "t", "2", key="k")
    assert drain(db, "s", worker, 1) == ["1", "2"]


@pytest.mark.parametrize("on_failure", ["block", "park", "dead-letter"])
def test_an_ordered_subscription_reads_the_new_ones_when_the_old_are_settled(database, db, worker, on_failure) -> None:
    db.execute("SELECT outbox.declare_topic('t', 2)")
    subscribe(db, "s", "t", on_failure=on_failure)
    publish(db, "t", "1", key="k")
    alter(db, 5)
    publish(db, "t", "2", key="k")
    first = pull(db, "s", worker)
    assert payloads(first) == ["1"]
    more = "SELECT offsets, again_in FROM outbox.pull_batches('s', %s, 10)"
    assert db.execute(more, (worker,)).fetchall() == [([], 0.05)]  # not for ever: look again soon
    nack(db, worker, first[0], delay=0 if on_failure != "dead-letter" else None)
    again = pull(db, "s", worker)
    if on_failure != "dead-letter":
        assert payloads(again) == ["1"]
        assert pull(db, "s", worker) == []
        settle(db, worker, again)
        again = pull(db, "s", worker)
    assert payloads(again) == ["2"]


def test_a_parked_key_holds_the_new_partitions_until_it_is_settled(db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('t', 2)")
    subscribe(db, "s", "t", on_failure="park")
    publish(db, "t", "1", key="k")
    alter(db, 3)
    publish(db, "t", "2", key="k")
    publish(db, "t", "of another key", key="other")
    [first] = pull(db, "s", worker)
    nack(db, worker, first, delay=3600)
    assert pull(db, "s", worker) == []
    db.execute("UPDATE outbox.redelivery SET due_at = now()")
    assert set(drain(db, "s", worker)) == {"1", "2", "of another key"}


def test_what_failed_of_an_unordered_subscription_holds_nothing(db, worker, topic) -> None:
    publish(db, "t", "1", key="k")
    alter(db, 5)
    publish(db, "t", "2", key="k")
    [first] = pull(db, "s", worker)
    nack(db, worker, first, delay=3600)
    assert payloads(pull(db, "s", worker)) == ["2"]


def test_who_begins_later_reads_all_of_it_in_order(db, worker, topic) -> None:
    publish_to_all(db, "1")
    alter(db, 5)
    publish_to_all(db, "2")
    alter(db, 1)
    publish_to_all(db, "3")
    subscribe(db, "late", "t", on_failure="block")
    assert drain(db, "late", worker, 6) == ["1"] * 20 + ["2"] * 20 + ["3"] * 20
    subscribe(db, "next", "t", start="next")
    publish(db, "t", "4")
    assert drain(db, "next", worker) == ["4"]


def test_a_subscription_that_was_bound_at_the_same_moment_is_given_the_new_partitions(
    database, db, worker, topic
) -> None:
    altering = database.connect()
    alter(altering, 5)
    publish(altering, "t", "new")
    subscribe(db, "b", "t")
    altering.commit()
    db.execute("SELECT outbox.adopt(id) FROM outbox.subscription WHERE name = 'b'")
    publish_to_all(db, "more")
    assert len(drain(db, "b", worker)) == 21


def test_an_idempotency_key_is_known_in_the_new_partitions(db, worker, topic) -> None:
    once = "SELECT partition_id, \"offset\" FROM outbox.publish('t', '1', 'k', idempotency_key => 'order-1')"
    first = db.execute(once).fetchone()
    alter(db, 5)
    assert db.execute(once).fetchone() == first
    assert len(drain(db, "s", worker)) == 1
