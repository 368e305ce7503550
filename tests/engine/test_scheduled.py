"""Messages to come: published at their time, once, whoever looks; each of them apart from the others."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.test_dead_rows import pages
from tests.shop_floor import Database, Later, drain, publish, register, subscribe, value

SOON, LONG_AGO = "clock_timestamp() + interval '1 hour'", "clock_timestamp() - interval '1 hour'"


def later(db: psycopg.Connection[Any], payload: str, due: str = LONG_AGO, topic: str = "t", more: str = "") -> int:
    return int(value(db, f"SELECT outbox.publish_later(%s, to_json(%s::text), {due}{more})", topic, payload))


def publish_due(db: psycopg.Connection[Any], limit: int = 100, **more: Any) -> tuple[int, datetime | None]:
    named = "".join(f", {name} => %s" for name in more)
    row = db.execute(f"SELECT * FROM outbox.publish_due(%s{named})", (limit, *more.values())).fetchone()
    assert row is not None
    return row[0], row[1]


def waiting(db: psycopg.Connection[Any]) -> int:
    return int(value(db, "SELECT count(*) FROM outbox.scheduled"))


def published(db: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in db.execute('SELECT payload FROM outbox.message ORDER BY partition_id, "offset"')]


def test_a_message_is_published_when_it_is_due_and_not_before(db) -> None:
    later(db, "later", SOON)
    later(db, "now")
    count, next_due = publish_due(db)
    assert (count, published(db), waiting(db)) == (1, ["now"], 1)
    assert next_due == value(db, "SELECT due_at FROM outbox.scheduled")
    count, next_due = publish_due(db, now=next_due)
    assert (count, next_due, published(db)) == (1, None, ["now", "later"])
    assert publish_due(db) == (0, None)


def test_what_was_published_later_arrives_whole(db) -> None:
    subscribe(db, "s", "t")
    db.execute("SELECT outbox.declare_topic('t', max_priority => 3)")
    db.execute(
        "SELECT outbox.publish_later('t', NULL, now(), 'key', '{\"a\": \"b\"}', 2, '\\x00ff', idempotency_key => 'k')"
    )
    assert publish_due(db)[0] == 1
    row = db.execute(
        "SELECT key, headers, body, payload, priority "
        "FROM outbox.message JOIN outbox.partition p ON p.id = partition_id"
    ).fetchone()
    assert row == ("key", {"a": "b"}, b"\x00\xff", None, 2)
    db.execute("SELECT outbox.publish('t', '1', idempotency_key => 'k')")
    assert value(db, "SELECT count(*) FROM outbox.message") == 1, "its idempotency key holds"


def test_nothing_is_stored_by_a_transaction_that_rolls_back(database: Database, db) -> None:
    business = database.connect()
    later(business, "x")
    business.rollback()
    assert (waiting(db), publish_due(db)[0]) == (0, 0)


def test_what_can_not_be_published_is_refused_at_once(database: Database, db) -> None:
    for bad, state in (
        ("'t', '1', now(), priority => 10", "OB007"),
        ("'t', '1', NULL", "OB007"),
        ("'t', '1', 'infinity'", "OB007"),
        ("'t', '1', now(), ttl => interval '0'", "OB007"),
        ("'not a topic', '1', now()", "23514"),
        ("'t', NULL, now()", "23514"),
    ):
        with pytest.raises(psycopg.Error) as error:
            db.execute(f"SELECT outbox.publish_later({bad})")
        assert error.value.sqlstate == state, bad
    database.switch_off_declaring()
    with database.connect() as strict, pytest.raises(psycopg.Error) as error:
        later(strict, "x", topic="unheard.of")
    assert error.value.sqlstate == "OB006"


def test_one_that_can_not_be_published_keeps_no_other_from_it(db) -> None:
    """Here a constraint refuses it, as any error in publishing may."""
    ids = [later(db, payload) for payload in ("first", "bad", "last")]
    db.execute("ALTER TABLE outbox.message ADD CHECK (payload::text <> '\"bad\"')")
    assert publish_due(db)[0] == 2
    assert published(db) == ["first", "last"]
    row = db.execute(
        "SELECT id, attempts, error, due_at BETWEEN now() + '4 s' AND now() + '6 s' FROM outbox.scheduled"
    ).fetchone()
    assert row is not None
    assert (row[0], row[1], row[3]) == (ids[1], 1, True)
    assert row[2].startswith("23514: ")
    for _ in range(9):
        publish_due(db, now=datetime.now(UTC) + timedelta(hours=1))
    assert value(
        db, "SELECT attempts = 10 AND due_at BETWEEN now() + '4 min' AND now() + '6 min' FROM outbox.scheduled"
    )
    db.execute("ALTER TABLE outbox.message DROP CONSTRAINT message_payload_check")
    assert publish_due(db, now=datetime.now(UTC) + timedelta(hours=1)) == (1, None)


def test_one_whose_idempotency_key_is_being_published_holds_up_nobody(database: Database, db) -> None:
    publish(db, "t", "declared")
    other = database.connect()
    other.execute("SELECT outbox.publish('t', '1', idempotency_key => 'k')")
    later(db, "waits", more=", idempotency_key => 'k'")
    later(db, "free")
    assert publish_due(db)[0] == 1
    assert value(db, "SELECT error FROM outbox.scheduled").startswith("55P03: ")
    other.commit()
    assert publish_due(db, now=datetime.now(UTC) + timedelta(hours=1)) == (1, None)
    assert value(db, "SELECT count(*) FROM outbox.message") == 3, "it was published already, under that key"


def test_many_that_publish_at_once_publish_each_message_once(database: Database, db) -> None:
    subscribe(db, "s", "t")
    db.execute(f"SELECT outbox.publish_later('t', to_json(n), {LONG_AGO}) FROM generate_series(1, 300) n")
    first, second = database.connect(), database.connect()
    assert publish_due(first, 100)[0] == 100
    assert publish_due(second, 300)[0] == 200, "what the first has locked is skipped"
    first.rollback()
    second.commit()
    assert publish_due(db, 300)[0] == 100
    assert sorted(map(int, drain(db, "s", register(db)))) == list(range(1, 301))


def test_a_full_batch_says_that_there_may_be_more(db) -> None:
    for payload in "abc":
        later(db, payload)
    now = datetime.now(UTC)
    assert publish_due(db, 2, now=now) == (2, now)
    assert publish_due(db, 2, now=now) == (1, None)
    assert published(db) == ["a", "b", "c"]


def test_a_look_at_the_last_moments_leaves_what_is_overdue_to_a_full_one(db) -> None:
    later(db, "overdue")
    later(db, "due", "clock_timestamp()")
    assert publish_due(db, overdue=False)[0] == 1
    assert publish_due(db)[0] == 1
    assert published(db) == ["due", "overdue"]


def test_a_cancelled_message_is_not_published(db) -> None:
    id = later(db, "x")
    assert value(db, "SELECT outbox.cancel_scheduled(%s)", id)
    assert not value(db, "SELECT outbox.cancel_scheduled(%s)", id)
    assert publish_due(db) == (0, None)


def test_a_cancel_that_rolls_back_cancels_nothing(database: Database, db) -> None:
    id = later(db, "x")
    business = database.connect()
    assert value(business, "SELECT outbox.cancel_scheduled(%s)", id)
    assert publish_due(db)[0] == 0, "it waits for the transaction that cancels it, and holds up nobody"
    business.rollback()
    assert publish_due(db)[0] == 1


@pytest.mark.parametrize("change", ["outbox.cancel_scheduled(%s)", "outbox.edit_scheduled(%s, payload => '2')"])
def test_what_is_just_being_published_can_not_be_taken_back(database: Database, db, change: str) -> None:
    id = later(db, "x")
    publisher = database.connect()
    assert publish_due(publisher)[0] == 1
    changing = Later(database.connect(autocommit=True), f"SELECT {change}", id).wait_until_it_waits(database)
    publisher.commit()
    assert changing.join() is False
    assert published(db) == ["x"]


@pytest.mark.parametrize("change", ["outbox.cancel_scheduled(%s)", "outbox.edit_scheduled(%s, payload => '2')"])
def test_what_could_not_be_published_after_all_can_be_taken_back(database: Database, db, change: str) -> None:
    id = later(db, "x")
    publisher = database.connect()
    assert publish_due(publisher)[0] == 1
    changing = Later(database.connect(autocommit=True), f"SELECT {change}", id).wait_until_it_waits(database)
    publisher.rollback()
    assert changing.join() is True
    publish_due(db)
    assert published(db) in ([], [2])


def test_an_edited_message_is_published_as_it_was_edited(db) -> None:
    id = later(db, "x", SOON)
    db.execute("ALTER TABLE outbox.message ADD CHECK (payload::text <> '\"x\"')")
    publish_due(db, now=datetime.now(UTC) + timedelta(hours=2))
    edit = "SELECT outbox.edit_scheduled(%s, now(), key => 'k', headers => '{\"h\": \"v\"}', body => 'raw')"
    assert value(db, edit, id)
    assert value(db, "SELECT attempts = 0 AND error IS NULL AND payload IS NULL FROM outbox.scheduled")
    assert value(db, "SELECT outbox.edit_scheduled(%s, payload => '2')", id)
    assert publish_due(db)[0] == 1
    assert db.execute("SELECT payload, body, key, headers FROM outbox.message").fetchone() == (2, None, "k", {"h": "v"})
    assert not value(db, "SELECT outbox.edit_scheduled(%s, now())", id), "it is published"
    with pytest.raises(psycopg.Error, match="not both"):
        db.execute("SELECT outbox.edit_scheduled(1, payload => '1', body => 'x')")


def test_a_message_that_is_put_off_while_somebody_looks_is_not_published(database: Database, db) -> None:
    id = later(db, "x")
    business = database.connect()
    assert value(business, f"SELECT outbox.edit_scheduled(%s, {SOON})", id)
    assert publish_due(db)[0] == 0
    business.commit()
    assert publish_due(db)[0] == 0


def test_a_look_touches_no_more_pages_after_thousands_of_dead_rows(database: Database, db) -> None:
    look = "outbox.publish_due(100, overdue => false)"
    holder = database.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(holder, "SELECT 1")

    def churn(messages: int) -> None:
        db.execute(f"SELECT outbox.publish_later('t', '1', {LONG_AGO}) FROM generate_series(1, %s)", (messages,))
        while publish_due(db, 100)[0]:
            pass

    churn(50)
    later(db, "x", SOON)
    before = [pages(db, look) for _ in range(8)][-1]
    churn(5000)
    after = [pages(db, look) for _ in range(8)][-1]
    assert value(db, "SELECT pg_relation_size('outbox.scheduled') / 8192") > 40, "no dead rows: this tests nothing"
    assert after <= before + 12
