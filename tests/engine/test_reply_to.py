"""The look-up of a reply: what it shows, to whom, and at what cost."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.engine.test_dead_rows import pages
from tests.engine.test_keys import in_slot, set_slots_by_hand
from tests.shop_floor import Database, publish, value

REPLY = (
    "SELECT \"offset\" FROM outbox.publish('r', %s::json, headers => jsonb_build_object('correlation-id', %s::text), "
    "idempotency_key => %s)"
)
FOUND = "SELECT array_agg(payload::text) FROM outbox.reply_to('r', %s)"


def reply(db: psycopg.Connection[Any], payload: str, id: str) -> None:
    value(db, REPLY, payload, id, id)


def test_a_reply_is_found_by_its_topic_and_its_correlation_id(database: Database, db) -> None:
    assert value(db, FOUND, "a") is None
    db.execute("SELECT outbox.declare_topic('r', 3, 2)")
    for id in "abc":
        reply(db, f'"{id}"', id)
    assert [value(db, FOUND, id) for id in "abcd"] == [['"a"'], ['"b"'], ['"c"'], None]
    row = db.execute("SELECT partition, priority, key, headers, body FROM outbox.reply_to('r', 'a')").fetchone()
    assert row is not None
    assert row[1:] == (0, None, {"correlation-id": "a"}, None)
    assert value(db, "SELECT count(*) FROM outbox.reply_to('other', 'a')") == 0


def test_what_is_no_reply_is_not_shown_to_who_guesses_its_idempotency_key(db) -> None:
    value(db, "SELECT outbox.publish('r', '\"secret\"', idempotency_key => 'pay-1')::text")
    value(db, REPLY, '"secret"', "another id", "pay-2")
    for guess in ("pay-1", "pay-2", "another id", None):
        assert value(db, FOUND, guess) is None


def test_a_reply_is_seen_when_it_commits_and_never_if_it_rolls_back(database: Database, db) -> None:
    for end in "rollback", "commit":
        with database.connect() as responder:
            reply(responder, f'"{end}"', "a")
            assert value(db, FOUND, "a") is None
            getattr(responder, end)()
    assert value(db, FOUND, "a") == ['"commit"']


def test_a_reply_of_an_earlier_slot_of_keys_is_found(database: Database) -> None:
    """The requester may begin to wait before a slot changes, and look after it; a clock may be set back."""
    set_slots_by_hand(database)
    with in_slot(database, 15) as db:
        reply(db, "1", "a")
    for slot in (15, 0, 1, 2, 14):
        with in_slot(database, slot) as db:
            assert value(db, FOUND, "a") == ["1"]


def test_a_reply_that_is_not_remembered_any_more_is_not_found(db) -> None:
    reply(db, "1", "a")
    db.execute("UPDATE outbox.deduplication SET expires_at = now()")
    assert value(db, FOUND, "a") is None


def test_a_look_touches_as_many_pages_among_thousands_of_replies_and_dead_rows(database: Database, db) -> None:
    holder = database.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(holder, "SELECT 1")
    reply(db, "1", "first")
    looks = [("outbox.reply_to('r', %s)", id) for id in ("first", "missing")]
    before = [[pages(db, *look) for look in looks] for _ in range(8)][-1]
    with database.connect() as publisher:
        for number in range(3_000):
            reply(publisher, "1", f"id-{number}")
        publisher.rollback()
        for number in range(3_000):
            reply(publisher, "1", f"id-{number}")
        publish(publisher, "other", *map(str, range(1_000)))
        publisher.commit()
    after = [[pages(db, *look) for look in looks] for _ in range(8)][-1]
    assert all(then < now + 12 for then, now in zip(after, before, strict=True)), (before, after)
