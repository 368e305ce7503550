"""Bindings with conditions: which messages a subscription gets, and what `who_gets` says of it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, drain, payloads, publish, pull, register, settle, subscribe, value


@pytest.fixture
def worker(db) -> int:
    return register(db)


def bind(db: psycopg.Connection[Any], subscription: str, pattern: str, **conditions: Any) -> None:
    named = "".join(f", {name} => %s" for name in conditions)
    db.execute(f"SELECT outbox.bind(%s, %s{named})", (subscription, pattern, *conditions.values()))


def send(db: psycopg.Connection[Any], name: str, topic: str = "t", payload: Any = None, **headers: str) -> None:
    """A message whose payload's `name` says which it is."""
    content = {"name": name, **(payload or {})}
    db.execute(
        "SELECT outbox.publish(%s, %s, headers => %s)",
        (topic, json.dumps(content), json.dumps(headers) if headers else None),
    )


def names(db: psycopg.Connection[Any], subscription: str, worker: int, limit: int = 100) -> list[str]:
    return [payload["name"] for payload in drain(db, subscription, worker, limit)]


@pytest.mark.parametrize(
    ("headers", "match", "expected"),
    [
        ({"format": "pdf", "type": "report"}, "all", ["both", "more"]),
        ({"format": "pdf", "type": "report"}, "any", ["both", "more", "pdf", "report"]),
        ({"urgent": None}, "all", ["urgent"]),
        ({"urgent": None, "type": "log"}, "any", ["log", "urgent"]),
    ],
)
def test_headers_choose(db, worker, headers: dict[str, str | None], match: str, expected: list[str]) -> None:
    subscribe(db, "s")
    bind(db, "s", "t", headers=json.dumps(headers), match=match)
    send(db, "none")
    send(db, "both", format="pdf", type="report")
    send(db, "more", format="pdf", type="report", size="9")
    send(db, "pdf", format="pdf")
    send(db, "report", type="report", format="zip")
    send(db, "log", type="log")
    send(db, "urgent", urgent="at once")
    assert sorted(names(db, "s", worker)) == expected


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("$.total > 100", ["big"]),
        ('$.total <= 100 && $.country == "DE"', ["small"]),
        ('exists($.lines[*] ? (@.sku == "A1"))', ["lines"]),
        ('$.name like_regex "^[bs]"', ["big", "small"]),
        ('strict $.lines[1].sku == "B"', ["lines"]),
    ],
)
def test_a_filter_on_the_payload_chooses(db, worker, filter: str, expected: list[str]) -> None:
    subscribe(db, "s")
    bind(db, "s", "t", filter=filter)
    send(db, "big", payload={"total": 101, "country": "DE"})
    send(db, "small", payload={"total": 3, "country": "DE"})
    send(db, "text", payload={"total": "101"})
    send(db, "lines", payload={"lines": [{"sku": "A1"}, {"sku": "B"}]})
    db.execute("SELECT outbox.publish('t', NULL, body => '\\x00ff')")
    assert sorted(names(db, "s", worker)) == expected


def test_a_payload_that_jsonb_cannot_hold_fits_no_filter_and_stops_nobody(db, worker) -> None:
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.total > 1")
    db.execute("""SELECT outbox.publish('t', '{"total": 2, "name": "\\u0000"}')""")
    db.execute("""SELECT outbox.publish('t', '{"total": 1e999999, "name": "huge"}')""")
    send(db, "after", payload={"total": 2})
    assert names(db, "s", worker) == ["after"]


@pytest.mark.parametrize(
    ("filter", "poison"),
    [
        ('$.t.datetime() < "2026-01-01T00:00:00+01:00".datetime()', {"t": "2025-01-01T00:00:00"}),
        ("$.a == 1 && $.b > $x", {"a": 1, "b": 2}),
        ("$.a / $.b > 1", {"a": 1, "b": 0}),
    ],
)
def test_a_filter_that_fails_on_a_message_stops_nobody(db, worker, filter: str, poison: dict[str, Any]) -> None:
    subscribe(db, "s", "other")
    bind(db, "s", "t", filter=filter)
    subscribe(db, "rest")
    bind(db, "rest", "t", alternate=True)
    send(db, "poison", payload=poison)
    send(db, "next", topic="other")
    assert names(db, "s", worker) == ["next"]
    assert names(db, "rest", worker) == ["poison"]
    assert db.execute("SELECT count(*) FROM outbox.who_gets('t', NULL, %s)", (json.dumps(poison),)).fetchone() == (3,)


