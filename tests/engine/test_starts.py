"""Where cursors start, and where a seek puts them: first, last, next, an offset, a time, a while ago."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.engine.test_dead_rows import pages
from tests.shop_floor import Database, Later, drain, payloads, publish, pull, register, settle, subscribe, value

NOON = datetime(2020, 2, 23, 12, tzinfo=UTC)


@pytest.fixture
def worker(db) -> int:
    return register(db)


def published(db: psycopg.Connection[Any], offset: int, at: datetime, partition_id: int = 1) -> None:
    db.execute(
        'UPDATE outbox.message SET published_at = %s WHERE partition_id = %s AND "offset" = %s',
        (at, partition_id, offset),
    )


def hourly(db: psycopg.Connection[Any], *payloads: str) -> None:
    """Messages of NOON, one hour later, and so on, in a topic of one partition."""
    publish(db, "t", *payloads)
    for hour in range(len(payloads)):
        published(db, hour + 1, NOON + timedelta(hours=hour))


def define(db: psycopg.Connection[Any], name: str, start: str) -> None:
    plain = {"name": name, "guarantee": "at-least-once", "max_attempts": 20, "on_failure": None, "settings": {}}
    definition = {**plain, "start": start, "bind": [{"pattern": "t"}], "unbind": []}
    db.execute("SELECT outbox.define(%s::jsonb)", (json.dumps([definition]),))


STARTS = [
    ("first", "abcd"),
    ("last", "d"),
    ("next", ""),
    ("1", "abcd"),
    ("3", "cd"),
    ("5", ""),
    ("2020-02-23T13:00Z", "bcd"),
    ("2020-02-23 14:00:00.000001+01", "cd"),
    ("2020-02-23T11:00:00+00:00", "abcd"),
    ("2100-01-01T00:00Z", ""),
    ("1000 years", "abcd"),
    ("1000 years ago", "abcd"),
    ("-1 hour", ""),
    ("PT1H", ""),
]


@pytest.mark.parametrize(("start", "expected"), STARTS)
def test_a_subscription_starts_where_it_is_told_and_a_seek_goes_there(db, worker, start: str, expected: str) -> None:
    hourly(db, *"abcd")
    subscribe(db, "new", "t", start=start)
    subscribe(db, "old", "t", start="3")
    define(db, "defined", start)
    value(db, "SELECT outbox.seek_to('old', %s)", start)
    for name in ("new", "old", "defined"):
        assert drain(db, name, worker) == list(expected), name
    publish(db, "t", "later")
    for name in ("new", "old", "defined"):
        assert drain(db, name, worker) == ["later"], name


WRONG = [
    "yesterday",
    "",
    "0",
    "-1",
    "6",
    "2020-02-23",
    "2020-02-23T12:00",
    "10:00",
    "5 bananas",
    "99999999999999999999",
]


@pytest.mark.parametrize("start", WRONG)
def test_what_is_nowhere_is_refused(db, start: str) -> None:
    hourly(db, *"abcd")
    subscribe(db, "s", "t")
    db.execute("SELECT outbox.subscribe('new')")
    for call in ("outbox.bind('new', 't', %s)", "outbox.seek_to('s', %s)", "outbox.seek_to('s', %s, dry_run => true)"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"SELECT {call}", (start,))
        assert caught.value.sqlstate == "OB007", start


def test_an_offset_is_of_one_partition(db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('t', 3)")
    publish(db, "t", *"ab", key="k")
    db.execute("SELECT outbox.subscribe('s')")
    with pytest.raises(psycopg.Error, match="these are 3"):
        value(db, "SELECT outbox.bind('s', 't', '2')")
    with pytest.raises(psycopg.Error, match="these are 3"):
        define(db, "d", "2")
    value(db, "SELECT outbox.bind('s', 't', 'next')")
    with pytest.raises(psycopg.Error, match="these are 3"):
        value(db, "SELECT outbox.seek_to('s', '2')")
    number = value(db, "SELECT number FROM outbox.partition p JOIN outbox.message m ON m.partition_id = p.id LIMIT 1")
    value(db, "SELECT outbox.seek_to('s', '2', 't', %s)", number)
    assert drain(db, "s", worker) == ["b"]


def test_a_seek_moves_all_partitions_or_those_of_a_topic(db, worker) -> None:
    for topic in ("a.x", "a.y", "b"):
        publish(db, topic, topic)
    subscribe(db, "s", "#")
    drain(db, "s", worker)
    moves = db.execute("SELECT topic, before, after FROM outbox.seek_to('s', 'first', 'a.*')").fetchall()
    assert moves == [("a.x", 1, 0), ("a.y", 1, 0)]
    assert sorted(drain(db, "s", worker)) == ["a.x", "a.y"]
    value(db, "SELECT count(*) FROM outbox.seek_to('s', 'last')")
    assert sorted(drain(db, "s", worker)) == ["a.x", "a.y", "b"]
    for wrong in ("'nobody', 'first'", "'s', 'first', 'c'", "'s', 'first', 'b', 1"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"SELECT outbox.seek_to({wrong})")
        assert caught.value.sqlstate == "OB004"
    with pytest.raises(psycopg.Error, match="of which topic"):
        db.execute("SELECT outbox.seek_to('s', 'first', number => 0)")


def test_a_dry_run_says_how_far_and_over_how_many_messages_and_moves_nothing(database: Database, db, worker) -> None:
    publish(db, "t", *"abcd")
    hole = database.connect()
    publish(hole, "t", "hole")
    hole.rollback()
    publish(db, "t", "e")
    subscribe(db, "s", "t")
    assert drain(db, "s", worker) == list("abcde")
    with database.connect() as writing:  # a dry run may be anywhere in a transaction
        value(writing, "SELECT pg_current_xact_id()")
        row = writing.execute("SELECT before, after FROM outbox.seek_to('s', '3', dry_run => true)").fetchone()
    assert row == (6, 2)
    assert value(db, "SELECT outbox.count_messages(1, 3, 6)") == 3
    assert value(db, "SELECT outbox.count_messages(1, 3, 6, 2)") == 2
    assert drain(db, "s", worker) == []


def test_a_seek_of_many_partitions_is_one_transaction_of_its_own(database: Database, db) -> None:
    publish(db, "t", "a")
    subscribe(db, "s", "t")
    for level, first in (("READ COMMITTED", "SELECT pg_current_xact_id()"), ("REPEATABLE READ", "SELECT 1")):
        connection = database.connect()
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        connection.execute(first)
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("SELECT outbox.seek_to('s', 'first')")
        assert caught.value.sqlstate == "OB002"


@pytest.mark.parametrize("start", ["last", "2020-02-23T13:30Z", "3"])
def test_who_starts_in_the_middle_gets_what_was_open_then(database: Database, db, worker, start: str) -> None:
    hourly(db, *"ab")
    slow, gone = database.connect(), database.connect()
    publish(slow, "t", "open")
    publish(gone, "t", "gone")
    publish(db, "t", "c")
    published(db, 5, NOON + timedelta(hours=3))
    subscribe(db, "s", "t", start=start)
    subscribe(db, "moved", "t")
    value(db, "SELECT outbox.seek_to('moved', %s)", start)
    slow.commit()
    gone.rollback()
    assert sorted(drain(db, "s", worker)) == sorted(drain(db, "moved", worker)) == ["c", "open"]


def test_what_commits_while_a_start_in_the_middle_is_looked_for_is_delivered(database: Database, db, worker) -> None:
    """Where it starts and what is open must be told by one snapshot: else the message lies below, and nobody waits."""
    hourly(db, "a")
    subscribe(db, "s", "t")
    publisher, blocker, seeker = database.connect(), database.connect(), database.connect(autocommit=True)
    publish(publisher, "t", "one")
    publish(db, "t", "b")
    blocker.execute("SELECT FROM outbox.position FOR UPDATE")
    seeking = Later(seeker, "SELECT outbox.seek_to('s', '2020-02-23T12:30Z')").wait_until_it_waits(database)
    publisher.commit()
    blocker.commit()
    seeking.join()
    assert sorted(drain(db, "s", worker)) == ["b", "one"]


# ordered


def test_after_a_seek_back_while_a_batch_is_in_hand_each_key_is_in_order_again(db, worker) -> None:
    subscribe(db, "s", "t", on_failure="park")
    for payload in ("a1", "b1", "a2", "b2", "a3"):
        publish(db, "t", payload, key=payload[0])
    first = pull(db, "s", worker, 3)
    value(db, "SELECT outbox.seek_to('s', 'first')")
    assert pull(db, "s", worker) == []
    settle(db, worker, first)
    assert drain(db, "s", worker, 2) == ["a1", "b1", "a2", "b2", "a3"]


def test_after_a_seek_back_a_message_that_failed_goes_before_the_others_of_its_key(db, worker) -> None:
    subscribe(db, "s", "t", on_failure="park")
    for payload in ("a1", "b1", "a2"):
        publish(db, "t", payload, key=payload[0])
    first = pull(db, "s", worker)
    value(db, "SELECT outbox.seek_to('s', 'first')")
    failures = [{"lease": m.lease, "offset": m.offset, "delay": 0} for m in first if m.payload == "a1"]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [first[0].lease], json.dumps(failures)))
    came: list[Any] = []
    while pulled := pull(db, "s", worker):
        came += payloads(pulled)
        settle(db, worker, pulled)
    assert [p for p in came if p[0] == "a"] == ["a1", "a2"]
    assert [p for p in came if p[0] == "b"] == ["b1"]


# the offset of a time


def test_the_offset_of_a_time_in_an_empty_log_is_none(db) -> None:
    db.execute("SELECT outbox.declare_topic('t')")
    assert value(db, "SELECT outbox.offset_at(1, now())") is None
    assert value(db, "SELECT outbox.offset_at(99, now())") is None


@given(
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9), st.booleans()), max_size=60),
    asked=st.integers(-20, 500),
)
@example(steps=[(0, 0, True), (9, 0, True), *((0, late, True) for late in (4, 3, 2, 1))], asked=9)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_offset_of_a_time_is_exact_among_holes_and_times_that_are_out_of_order(
    one_database: Database, steps: list[tuple[int, int, bool]], asked: int
) -> None:
    """Each message is published some seconds after the one before, but up to 9 seconds late; some roll back."""
    ticks, rows = 0, []
    for offset, (step, late, kept) in enumerate(steps, 1):
        ticks += step
        rows += [(offset, NOON + timedelta(seconds=ticks - late))] if kept else []
    with one_database.connect(autocommit=True) as db:
        db.execute("SELECT outbox.declare_topic('t')")
        db.execute("TRUNCATE outbox.message")
        for offset, at in rows:
            db.execute(
                'INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, payload) '
                "VALUES (%s, 1, %s, '3', %s, '1')",
                (offset // 10 % 8, offset, at),
            )
        time = NOON + timedelta(seconds=asked)
        fitting = [offset for offset, at in rows if at >= time]
        assert value(db, "SELECT outbox.offset_at(1, %s)", time) == min(fitting, default=None)


def test_the_offset_of_a_time_is_looked_up_and_not_searched_through(db) -> None:
    """On a table that was never analysed."""
    value(db, "SELECT outbox.declare_topic('t')")
    for n in range(5):
        value(db, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 4000) n")
        db.execute(
            'UPDATE outbox.message SET published_at = published_at - make_interval(hours => %s) WHERE "offset" > %s',
            (5 - n, n * 4000),
        )
    call = "outbox.offset_at(1, clock_timestamp() - interval '2.5 hours')"
    assert min(pages(db, call) for _ in range(2)) < 400  # some in each slot at each of 15 steps
    assert value(db, f"SELECT {call}") == 12001
