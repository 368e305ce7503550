"""Idempotency keys of publishers and the inbox of consumers: once, whoever else does the same at the same time."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Later, value

PUBLISH = "SELECT (p).partition_id || '-' || (p).\"offset\" FROM outbox.publish('t', '1', idempotency_key => %s) AS p"
ONCE = "SELECT outbox.once('crm', %s)"
STORED = "SELECT count(*) FROM outbox.message"


def set_slots_by_hand(database: Database) -> None:
    """Time stands in the session's setting test.slot."""
    database.value("SELECT 1")
    with psycopg.connect(database.url, autocommit=True) as db:
        db.execute(
            "CREATE OR REPLACE FUNCTION outbox.key_slot(at timestamptz) RETURNS smallint LANGUAGE plpgsql IMMUTABLE "
            "AS $$ BEGIN RETURN current_setting('test.slot')::smallint; END $$"
        )


def in_slot(database: Database, slot: int, isolation: str = "READ COMMITTED") -> psycopg.Connection[Any]:
    db = database.connect()
    db.execute(f"SET test.slot = {slot}")
    db.commit()
    db.isolation_level = psycopg.IsolationLevel[isolation.replace(" ", "_")]
    return db


def test_a_second_publish_with_the_same_key_returns_the_first_and_stores_nothing(database: Database, db) -> None:
    assert [value(db, PUBLISH, key) for key in ("a", "a", "b", "a", "b")] == ["1-1", "1-1", "1-2", "1-1", "1-2"]
    assert value(db, STORED) == 2


def test_a_key_is_unique_in_its_topic_only(db) -> None:
    value(db, PUBLISH, "a")
    db.execute("SELECT outbox.publish('other', '1', idempotency_key => 'a')")
    assert value(db, STORED) == 2


def test_a_key_that_was_rolled_back_was_never_used(database: Database, db) -> None:
    with database.connect() as other:
        value(other, PUBLISH, "a")
        other.rollback()
        other.execute("SAVEPOINT s")
        value(other, PUBLISH, "b")
        other.execute("ROLLBACK TO s")
        assert value(other, PUBLISH, "b") == value(other, PUBLISH, "b")
    value(db, PUBLISH, "a")
    assert value(db, STORED) == 2


def test_a_bulk_publish_stores_each_key_once_and_keeps_its_order(db) -> None:
    value(db, PUBLISH, "c")
    many = "SELECT outbox.publish_many('t', '{1,2,3,4,5,6}'::json[], idempotency_keys => '{b,NULL,a,b,NULL,c}'::text[])"
    assert value(db, many) == 4
    assert value(db, many) == 2, "those without a key"
    bodies = 'SELECT array_agg(payload::text::int ORDER BY "offset") FROM outbox.message WHERE "offset" > 1'
    assert value(db, bodies) == [1, 2, 3, 5, 2, 5]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("statement", [PUBLISH, ONCE])
def test_a_concurrent_duplicate_waits_for_the_first_to_end(database: Database, statement: str, end: str) -> None:
    first, second = database.connect(), database.connect()
    first.execute("SELECT outbox.declare_topic('t')")
    first.commit()
    a = value(first, statement, "k")
    waiting = Later(second, statement, "k").wait_until_it_waits(database)
    getattr(first, end)()
    b = waiting.join()
    second.commit()
    if statement == PUBLISH:
        assert b == (a if end == "commit" else "1-2")
        assert database.value(STORED) == 1
    else:
        assert (a, b) == (True, end == "rollback")


def test_concurrent_bulks_with_the_same_keys_in_any_order_do_not_deadlock(database: Database) -> None:
    ones = "array_fill('1'::json, ARRAY[cardinality(%s::text[])])"
    many = f"SELECT outbox.publish_many('t', {ones}, idempotency_keys => %s::text[])"
    keys = [f"k{n}" for n in range(200)]
    connections = [database.connect(autocommit=True) for _ in range(4)]
    connections[0].execute("SELECT outbox.declare_topic('t')")
    for round in range(5):
        named = [f"{key}-{round}" for key in keys]
        orders = [named, named[::-1], named[100:] + named[:100], named[::2] + named[1::2]]
        running = [Later(db, many, order, order) for db, order in zip(connections, orders, strict=True)]
        stored = [later.join() for later in running]
        assert sum(stored) == 200, stored
    assert database.value(STORED) == 1000


def test_the_window_of_a_topic_can_be_set_and_changed(db) -> None:
    db.execute("SELECT outbox.declare_topic('t', deduplication_window => '1 hour')")
    value(db, PUBLISH, "a")
    assert value(db, "SELECT expires_at BETWEEN now() + '59 min' AND now() + '61 min' FROM outbox.deduplication")
    db.execute("SELECT outbox.declare_topic('t', deduplication_window => '28 days')")
    db.execute("SELECT outbox.declare_topic('t')")
    assert value(db, "SELECT deduplication_window = '28 days' FROM outbox.topic")
    with pytest.raises(psycopg.Error, match="the window 1 second to 28 days") as caught:
        db.execute("SELECT outbox.declare_topic('t', deduplication_window => '29 days')")
    assert caught.value.sqlstate == "OB007"


