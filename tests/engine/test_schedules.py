"""Schedules in the database: each tick published once, whoever comes, and none by who computed it too early."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.test_dead_rows import pages
from tests.shop_floor import Database, Later, value

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def declare(db: psycopg.Connection[Any], name: str = "s", **more: Any) -> bool:
    settings = {"every": SECOND, "next_at": START, **more}
    named = "".join(f", {setting} => %s" for setting in settings)
    return bool(value(db, f"SELECT outbox.declare_schedule(%s, 't', '1'{named})", name, *settings.values()))


def tick(db: psycopg.Connection[Any], at: datetime, *ticks: datetime, revision: int = 1, name: str = "s") -> int | None:
    """Publish the ticks of a schedule that stands at `at`, and move it on by a second."""
    found: int | None = value(
        db,
        "SELECT outbox.tick_schedule(%s, %s, %s, %s::timestamptz[], %s)",
        name,
        revision,
        at,
        list(ticks or (at,)),
        max(ticks or (at,)) + SECOND,
    )
    return found


def due(db: psycopg.Connection[Any], **more: Any) -> list[str]:
    named = ", ".join(f"{name} => %s" for name in more)
    rows = db.execute(f"SELECT name FROM outbox.due_schedules({named})", tuple(more.values()))
    return [name for (name,) in rows]


def scheduled_for(db: psycopg.Connection[Any]) -> list[str]:
    rows = db.execute("SELECT headers ->> 'scheduled-for' FROM outbox.message ORDER BY partition_id, \"offset\"")
    return [at for (at,) in rows]


def test_a_tick_is_published_with_its_time_and_the_schedule_moves_on(db) -> None:
    declare(db, headers='{"a": "b"}', key="k")
    assert due(db) == ["s"]
    assert tick(db, START, START, START + SECOND * 1.5) == 2
    rows = db.execute('SELECT key, headers, payload FROM outbox.message ORDER BY "offset"').fetchall()
    assert rows == [
        ("k", {"a": "b", "schedule": "s", "scheduled-for": "2026-01-01T00:00:00+00:00"}, 1),
        ("k", {"a": "b", "schedule": "s", "scheduled-for": "2026-01-01T00:00:01.5+00:00"}, 1),
    ]
    assert datetime.fromisoformat(rows[1][1]["scheduled-for"]) == START + SECOND * 1.5
    assert db.execute("SELECT next_at, last_at FROM outbox.tick").fetchall() == [
        (START + SECOND * 2.5, START + SECOND * 1.5)
    ]
    assert due(db, now=START + SECOND * 2) == []


def test_a_tick_is_published_by_one_of_two_who_computed_it(database: Database, db) -> None:
    declare(db)
    first, second = database.connect(), database.connect()
    assert tick(first, START) == 1
    assert tick(second, START) is None, "it waits for nobody"
    second.rollback()
    first.commit()
    assert tick(second, START) is None
    assert scheduled_for(db) == ["2026-01-01T00:00:00+00:00"]


def test_a_tick_that_rolls_back_is_published_by_the_next_who_comes(database: Database, db) -> None:
    declare(db)
    first = database.connect()
    assert tick(first, START) == 1
    first.rollback()
    assert tick(db, START) == 1
    assert len(scheduled_for(db)) == 1


def test_a_tick_computed_before_the_schedule_was_changed_is_not_published(db) -> None:
    declare(db)
    assert declare(db, every=SECOND * 2)
    assert tick(db, START) is None
    assert tick(db, START, revision=2) == 1


def test_to_declare_it_the_same_changes_nothing_and_otherwise_counts_from_then(db) -> None:
    assert declare(db)
    tick(db, START)
    assert not declare(db, next_at=START + timedelta(days=9))
    assert value(db, "SELECT next_at FROM outbox.tick") == START + SECOND
    assert declare(db, key="k", next_at=START + timedelta(days=9)), "another message, the same times"
    assert value(db, "SELECT next_at FROM outbox.tick") == START + SECOND
    assert declare(db, every=None, cron="* * * * *", next_at=START + timedelta(days=9))
    assert db.execute("SELECT next_at, last_at FROM outbox.tick").fetchall() == [(START + timedelta(days=9), START)]


def test_two_who_declare_it_at_once_make_one(database: Database, db) -> None:
    first = database.connect()
    assert declare(first)
    second = Later(
        database.connect(autocommit=True), "SELECT outbox.declare_schedule('s', 't', '1', every => '1 second')"
    ).wait_until_it_waits(database)
    first.commit()
    assert isinstance(second.join(), bool)
    assert value(db, "SELECT count(*) FROM outbox.schedule") == value(db, "SELECT count(*) FROM outbox.tick") == 1


def test_a_paused_schedule_does_not_tick_whatever_is_declared_until_it_is_resumed(db) -> None:
    declare(db)
    assert value(db, "SELECT outbox.pause_schedule('s')")
    assert not value(db, "SELECT outbox.pause_schedule('s')")
    assert (due(db), tick(db, START)) == ([], None)
    assert declare(db, every=SECOND * 3)
    assert due(db) == []
    assert value(db, "SELECT paused_at IS NOT NULL FROM outbox.schedule")
    assert value(db, "SELECT outbox.resume_schedule('s')")
    assert not value(db, "SELECT outbox.resume_schedule('s')")
    assert value(db, "SELECT next_at > now() FROM outbox.tick"), "what passed while it was paused is not made up for"


def test_a_tick_that_can_not_be_published_waits_and_the_schedule_goes_on(db) -> None:
    declare(db)
    db.execute("SELECT outbox.declare_topic('t')")
    db.execute("ALTER TABLE outbox.message ADD CHECK (headers ->> 'scheduled-for' NOT LIKE '%:01+%')")
    assert tick(db, START, *(START + SECOND * n for n in range(3))) == 2
    assert tick(db, START + SECOND * 3) == 1
    row = db.execute("SELECT schedule, attempts, error FROM outbox.scheduled").fetchone()
    assert row is not None
    assert (row[0], row[1], row[2][:7]) == ("s", 1, "23514: ")
    db.execute("ALTER TABLE outbox.message DROP CONSTRAINT message_headers_check")
    assert value(db, "SELECT published FROM outbox.publish_due(now => clock_timestamp() + interval '1 hour')") == 1
    assert sorted(scheduled_for(db)) == [f"2026-01-01T00:00:0{n}+00:00" for n in range(4)]


def test_run_now_publishes_beside_the_ticks_even_if_paused(db) -> None:
    declare(db)
    db.execute("SELECT outbox.pause_schedule('s')")
    assert value(db, "SELECT outbox.run_schedule('s')") == 1
    assert value(db, "SELECT outbox.run_schedule('nobody')") is None
    assert value(db, "SELECT payload FROM outbox.message") == 1
    db.execute("SELECT outbox.resume_schedule('s', %s)", (START,))
    assert tick(db, START) == 1


def test_a_deleted_schedule_leaves_nothing(db) -> None:
    declare(db)
    db.execute("SELECT outbox.declare_topic('t')")
    db.execute("ALTER TABLE outbox.message ADD CHECK (false)")
    assert tick(db, START) == 0
    assert value(db, "SELECT outbox.delete_schedule('s')")
    assert not value(db, "SELECT outbox.delete_schedule('s')")
    for table in ("schedule", "tick", "scheduled"):
        assert value(db, f"SELECT count(*) FROM outbox.{table}") == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"every": None},
        {"cron": "* * * * *"},
        {"every": timedelta(milliseconds=10)},
        {"missed": "perhaps"},
        {"priority": 10},
        {"every": None, "cron": "* * * * *", "next_at": None},
        {"body": b"x"},
        {"name": "a b"},
    ],
)
def test_what_is_no_schedule_is_refused(db, settings: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error) as error:
        declare(db, **settings)
    assert error.value.sqlstate == "OB007"


def test_an_error_of_a_schedule_is_kept_until_it_ticks(db) -> None:
    declare(db)
    for _ in range(2):
        db.execute("SELECT outbox.note_schedule_error('s', 1, 'no such zone')")
    assert value(db, "SELECT error FROM outbox.schedule") == "no such zone"
    tick(db, START)
    assert value(db, "SELECT error FROM outbox.schedule") is None


def test_a_tick_touches_no_more_pages_after_thousands_of_dead_rows(database: Database, db) -> None:
    declare(db)
    holder = database.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(holder, "SELECT 1")
    at = datetime.now(UTC)
    db.execute("SELECT outbox.move_schedule(1, %s)", (at - timedelta(hours=3),))
    at -= timedelta(hours=3)

    def churn(ticks: int) -> None:
        nonlocal at
        for _ in range(ticks):
            assert tick(db, at) == 1
            at += SECOND

    def costs() -> tuple[int, ...]:
        nonlocal at
        look = pages(db, "outbox.next_tick_at(false)")
        find = pages(db, "outbox.due_schedules(false, %s)", at)
        move = pages(db, "outbox.tick_schedule('s', 1, %s, %s::timestamptz[], %s)", at, [at], at + SECOND)
        at += SECOND
        return look, find, move

    churn(20)
    before = [costs() for _ in range(8)][-1]
    churn(2000)
    after = [costs() for _ in range(8)][-1]
    assert value(db, "SELECT pg_relation_size('outbox.tick') / 8192") > 10, "no dead rows: this tests nothing"
    assert all(b <= a + 12 for a, b in zip(before, after, strict=True)), (before, after)
