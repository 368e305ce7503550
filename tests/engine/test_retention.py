"""For how long messages are kept: by class, time, size; who holds them, who loses them, what is carried forward."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Later, drain, publish, pull, register, settle, subscribe, value

HOUR = timedelta(hours=1)
#: The beginning of a turn of every class, as they are at first, well after they were changed.
START = datetime(2031, 3, 2, tzinfo=UTC)

SLOTS = {"standard": range(8), "short": range(8, 12), "transient": range(12, 16), "long": range(16, 24)}


def declare(db: psycopg.Connection, topic: str = "t", **settings: Any) -> None:
    named = "".join(f", {name} => %s" for name in settings)
    db.execute(f"SELECT outbox.declare_topic(%s{named})", (topic, *settings.values()))


def write(db: psycopg.Connection, at: datetime, payload: Any = "x", key: str | None = None, topic: str = "t") -> None:
    """Publish as if the clock said `at`."""
    db.execute(
        'INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, key, payload) '
        "SELECT outbox.slot(r.first_slot, r.slots, r.slot_width, %(at)s), p.id, nextval(p.sequence), x.id, %(at)s, "
        "%(key)s, %(payload)s FROM (SELECT pg_current_xact_id() AS id OFFSET 0) AS x, outbox.topic t "
        "JOIN outbox.partition p ON p.topic_id = t.id AND p.generation = t.generation AND p.priority = 0 "
        "AND p.number = outbox.partition_number(%(key)s, t.partitions) "
        "JOIN outbox.retention r ON r.name = p.retention WHERE t.name = %(topic)s",
        {"at": at, "key": key, "payload": psycopg.types.json.Json(payload), "topic": topic},
    )


def rotate(db: psycopg.Connection, now: datetime) -> list[str | None]:
    """Empty what can be emptied at a time; returns who held what could not be."""
    while True:
        rows = db.execute("SELECT held_by FROM outbox.rotate_as_of(%s) WHERE log = 'message'", (now,)).fetchall()
        if all(held_by is not None for (held_by,) in rows):
            return [held_by for (held_by,) in rows]


def stored(db: psycopg.Connection) -> list[Any]:
    return [payload for (payload,) in db.execute('SELECT payload FROM outbox.message ORDER BY partition_id, "offset"')]


def configure(db: psycopg.Connection, name: str, settings: str) -> None:
    db.execute("SELECT outbox.configure(%s, %s::jsonb)", (name, settings))


def losses(db: psycopg.Connection) -> list[tuple]:
    return db.execute(
        "SELECT subscription, first_offset, last_offset, messages FROM outbox.lost ORDER BY id"
    ).fetchall()


@pytest.fixture
def worker(db) -> int:
    return register(db)


@pytest.mark.parametrize("retention", SLOTS)
def test_a_class_has_slots_of_its_own(db, retention: str) -> None:
    declare(db, retention=retention)
    publish(db, "t", "now")
    write(db, START)
    slots = {slot for (slot,) in db.execute("SELECT slot FROM outbox.message")}
    assert slots <= set(SLOTS[retention])
    persistence = "SELECT DISTINCT relpersistence FROM pg_class WHERE oid = (SELECT min(tableoid) FROM outbox.message)"
    assert value(db, persistence) == ("u" if retention == "transient" else "p")
    (ring,) = db.execute("SELECT first_slot, slots FROM outbox.retention WHERE name = %s", (retention,)).fetchall()
    assert range(ring[0], sum(ring)) == SLOTS[retention]


@pytest.mark.parametrize(
    ("retention", "keep", "width"),
    [("transient", HOUR, 0.5 * HOUR), ("short", 24 * HOUR, 12 * HOUR), ("long", 2160 * HOUR, 360 * HOUR)],
)
def test_a_class_keeps_messages_for_its_time_and_a_slot_longer_at_most(
    db, retention: str, keep: timedelta, width: timedelta
) -> None:
    declare(db, retention=retention)
    write(db, START)
    rotate(db, START + keep - timedelta(seconds=1))
    assert len(stored(db)) == 1
    rotate(db, START + keep + width)
    assert stored(db) == []


def test_a_slot_that_will_be_written_within_a_second_is_left_alone(db) -> None:
    """Whoever publishes then would wait for us."""
    declare(db)
    write(db, START)
    rotate(db, START + timedelta(days=8, milliseconds=-500))
    assert len(stored(db)) == 1
    rotate(db, START + timedelta(days=8, milliseconds=-1500))
    assert stored(db) == []


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=1000)], ids=["new", "published long ago"])
def test_a_class_that_keeps_messages_for_longer_now_keeps_what_it_has_for_longer(db, age: timedelta) -> None:
    """What was put into the log with the times of long ago, too: it is there since then."""
    declare(db, retention="short")
    every_slot = [-24, -12, 0, 12]
    for hour in every_slot:
        write(db, START + hour * HOUR, hour)
    db.execute("UPDATE outbox.message SET published_at = published_at - %s", (age,))
    db.execute("UPDATE outbox.retention SET slot_width = '5 days', changed_at = %s", (START + 20 * HOUR,))
    for hours in range(20, 215, 5):
        assert rotate(db, START + hours * HOUR) == []
        assert stored(db) == every_slot, hours
    for hours in range(215, 20 + 480 + 240, 20):
        rotate(db, START + hours * HOUR)
    assert stored(db) == []


def test_a_class_that_keeps_messages_for_less_drops_the_older_soon(db) -> None:
    declare(db, retention="short")
    for hour in range(0, 24, 3):
        write(db, START + hour * HOUR, hour)
    db.execute("UPDATE outbox.retention SET slot_width = '1 hour', changed_at = %s", (START + 24 * HOUR,))
    rotate(db, START + 25.9 * HOUR)
    assert stored(db) == list(range(0, 24, 3)), "nothing goes that could be younger than 2 hours"
    for hours in range(26, 31):
        rotate(db, START + hours * HOUR)
    assert stored(db) == []


def test_whatever_its_time_was_changed_to_nothing_goes_before_that_nor_stays_for_ever(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    declare(db, retention="short")
    dice = random.Random(4711)
    width = timedelta(hours=12)
    now = changed_at = START
    for _ in range(400):
        now += timedelta(hours=dice.choice([0.1, 0.5, 0.9]))
        if dice.random() < 0.02:
            width = timedelta(hours=dice.choice([1, 2, 4, 8]))
            db.execute("UPDATE outbox.retention SET slot_width = %s, changed_at = %s", (width, now))
            changed_at = now
        write(db, now, now.timestamp())
        before = stored(db)
        rotate(db, now)
        gone = set(before) - set(left := stored(db))
        assert all(at <= (now - 2 * width).timestamp() for at in gone)
        if now > changed_at + 7 * width:
            assert min(left) >= (now - 4 * width).timestamp()


def test_a_publisher_that_does_not_know_of_the_new_time_loses_nothing_by_it(db) -> None:
    """Its snapshot is older than the change, and so it writes to another slot than those that do."""
    declare(db, retention="short")
    write(db, START, "late")
    next_one = (
        "UPDATE outbox.message SET slot = (SELECT outbox.slot(first_slot, slots, slot_width, %s) FROM outbox.retention"
    )
    db.execute(next_one + " WHERE name = 'short')", (START + 12 * HOUR,))
    for hours in range(24):
        rotate(db, START + hours * HOUR)
        assert stored(db) == ["late"], hours
    for hours in range(24, 72):
        rotate(db, START + hours * HOUR)
    assert stored(db) == []


def test_set_retention_says_whether_it_changed_something_and_what_can_not_be(db) -> None:
    def change(arguments: str) -> bool:
        return bool(value(db, f"SELECT outbox.set_retention({arguments})"))

    def short() -> tuple:
        return db.execute("SELECT keep, max_bytes FROM outbox.kept WHERE name = 'short'").fetchone()

    assert change("'short', '100 seconds', 1000")
    assert short() == (timedelta(seconds=100), 1000)
    assert not change("'short', '99.5 seconds'"), "it keeps that long already"
    assert change("'short', max_bytes => 0")
    assert short() == (timedelta(seconds=100), None)
    changed_at = value(db, "SELECT changed_at FROM outbox.retention WHERE name = 'short'")
    assert change("'short', max_bytes => 10")
    assert value(db, "SELECT changed_at FROM outbox.retention WHERE name = 'short'") == changed_at
    for wrong in ("'gold'", "'short', '1 second'", "'short', '-1 day'", "'short', '101 years'", "'short', NULL, -1"):
        with pytest.raises(psycopg.Error) as caught:
            change(wrong)
        assert caught.value.sqlstate == "OB007"


def large(db: psycopg.Connection, slots: int) -> None:
    """Messages in the oldest slots of `short`, a megabyte each, the newest in the one that is written at START."""
    for slot in SLOTS["short"]:
        db.execute(f"ALTER TABLE outbox.message_{slot} ALTER payload SET STORAGE EXTERNAL")  # uncompressed
    declare(db, retention="short")
    for ago in range(slots - 1, -1, -1):
        write(db, START - ago * 12 * HOUR, f"{ago}" + "x" * 1_000_000)


def ages(db: psycopg.Connection) -> list[int]:
    return [int(text[0]) for text in stored(db)]


def test_of_a_class_that_is_too_large_the_oldest_goes_first_and_never_what_is_written_now(db) -> None:
    large(db, 3)
    rotate(db, START)
    assert ages(db) == [2, 1, 0], "there is no limit"
    db.execute("SELECT outbox.set_retention('short', max_bytes => 3000000)")
    rotate(db, START)
    assert ages(db) == [1, 0]
    db.execute("SELECT outbox.set_retention('short', max_bytes => 1)")
    rotate(db, START)
    assert ages(db) == [0]
    assert rotate(db, START) == []


def test_what_is_too_large_is_held_all_the_same_and_nothing_younger_goes_instead(db, worker) -> None:
    large(db, 3)
    subscribe(db, "s", "t")
    db.execute("SELECT outbox.set_retention('short', max_bytes => 1)")
    assert rotate(db, START) == ["subscription s stands at offset 0 of partition 1, the slot goes on to 1"]
    assert len(pull(db, "s", worker, 1)) == 1
    (held_by,) = rotate(db, START)
    assert f"of worker {worker} holds messages of partition 1" in held_by
    configure(db, "s", '{"backlog": "expire"}')
    (held_by,) = rotate(db, START)
    assert "lease" in held_by
    db.execute("SELECT outbox.release(%s, ARRAY(SELECT id FROM outbox.lease))", (worker,))
    rotate(db, START)
    assert ages(db) == [0]
    assert losses(db) == [("s", 2, 2, 1)]
    assert sorted(text[0] for text in drain(db, "s", worker)) == ["0", "2"], "what was in hand has a copy"


# --- a backlog that expires


def test_a_stopped_subscription_holds_the_log_until_it_is_told_not_to(db, worker) -> None:
    declare(db)
    subscribe(db, "s", "t")
    for day in range(30):
        write(db, START + day * 24 * HOUR, day)
        rotate(db, START + day * 24 * HOUR)
    assert stored(db) == list(range(30))
    configure(db, "s", '{"backlog": "expire"}')
    rotate(db, START + 30 * 24 * HOUR)
    left = stored(db)
    assert left == drain(db, "s", worker)
    assert sum(messages for *_, messages in losses(db)) == 30 - len(left)


def test_what_a_subscription_lost_is_counted_by_partition_until_it_is_acknowledged(db, worker) -> None:
    declare(db)
    subscribe(db, "stopped", "t")
    subscribe(db, "quick", "t")
    configure(db, "stopped", '{"backlog": "expire"}')
    configure(db, "quick", '{"backlog": "expire"}')
    for n in range(10):
        write(db, START, n)
    settle(db, worker, pull(db, "stopped", worker, 3))
    write(db, START + 24 * HOUR, 10)
    assert drain(db, "quick", worker) == list(range(11))
    rotate(db, START + 7 * 24 * HOUR)
    assert losses(db) == [("stopped", 4, 10, 7)]
    rotate(db, START + 8 * 24 * HOUR)
    assert losses(db) == [("stopped", 4, 10, 7), ("stopped", 11, 11, 1)]
    write(db, START + 8 * 24 * HOUR, 11)
    assert drain(db, "stopped", worker) == [11]
    assert value(db, "SELECT lag FROM outbox.lag WHERE subscription = 'stopped'") == 0
    assert value(db, "SELECT outbox.acknowledge_losses('stopped')") == 8
    assert value(db, "SELECT outbox.acknowledge_losses('stopped')") == 0
    assert losses(db) == []


def test_what_it_would_have_dropped_is_not_lost(db, worker) -> None:
    declare(db)
    for name, settings in (
        ("s", "{}"),
        ("old", '{"ttl": "1 hour"}'),
        ("letters", '{"ttl": 1, "expired": "dead-letter"}'),
    ):
        subscribe(db, name, "t")
        configure(db, name, settings)
        configure(db, name, '{"backlog": "expire"}')
    for n in range(4):
        write(db, START, n)
    db.execute("UPDATE outbox.message SET expires_at = '-infinity' WHERE \"offset\" = 1")
    db.execute('UPDATE outbox.message SET expires_at = %s WHERE "offset" = 2', (START,))
    rotate(db, START + 7 * 24 * HOUR)
    assert losses(db) == [("s", 3, 4, 2), ("letters", 2, 4, 3)]


def test_late_messages_that_go_before_they_are_taken_are_counted(database: Database, db, worker) -> None:
    subscribe(db, "s", "t")
    configure(db, "s", '{"backlog": "expire"}')
    publish(db, "t", "a")
    late, early = database.connect(), database.connect()
    publish(late, "t", "late 1", "late 2")
    publish(early, "t", "early")
    early.commit()
    assert drain(db, "s", worker) == ["a", "early"]
    now = value(db, "SELECT clock_timestamp()") + timedelta(days=7)
    assert "pid" in str(rotate(db, now)[0]), "nobody knows yet whether they will commit"
    late.commit()
    rotate(db, now)
    assert losses(db) == [("s", 2, 3, 2)]
    publish(db, "t", "b")
    assert drain(db, "s", worker) == ["b"]


@pytest.mark.parametrize("on_failure", [None, "park", "block"])
def test_whoever_lost_something_goes_on_with_what_is_left(db, worker, on_failure: str | None) -> None:
    declare(db, partitions=2)
    subscribe(db, "s", "t", on_failure=on_failure)
    configure(db, "s", '{"backlog": "expire"}')
    for n in range(20):
        write(db, START, n, key=f"{n}")
    lease = pull(db, "s", worker, 5)
    write(db, START + 24 * HOUR, 20, key="0")
    (held_by,) = rotate(db, START + 7 * 24 * HOUR)
    assert held_by.startswith("lease"), "what is in hand is not lost"
    settle(db, worker, lease)
    rotate(db, START + 7 * 24 * HOUR)
    assert sum(messages for *_, messages in losses(db)) == 15
    assert drain(db, "s", worker) == [20]


def test_who_rejects_what_is_too_much_must_hold_what_it_has(db) -> None:
    subscribe(db, "s", "t")
    configure(db, "s", '{"max_backlog": 3, "overflow": "reject-publish"}')
    with pytest.raises(psycopg.Error) as caught:
        configure(db, "s", '{"backlog": "expire"}')
    assert caught.value.sqlstate == "OB007"


# --- compaction

DAY = 24 * HOUR


def test_the_newest_message_of_each_key_is_carried_forward(db, worker) -> None:
    declare(db, compact=True)
    subscribe(db, "s", "t")
    for n, key in enumerate("abcabd"):
        write(db, START, f"{key}{n}", key=key)
    write(db, START, "without a key")
    write(db, START + DAY, "b7", key="b")
    assert len(drain(db, "s", worker)) == 8
    rows = 'SELECT partition_id, "offset", xid::text, published_at, key, payload FROM outbox.message ORDER BY 2'
    before = db.execute(rows).fetchall()
    rotate(db, START + 7 * DAY)
    assert stored(db) == ["c2", "a3", "d5", "b7"]
    assert set(db.execute(rows).fetchall()) <= set(before)
    assert value(db, "SELECT count(DISTINCT slot) FROM outbox.message") == 2
    assert drain(db, "s", worker) == [], "nobody gets them again"
    for day in range(8, 40):
        rotate(db, START + day * DAY)
        assert sorted(stored(db)) == ["a3", "b7", "c2", "d5"]
    subscribe(db, "late", "t")
    assert drain(db, "late", worker, 2) == ["c2", "a3", "d5", "b7"]


def test_a_topic_that_is_not_compacted_is_not_carried_forward(db) -> None:
    declare(db, compact=True)
    declare(db, "u")
    write(db, START, "t", key="a")
    write(db, START, "u", key="a", topic="u")
    rotate(db, START + 7 * DAY)
    assert stored(db) == ["t"]
    declare(db, compact=False)
    rotate(db, START + 14 * DAY)
    assert stored(db) == []


def test_a_null_ends_its_key_and_goes_itself(db) -> None:
    declare(db, compact=True)
    write(db, START, 1, key="a")
    write(db, START, 2, key="b")
    write(db, START + DAY, None, key="a")
    rotate(db, START + 7 * DAY)
    assert stored(db) == [2, None]
    rotate(db, START + 8 * DAY)
    assert stored(db) == [2]
    write(db, START + 8 * DAY, 3, key="a")
    rotate(db, START + 16 * DAY)
    assert stored(db) == [2, 3]


def test_a_message_of_bytes_is_no_null(db) -> None:
    declare(db, compact=True)
    db.execute("SELECT outbox.publish('t', NULL, 'k', body => 'null')")
    rotate(db, value(db, "SELECT clock_timestamp()") + 7 * DAY)
    assert value(db, "SELECT convert_from(body, 'UTF8') FROM outbox.message") == "null"


def test_an_older_message_does_not_come_back_when_its_null_goes_first(db) -> None:
    """The null may lie in an earlier slot: a publisher stood still between the look at the clock and its offset."""
    declare(db, compact=True)
    write(db, START + DAY, "old", key="a")
    write(db, START, None, key="a")
    rotate(db, START + 7 * DAY)
    assert stored(db) == ["old", None]
    for day in range(8, 20):
        rotate(db, START + day * DAY)
    assert stored(db) == []


def test_a_message_that_expired_ends_its_key_and_one_that_was_cancelled_does_not_count(db) -> None:
    declare(db, compact=True)
    for key in "ab":
        write(db, START, f"{key}1", key=key)
        write(db, START, f"{key}2", key=key)
    change = 'UPDATE outbox.message SET expires_at = %s WHERE "offset" = %s'
    db.execute(change, (START + DAY, 2))
    db.execute(change, ("-infinity", 4))
    rotate(db, START + 7 * DAY)
    assert stored(db) == ["b1"]


def test_a_key_of_another_priority_is_another(db) -> None:
    declare(db, compact=True, max_priority=1)
    publish(db, "t", "low", key="a")
    publish(db, "t", "high", key="a", priority=1)
    now = value(db, "SELECT clock_timestamp()")
    rotate(db, now + 7 * DAY)
    assert sorted(stored(db)) == ["high", "low"]


def test_a_message_of_a_later_generation_is_newer(db) -> None:
    declare(db, compact=True)
    for n in range(3):
        write(db, START, f"a{n}", key="a")
        write(db, START, f"b{n}", key="b")
    db.execute("SELECT outbox.create_partition(1, 0, 0, 2, 'standard')")
    db.execute("UPDATE outbox.topic SET generation = 2")
    write(db, START + DAY, "a3", key="a")
    rotate(db, START + 7 * DAY)
    assert stored(db) == ["b2", "a3"]
    rotate(db, START + 8 * DAY)
    assert stored(db) == ["b2", "a3"]


def test_a_message_that_is_carried_forward_is_not_lost(db, worker) -> None:
    declare(db, compact=True)
    subscribe(db, "s", "t")
    configure(db, "s", '{"backlog": "expire"}')
    for n, key in enumerate("aabb"):
        write(db, START, f"{key}{n}", key=key)
    rotate(db, START + 7 * DAY)
    assert losses(db) == [("s", 1, 3, 2)]
    assert drain(db, "s", worker) == ["a1", "b3"]


def carry_slowly(database: Database, db: psycopg.Connection) -> Later:
    """A rotation that has seen that it can have the slot, and waits in the midst of its copies for our lock 1."""
    db.execute("SELECT pg_advisory_lock(1)")
    db.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF current_setting('test.waits', true) = 'on' THEN PERFORM pg_advisory_lock_shared(1); END IF; "
        "RETURN NEW; END $$"
    )
    db.execute("CREATE TRIGGER wait AFTER INSERT ON outbox.message FOR EACH ROW EXECUTE FUNCTION wait()")
    rotating = database.connect(autocommit=True, application_name="rotating")
    rotating.execute("SET test.waits = 'on'")
    rotating.execute("SET deadlock_timeout = '100ms'")
    db.execute("ALTER FUNCTION outbox.truncate_slot SET lock_timeout = '20s'")
    statement = "SELECT held_by FROM outbox.rotate_as_of(clock_timestamp() + interval '7 days')"
    return Later(rotating, statement).wait_until_it_waits(database)


def test_what_commits_while_messages_are_carried_forward_is_carried_too(database: Database, db) -> None:
    declare(db, compact=True)
    publish(db, "t", "old", key="a")
    rotating = carry_slowly(database, db)
    publish(db, "t", "new", key="a")
    publish(db, "t", "other", key="b")
    db.execute("SELECT pg_advisory_unlock(1)")
    assert rotating.join() is None
    assert stored(db) == ["old", "new", "other"], "one too many does no harm"
    rotate(db, value(db, "SELECT clock_timestamp()") + 14 * DAY)
    assert stored(db) == ["new", "other"]


def test_readers_go_on_while_messages_are_carried_forward(database: Database, db, worker) -> None:
    declare(db, compact=True)
    publish(db, "t", "old", key="a")
    subscribe(db, "s", "t")
    configure(db, "s", '{"backlog": "expire"}')
    rotating = carry_slowly(database, db)
    lease = pull(db, "s", worker)
    assert [message.payload for message in lease] == ["old"]
    db.execute("SELECT pg_advisory_unlock(1)")
    assert "lease" in rotating.join()
    assert stored(db) == ["old"]
    settle(db, worker, lease)
    assert losses(db) == []


def test_a_message_that_is_cancelled_while_it_is_carried_forward_stays_where_it_is(
    database: Database, db, worker
) -> None:
    """So that the copy is never older than the message."""
    declare(db, compact=True)
    publish(db, "t", "old", key="a")
    subscribe(db, "s", "t")
    configure(db, "s", '{"backlog": "expire"}')
    rotating = carry_slowly(database, db)
    cancelling = Later(database.connect(autocommit=True), "SELECT outbox.cancel(1, 1)").wait_until_it_waits(database)
    db.execute("SELECT pg_advisory_unlock(1)")
    assert isinstance(rotating.join(), psycopg.errors.DeadlockDetected), "without our lock_timeout, which is shorter"
    assert cancelling.join() == ["s"]
    assert stored(db) == ["old"]
    assert drain(db, "s", worker) == []


def test_a_rotation_that_is_killed_leaves_everything_as_it_was(database: Database, db, worker) -> None:
    declare(db, compact=True)
    subscribe(db, "s", "t")
    for n in range(100):
        publish(db, "t", f"{n}", key=f"{n % 10}")
    rows = "SELECT string_agg(m::text, ',' ORDER BY m.partition_id, m.\"offset\") FROM outbox.message m"
    before = value(db, rows)
    configure(db, "s", '{"backlog": "expire"}')
    rotating = carry_slowly(database, db)
    value(db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rotating'")
    assert isinstance(rotating.join(), psycopg.errors.AdminShutdown | psycopg.OperationalError)
    assert value(db, rows) == before
    assert losses(db) == []
    assert drain(db, "s", worker) == [f"{n}" for n in range(100)]


def test_a_message_that_was_carried_forward_can_be_cancelled(db, worker) -> None:
    declare(db, compact=True)
    subscribe(db, "s", "t")
    configure(db, "s", '{"backlog": "expire"}')
    write(db, START, 1, key="a")
    rotate(db, START + 7 * DAY)
    assert value(db, "SELECT outbox.cancel(1, 1)") == ["s"]
    assert drain(db, "s", worker) == []


def test_messages_are_carried_forward_or_stay_where_they_are(database: Database, db) -> None:
    declare(db, compact=True)
    write(db, START, "a", key="a")
    reader = database.connect()
    reader.execute("SELECT FROM outbox.message")
    (held_by,) = rotate(db, START + 7 * DAY)
    assert "pid" in str(held_by)
    assert stored(db) == ["a"]


@pytest.mark.parametrize("declares_first", [True, False])
def test_a_topic_that_is_declared_while_its_class_changes_is_written_by_the_new_width(
    database: Database, db, declares_first: bool
) -> None:
    statements = ["SELECT outbox.declare_topic('t')", "SELECT outbox.set_retention('standard', interval '60 days')"]
    one, other = statements if declares_first else reversed(statements)
    first = database.connect()
    first.execute(one)
    later = Later(database.connect(autocommit=True), other).wait_until_it_waits(database)
    first.commit()
    later.join()
    assert value(
        db, "SELECT t.slot_width = r.slot_width FROM outbox.topic t JOIN outbox.retention r ON r.name = 'standard'"
    )
    assert value(db, "SELECT slot_width = interval '10 days' FROM outbox.topic")