def test_after_its_window_a_key_is_free_again(db) -> None:
    first = value(db, PUBLISH, "a")
    db.execute("UPDATE outbox.deduplication SET expires_at = now()")
    assert value(db, PUBLISH, "a") != first
    assert value(db, PUBLISH, "a") == "1-2"
    assert value(db, ONCE, "a")
    db.execute("UPDATE outbox.inbox SET expires_at = now()")
    assert [value(db, ONCE, "a"), value(db, ONCE, "a")] == [True, False]


@pytest.mark.parametrize("statement", [PUBLISH, ONCE])
def test_a_key_of_an_earlier_slot_is_found(database: Database, statement: str) -> None:
    set_slots_by_hand(database)
    for slot in (15, 0, 1, 2, 1):  # the ring goes round, and a clock is set back
        with in_slot(database, slot) as db:
            found = value(db, statement, "a")
            assert found == ("1-1" if statement == PUBLISH else slot == 15)


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("statement", [PUBLISH, ONCE])
def test_a_transaction_that_is_open_over_a_change_of_slots_is_waited_for(
    database: Database, statement: str, end: str
) -> None:
    """It writes its key in the old slot; who comes in the new one must not overlook it."""
    set_slots_by_hand(database)
    old, new, newest = in_slot(database, 3), in_slot(database, 4), in_slot(database, 5)
    old.execute("SELECT outbox.declare_topic('t')")
    old.commit()
    a = value(old, statement, "k")
    first = Later(new, statement, "k").wait_until_it_waits(database)
    getattr(old, end)()
    b = first.join()
    second = Later(newest, statement, "k")
    new.commit()
    c = second.join()
    newest.commit()
    if statement == PUBLISH:
        assert b == c == (a if end == "commit" else "1-2")
        assert database.value(STORED) == 1
    else:
        assert (a, b, c) == (True, end == "rollback", False)


def test_an_own_key_of_the_slot_before_is_found_in_the_same_transaction(database: Database) -> None:
    set_slots_by_hand(database)
    db = in_slot(database, 3)
    first = value(db, PUBLISH, "a")
    db.execute("SET test.slot = 4")
    assert value(db, PUBLISH, "a") == first
    assert value(db, PUBLISH, "b") == value(db, PUBLISH, "b")
    db.commit()
    assert database.value(STORED) == 2


@pytest.mark.parametrize("slot", [3, 4])
@pytest.mark.parametrize("statement", [PUBLISH, ONCE])
def test_an_old_snapshot_gets_a_serialization_failure_and_no_duplicate(
    database: Database, statement: str, slot: int
) -> None:
    set_slots_by_hand(database)
    other = in_slot(database, 3)
    other.execute("SELECT outbox.declare_topic('t')")
    other.commit()
    db = in_slot(database, slot, "REPEATABLE READ")
    db.execute("SELECT 1")  # the snapshot
    value(other, statement, "k")
    other.commit()
    with pytest.raises(psycopg.errors.SerializationFailure):
        value(db, statement, "k")
    db.rollback()
    assert value(db, statement, "k") == ("1-1" if statement == PUBLISH else False)
    db.commit()


def test_a_key_is_not_lost_when_the_winner_of_a_busy_slot_is_another(database: Database) -> None:
    """Whoever loses in one of two slots leaves nothing in the other that points to no message."""
    set_slots_by_hand(database)
    old, new = in_slot(database, 3), in_slot(database, 4)
    old.execute("SELECT outbox.declare_topic('t')")
    old.commit()
    value(old, PUBLISH, "k")
    both = "SELECT outbox.publish_many('t', '{1,2}'::json[], idempotency_keys => '{k,l}'::text[])"
    waiting = Later(new, both).wait_until_it_waits(database)
    old.commit()
    assert waiting.join() == 1
    new.commit()
    assert value(new, PUBLISH, "k") == "1-1"
    assert value(new, PUBLISH, "l") == database.value("SELECT '1-' || max(\"offset\") FROM outbox.message")
    assert database.value("SELECT count(DISTINCT \"offset\") FROM outbox.deduplication WHERE key = 'k'") == 1


@pytest.mark.parametrize("arguments", ["NULL, 'k'", "'crm', NULL", "'crm', 'k', '29 days'", "'crm', 'k', '0 s'"])
def test_once_refuses_what_it_cannot_keep(db, arguments: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        db.execute(f"SELECT outbox.once({arguments})")
    assert error.value.sqlstate == "OB007"


def test_each_consumer_has_its_own_keys(db) -> None:
    assert value(db, ONCE, "a")
    assert value(db, "SELECT outbox.once('erp', 'a')")
    assert not value(db, ONCE, "a")


def test_a_cancelled_publish_leaves_no_lock_behind(database: Database) -> None:
    """A pooler would keep it with the connection."""
    db = database.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('t')")
    one = "outbox.publish('t', '1', idempotency_key => n::text || clock_timestamp())"
    many = f"SELECT {one} FROM generate_series(1, 10000) n"
    for _ in range(300):
        db.execute("SET statement_timeout = '3ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            db.execute(many)
        impatient = True
        while impatient:
            with suppress(psycopg.errors.QueryCanceled):  # this, too, may take longer than 3 ms
                db.execute("SET statement_timeout = 0")
                impatient = False
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    assert value(db, held) == 0
