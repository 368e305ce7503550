"""Slots go by TRUNCATE, and only when nobody needs what is in them."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests.shop_floor import Database, Later, drain, publish, pull, register, settle, subscribe, value

#: Far enough for the slot of now to be the one that is written next.
LATER = "clock_timestamp() + interval '7 days'"


def rotate(db: psycopg.Connection, later: str = LATER) -> list[tuple]:
    return db.execute(f"SELECT * FROM outbox.rotate_as_of({later})").fetchall()


def stored(db: psycopg.Connection) -> int:
    return int(value(db, "SELECT count(*) FROM outbox.message"))


@pytest.fixture
def worker(db) -> int:
    return register(db)


def test_a_slot_that_all_have_read_goes_when_its_time_is_over(db, worker) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a", "b")
    drain(db, "s", worker)
    assert rotate(db, "clock_timestamp() + interval '5 days'") == []
    assert stored(db) == 2
    assert [held_by for _, _, held_by in rotate(db)] == [None]
    assert stored(db) == 0
    publish(db, "t", "c")
    assert drain(db, "s", worker) == ["c"]


def test_a_slot_without_readers_goes_too(db) -> None:
    publish(db, "t", "a")
    assert rotate(db)[0][2] is None
    assert stored(db) == 0


def held(db: psycopg.Connection) -> str:
    """Who holds the slot; and nothing may be lost."""
    before = stored(db)
    ((log, _, held_by),) = rotate(db)
    assert log == "message"
    assert held_by is not None
    assert stored(db) == before
    return str(held_by)


def test_a_slot_is_held_by_a_cursor_that_has_not_passed_it(db, worker) -> None:
    subscribe(db, "fast", "t")
    subscribe(db, "slow", "t")
    publish(db, "t", "a", "b")
    drain(db, "fast", worker)
    settle(db, worker, pull(db, "slow", worker, 1))
    assert held(db) == "subscription slow stands at offset 1 of partition 1, the slot goes on to 2"
    assert drain(db, "slow", worker) == ["b"]
    assert rotate(db)[0][2] is None


def test_a_slot_is_held_by_a_lease(db, worker) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a", "b")
    pulled = pull(db, "s", worker)
    assert held(db) == f"lease {pulled[0].lease} of worker {worker} holds messages of partition 1"
    settle(db, worker, pulled)
    assert rotate(db)[0][2] is None


def test_a_redelivery_holds_no_slot(db, worker) -> None:
    """It has a copy."""
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    db.execute("SELECT outbox.release(%s, %s)", (worker, [pull(db, "s", worker)[0].lease]))
    assert rotate(db)[0][2] is None
    assert drain(db, "s", worker) == ["a"]


def test_a_slot_is_held_by_a_publisher_that_has_not_committed(database: Database, db, worker) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    late, early = database.connect(), database.connect()
    publish(late, "t", "late")
    publish(early, "t", "early")
    early.commit()
    assert drain(db, "s", worker) == ["a", "early"]
    assert f"pid {late.info.backend_pid}, open since" in held(db)
    late.commit()
    assert held(db) == "subscription s has not yet taken late messages of partition 1"
    assert drain(db, "s", worker) == ["late"]
    assert rotate(db)[0][2] is None


def test_a_message_that_commits_while_rotation_waits_for_its_lock_is_not_lost(database: Database, db, worker) -> None:
    """It can't be seen when rotation asks for the first time."""
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    late, early = database.connect(), database.connect()
    publish(late, "t", "late")
    publish(early, "t", "early")
    early.commit()
    assert drain(db, "s", worker) == ["a", "early"]
    db.execute("ALTER FUNCTION outbox.truncate_slot SET lock_timeout = '20s'")
    rotating = Later(database.connect(autocommit=True), f"SELECT held_by FROM outbox.rotate_as_of({LATER})")
    rotating.wait_until_it_waits(database)
    late.commit()
    assert rotating.join() == "subscription s has not yet taken late messages of partition 1"
    assert drain(db, "s", worker) == ["late"]


def test_a_slot_is_held_by_a_prepared_transaction(database: Database, db) -> None:
    publish(db, "t", "a")
    with database.connect(autocommit=True) as other:
        other.execute("SET outbox.notify = off")
        other.execute("BEGIN")
        publish(other, "t", "b")
        other.execute("PREPARE TRANSACTION 'rotate'")
        try:
            assert "a prepared transaction" in held(db)
        finally:
            other.execute("ROLLBACK PREPARED 'rotate'")
    assert rotate(db)[0][2] is None


def test_rotation_gives_up_soon_and_no_publisher_fails(database: Database, db) -> None:
    publish(db, "t", "a")
    reader = database.connect()
    reader.execute("SELECT count(*) FROM outbox.message")
    assert "pid" in held(db)
    publish(db, "t", "b")
    assert stored(db) == 2


def test_a_seek_into_what_is_gone_delivers_what_is_left(db, worker) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    drain(db, "s", worker)
    rotate(db)
    publish(db, "t", "b")
    db.execute("SELECT outbox.seek('s', 1, 0)")
    assert drain(db, "s", worker) == ["b"]


@pytest.mark.parametrize("log", ["deduplication", "inbox"])
def test_keys_that_need_not_be_remembered_go_by_slots(db, log: str) -> None:
    write = {
        "deduplication": "SELECT outbox.publish('t', '1', idempotency_key => 'k')",
        "inbox": "SELECT outbox.once('crm', 'k')",
    }[log]
    db.execute(write)
    count = f"SELECT count(*) FROM outbox.{log}"
    for days, left in ((1, 1), (6, 1), (7.1, 1), (10, 0)):
        later = timedelta(days=days)
        db.execute("SELECT * FROM outbox.rotate_keys(%s, clock_timestamp() + %s)", (log, later))
        if days == 7.1 and value(db, count) == 0:  # its slot was about to end
            break
        assert value(db, count) == left, days
    assert value(db, count) == 0
    db.execute(write)
    assert value(db, count) == 1


def test_rotation_refuses_an_old_snapshot(db) -> None:
    """It could not see what commits while it waits for its lock."""
    publish(db, "t", "a")
    db.execute("SET default_transaction_isolation = 'repeatable read'")
    with pytest.raises(psycopg.Error) as caught:
        rotate(db)
    assert caught.value.sqlstate == "OB002"


def test_the_slot_that_is_written_is_never_the_one_that_is_emptied_next(db) -> None:
    """Not even in the last half second of a slot."""
    db.execute("UPDATE outbox.retention SET slot_width = '1 second', slots = 8")
    for _ in range(20):
        publish(db, "t", "a")
        written, due = db.execute(
            "SELECT slot, (SELECT min(d.slot) FROM outbox.slots_due(m.published_at) d) FROM outbox.message m "
            'ORDER BY "offset" DESC LIMIT 1'
        ).fetchone()
        assert written != due
        db.execute("SELECT pg_sleep(0.11)")