@pytest.mark.parametrize("filter", ["$.total >", "$.total", "total > 1", "$.a ? (@ > 1)", "$.a > $x"])
def test_a_filter_that_is_no_predicate_is_refused(db, filter: str) -> None:
    subscribe(db, "s")
    with pytest.raises(psycopg.Error, match="is not a predicate") as caught:
        bind(db, "s", "t", filter=filter)
    assert caught.value.sqlstate == "OB007"


def test_one_binding_that_fits_is_enough_and_the_message_comes_once(db, worker) -> None:
    subscribe(db, "s", "other")
    bind(db, "s", "t", headers='{"a": "1"}')
    bind(db, "s", "t", filter="$.total > 1")
    bind(db, "s", "#", headers='{"z": "1"}')
    send(db, "a", a="1")
    send(db, "filtered", payload={"total": 5})
    send(db, "both", payload={"total": 5}, a="1", z="1")
    send(db, "neither", payload={"total": 0})
    send(db, "other topic", topic="other")
    assert sorted(names(db, "s", worker)) == ["a", "both", "filtered", "other topic"]


def test_a_binding_without_conditions_takes_all_of_its_topics(db, worker) -> None:
    subscribe(db, "s", "t")
    bind(db, "s", "t", filter="$.total > 1")
    send(db, "any")
    assert names(db, "s", worker) == ["any"]


def test_what_is_passed_over_is_read_once_and_stays_passed_over(db, worker) -> None:
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.total > 1")
    for n in range(50):
        send(db, str(n), payload={"total": n % 2 * 2})
    assert names(db, "s", worker) == [str(n) for n in range(1, 50, 2)]
    assert value(db, "SELECT lag FROM outbox.lag") == 0
    assert pull(db, "s", worker) == []


def test_a_pull_of_one_finds_the_one_that_fits_among_many(db, worker) -> None:
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.total > 1")
    for n in range(300):
        send(db, str(n), payload={"total": 2 * (n in (200, 201))})
    first = pull(db, "s", worker, 1)
    assert [payload["name"] for payload in payloads(first)] == ["200"]
    settle(db, worker, first)
    assert names(db, "s", worker, 1) == ["201"]


def test_a_pull_that_passed_over_all_it_read_says_that_there_may_be_more(db, worker) -> None:
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.total > 1")
    db.execute("SELECT outbox.publish_many('t', array_fill('{}'::json, ARRAY[1500]))")
    send(db, "last", payload={"total": 2})
    rows = db.execute("SELECT offsets, again_in FROM outbox.pull_batches('s', %s, 10)", (worker,)).fetchall()
    assert rows
    assert all(row == ([], 0.0) for row in rows)
    assert names(db, "s", worker) == ["last"]
    assert db.execute("SELECT * FROM outbox.pull_batches('s', %s, 10)", (worker,)).fetchall() == []


