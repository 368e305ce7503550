"""What a subscription keeps of another log: where it stands, what it has done, and what takes a detour into ours."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Later, pull, register, settle, subscribe, value

BEGIN = "SELECT b.* FROM outbox.begin_feed('s', 't/0', %s) AS b"
MOVE = "SELECT outbox.move_feed('s', 't/0', %s, %s, %s, 'from.s', %s, true)"


def detoured(payload: int | None, key: str | None = None, **more: Any) -> dict[str, Any]:
    error = {"class": "ValueError", "text": "broken"}
    one = {"number": 1, "key": key, "headers": {"a": "b"}, "payload": payload, "published_at": 1.5, "delay": 0}
    return {**one, "reason": None, "charged": True, "error": error, **more}


def move(
    db: psycopg.Connection[Any], step: tuple[int | None, int | None] = (None, None), keys: Any = (), detours: Any = None
) -> None:
    db.execute(MOVE, (*step, list(keys), json.dumps(detours) if detours else None))


@pytest.fixture
def feeding(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    db.autocommit = True
    db.execute("SELECT outbox.declare_topic('from.s', 8)")
    return db


def test_who_begins_hears_how_many_died_where_it_stands(feeding: psycopg.Connection[Any]) -> None:
    db = feeding
    assert db.execute(BEGIN, (None,)).fetchone() == (None, None)
    assert db.execute(BEGIN, (5,)).fetchone() == (5, 0)
    assert [db.execute(BEGIN, (9,)).fetchone() for _ in range(2)] == [(5, 1), (5, 2)]
    move(db, (5, 6))
    assert db.execute(BEGIN, (None,)).fetchone() == (6, 1)
    db.execute("SELECT outbox.end_feed('s', ARRAY['t/0'], ARRAY[6])")
    assert db.execute(BEGIN, (None,)).fetchone() == (6, 0)


@pytest.mark.parametrize("step", [(4, 7), (6, 7), (5, 5)])
def test_who_stands_elsewhere_is_refused_with_all_that_it_did(
    feeding: psycopg.Connection[Any], step: tuple[int, int]
) -> None:
    subscribe(feeding, "s", "from.s")
    feeding.execute(BEGIN, (5,))
    with pytest.raises(psycopg.Error) as caught:
        move(feeding, step, ["a"], [detoured(1)])
    assert caught.value.sqlstate == "OB001"
    assert value(feeding, "SELECT count(*) FROM outbox.redelivery") == 0
    assert list(feeding.execute("SELECT outbox.known_once('from:s', ARRAY['a'])")) == []


def test_a_key_is_done_once_and_who_comes_meanwhile_waits(feeding: psycopg.Connection[Any], database: Database) -> None:
    first, second = database.connect(), database.connect()
    move(first, keys=["b", "a", "b"])
    later = Later(second, "SELECT outbox.move_feed('s', 't/0', NULL, NULL, ARRAY['c', 'a'], 'from.s', NULL, true)")
    later.wait_until_it_waits(database)
    first.commit()
    assert later.join().sqlstate == "OB001"
    second.rollback()
    known = {key for (key,) in feeding.execute("SELECT outbox.known_once('from:s', ARRAY['a', 'b', 'c'])")}
    assert known == {"a", "b"}


def test_what_takes_a_detour_is_tried_a_second_time_with_its_history(feeding: psycopg.Connection[Any]) -> None:
    subscribe(feeding, "s", "from.s")
    move(feeding, detours=[detoured(1), detoured(2, charged=False, error=None), detoured(None, body="AP8=")])
    found = pull(feeding, "s", register(feeding))
    assert [(one.attempt, one.payload, one.redelivered) for one in found] == [
        (2, 1, True),
        (1, 2, True),
        (2, None, True),
    ]
    rows = feeding.execute(
        "SELECT body, published_at::text, errors -> 0 ->> 'class' FROM outbox.redelivery ORDER BY \"offset\""
    )
    assert rows.fetchall() == [
        (None, "1970-01-01 00:00:01.5+00", "ValueError"),
        (None, "1970-01-01 00:00:01.5+00", None),
        (b"\x00\xff", "1970-01-01 00:00:01.5+00", "ValueError"),
    ]


def test_what_has_no_other_try_is_a_dead_letter(feeding: psycopg.Connection[Any]) -> None:
    subscribe(feeding, "s", "from.s")
    move(feeding, detours=[detoured(1, delay=None, reason="rejected")])
    letter = feeding.execute("SELECT attempt, reason, error_class, payload FROM outbox.dead_letter").fetchone()
    assert letter == (1, "rejected", "ValueError", 1)


def test_those_of_a_key_stay_in_order_on_their_detour(feeding: psycopg.Connection[Any]) -> None:
    db = feeding
    subscribe(db, "s", "from.s", on_failure="park")
    move(db, detours=[detoured(1, "k"), detoured(2, "k", charged=False, error=None), detoured(3, "other")])
    assert {lane for (lane,) in db.execute("SELECT outbox.detoured_keys('s', 'from.s', 1)")} == {"k", "other"}
    assert list(db.execute("SELECT outbox.detoured_keys('s', 'from.s', 2)")) == []
    worker, order = register(db), []
    move(db, detours=[detoured(4, "k", charged=False, error=None)])
    while found := pull(db, "s", worker):
        order.append([one.payload for one in found])
        settle(db, worker, found)
    assert order == [[1, 3], [2], [4]]
    assert list(db.execute("SELECT outbox.detoured_keys('s', 'from.s', 1)")) == []
    move(db, detours=[detoured(5, "k", charged=False, error=None)])
    assert [one.payload for one in pull(db, "s", worker)] == [5]