def test_a_message_that_commits_late_is_judged_too(database: Database, db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('t')")
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.total > 1")
    slow = database.connect()
    for n in range(6):
        send(slow, f"late {n}", payload={"total": n % 2 * 2})
    send(db, "now", payload={"total": 2})
    assert names(db, "s", worker) == ["now"]
    slow.commit()
    assert names(db, "s", worker, 1) == ["late 1", "late 3", "late 5"]
    assert names(db, "s", worker) == []


def test_more_late_messages_than_a_pull_reads_are_all_judged(database: Database, db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('t')")
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.total > 1")
    slow = database.connect()
    slow.execute("SELECT outbox.publish_many('t', array_fill('{}'::json, ARRAY[2500]))")
    send(slow, "late", payload={"total": 2})
    send(db, "now", payload={"total": 2})
    assert names(db, "s", worker) == ["now"]
    slow.commit()
    found = []
    for _ in range(5):
        pulled = pull(db, "s", worker, 1)
        settle(db, worker, pulled)
        found += [payload["name"] for payload in payloads(pulled)]
    assert found == ["late"]


def test_an_alternate_gets_what_nobody_else_takes(db, worker) -> None:
    subscribe(db, "s", "orders.*")
    subscribe(db, "filtered")
    bind(db, "filtered", "invoices", filter="$.total > 1")
    subscribe(db, "rest")
    bind(db, "rest", "#", alternate=True)
    subscribe(db, "archive")
    bind(db, "archive", "#", alternate=True)
    send(db, "order", topic="orders.placed")
    send(db, "big", topic="invoices", payload={"total": 2})
    send(db, "small", topic="invoices", payload={"total": 1})
    send(db, "unread", topic="nobody.reads.it")
    assert sorted(names(db, "rest", worker)) == sorted(names(db, "archive", worker)) == ["small", "unread"]
    assert names(db, "filtered", worker) == ["big"]


def test_a_new_topic_that_matches_is_read_from_its_first_message(db, worker) -> None:
    subscribe(db, "s")
    bind(db, "s", "shop.#", headers='{"a": "1"}')
    send(db, "first", topic="shop.orders.placed", a="1")
    send(db, "other", topic="shop", a="2")
    assert names(db, "s", worker) == ["first"]


def test_who_gets_says_why(db) -> None:
    subscribe(db, "all", "orders.#")
    subscribe(db, "big")
    bind(db, "big", "orders.*", filter="$.total > 100")
    bind(db, "big", "invoices")
    subscribe(db, "pdf")
    bind(db, "pdf", "#", headers='{"format": "pdf"}', match="any")
    subscribe(db, "rest")
    bind(db, "rest", "#", alternate=True)
    rows = db.execute("""SELECT * FROM outbox.who_gets('orders.placed', '{"a": "b"}', '{"total": 5}')""").fetchall()
    assert rows == [
        ("all", "orders.#", True, "the topic matches"),
        ("big", "invoices", False, "the topic does not match"),
        ("big", "orders.*", False, "$.total > 100 is not true for the payload"),
        ("pdf", "#", False, 'it has not any of the headers {"format": "pdf"}'),
        ("rest", "#", False, "it is an alternate, and all takes it"),
    ]
    rows = db.execute("""SELECT * FROM outbox.who_gets('x', '{"format": "pdf"}')""").fetchall()
    assert [row[:3] for row in rows if row[2]] == [("pdf", "#", True)]
    assert value(db, "SELECT count(*) FROM outbox.message") == 0


def test_who_gets_and_pull_agree(db, worker) -> None:
    for number, condition in enumerate(({}, {"headers": '{"a": "1"}'}, {"filter": "$.n > 1"}, {"alternate": True})):
        subscribe(db, f"s{number}")
        for pattern in ("a.*", "#.c") if number else ("a.b",):
            bind(db, f"s{number}", pattern, **condition)
    for topic in ("a.b", "a.c", "x.c", "c"):
        for n in (1, 2):
            for headers in ({}, {"a": "1"}, {"a": "2"}):
                send(db, "m", topic, {"n": n}, **headers)
                got = {f"s{i}" for i in range(4) if names(db, f"s{i}", worker)}
                said = db.execute(
                    "SELECT DISTINCT subscription FROM outbox.who_gets(%s, %s, %s) WHERE takes",
                    (topic, json.dumps(headers), json.dumps({"n": n})),
                )
                assert got == {name for (name,) in said}, (topic, n, headers)


def test_an_unfiltered_reader_is_not_touched_by_the_conditions_of_others(db, worker) -> None:
    subscribe(db, "plain", "t")
    subscribe(db, "s")
    bind(db, "s", "t", filter="$.x == 1")
    publish(db, "t", "a")
    assert drain(db, "plain", worker) == ["a"]
    assert db.execute("SELECT name, is_filtered FROM outbox.subscription ORDER BY name").fetchall() == [
        ("plain", False), ("s", True)]  # fmt: skip
