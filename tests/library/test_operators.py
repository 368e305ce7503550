"""`outbox subscriptions` and `outbox topics`: what operators look at and change."""

from __future__ import annotations

import json

import pytest

from tests.shop_floor import Database, drain, outbox, publish, register, subscribe, value


class Operator:
    def __init__(self, database: Database) -> None:
        self.database = database

    def __call__(self, *arguments: str, code: int = 0) -> str:
        result = outbox(self.database.url, *arguments)
        assert result.returncode == code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr


@pytest.fixture
def operator(one_database: Database) -> Operator:
    return Operator(one_database)


def test_topics_are_listed_shown_and_declared(operator: Operator) -> None:
    assert "no topics" in operator("topics", "list")
    assert (
        operator("topics", "declare", "t", "--partitions", "2", "--deduplication-window", "1h") == "topic t created\n"
    )
    assert operator("topics", "declare", "t", "--partitions", "2", "--deduplication-window", "1h") == (
        "topic t is there as it is\n"
    )
    assert "changed" in operator("topics", "declare", "t", "--partitions", "2", "--deduplication-window", "2d")
    refused = operator("topics", "declare", "t", "--partitions", "3", code=1)
    assert "partitions: 2 → 3" in refused
    assert "outbox topics alter" in refused
    assert operator("topics", "alter", "t", "--partitions", "3") == "topic t altered\n"
    assert operator("topics", "alter", "t", "--partitions", "3") == "topic t is so already\n"
    assert "OB" not in operator("topics", "alter", "u", "--partitions", "3", code=1)
    assert operator("topics", "alter", "t", "--partitions", "2") == "topic t altered\n"
    assert "'gold'" in operator("topics", "declare", "u", "--retention", "gold", code=1)
    assert "is not a duration" in operator("topics", "declare", "u", "--deduplication-window", "soon", code=2)
    expected = {
        "name": "t",
        "partitions": 2,
        "max_priority": 0,
        "retention": "standard",
        "compact": False,
        "deduplication_window": "2d",
        "offsets": 0,
        "subscriptions": 0,
    }
    assert json.loads(operator("topics", "show", "t", "--json")) == expected
    assert json.loads(operator("topics", "list", "--json")) == [expected]
    assert "standard" in operator("topics", "list")
    assert "partitions  2" in operator("topics", "show", "t")
    assert "'u' does not exist" in operator("topics", "show", "u", code=1)


def test_a_subscription_is_bound_shown_and_unbound(operator: Operator) -> None:
    db = operator.database.connect(autocommit=True)
    publish(db, "t", "a")
    subscribe(db, "s")
    conditions = ("-H", "country=DE", "-H", "vip", "--match", "any", "--filter", "$.total > 100", "--alternate")
    described = "binding t with any of country=DE, vip where $.total > 100 alternate"
    assert (
        operator("subscriptions", "bind", "s", "t", *conditions, "--start", "next")
        == f"s: {described}, 1 new cursors\n"
    )
    shown = json.loads(operator("subscriptions", "show", "s", "--json"))
    assert shown["bindings"] == [
        {
            "topic": "t",
            "headers": {"country": "DE", "vip": True},
            "match": "any",
            "filter": "$.total > 100",
            "alternate": True,
        }
    ]
    assert "[subscriptions.s]" in operator("subscriptions", "show", "s")
    assert "s has no binding t: `outbox subs" in operator("subscriptions", "unbind", "s", "t", code=1)
    assert operator("subscriptions", "unbind", "s", "t", *conditions) == f"s: no {described} any more, 1 cursors went\n"
    assert value(db, "SELECT count(*) FROM outbox.cursor") == 0
    assert "not a predicate" in operator("subscriptions", "bind", "s", "t", "--filter", "total >", code=1)
    assert "is not a topic or pattern" in operator("subscriptions", "bind", "s", "a..b", code=1)
    assert "'x' does not exist" in operator("subscriptions", "show", "x", code=1)
    assert '"x" does not exist' in operator("subscriptions", "bind", "x", "t", code=1)


def test_a_subscription_is_configured(operator: Operator) -> None:
    subscribe(operator.database.connect(autocommit=True), "s")
    assert (
        operator("subscriptions", "configure", "s", "ttl=1h", "rate=2.5", "burst=3", "exclusive=true") == "s: changed\n"
    )
    assert operator("subscriptions", "configure", "s", "ttl=60m") == "s: nothing to change\n"
    assert "changed" in operator("subscriptions", "configure", "s", "rate=default", "expired=dead-letter")
    shown = json.loads(operator("subscriptions", "show", "s", "--json"))
    assert {"ttl": "1h", "burst": 3, "exclusive": True, "expired": "dead-letter"}.items() <= shown.items()
    assert "rate" not in shown
    for setting, says in (
        ("ttl=soon", "ttl: 'soon' is not a duration"),
        ("color=red", "there is no setting 'color'; there are ttl, "),
        ("ttl", "'ttl' is not a setting: name=value"),
        ("exclusive=yes", "'yes' is not true or false"),
        ("burst=x", "burst: invalid literal"),
    ):
        assert says in operator("subscriptions", "configure", "s", setting, code=2)
    assert "can't be configured so" in operator("subscriptions", "configure", "s", "rate=-1", code=1)


def test_a_subscription_is_deleted_after_a_question(operator: Operator) -> None:
    db = operator.database.connect(autocommit=True)
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    assert "s" in operator("subscriptions", "list")
    assert json.loads(operator("subscriptions", "list", "--json"))[0]["lag"] == 1
    operator("subscriptions", "delete", "s", code=1)
    assert drain(db, "s", register(db)) == ["a"]
    value(db, "SELECT outbox.register('host:1', '{s}', '1 hour')")
    assert "run by live workers: host:1 (Stop them first, or force it.)" in operator(
        "subscriptions", "delete", "s", "--yes", code=1
    )
    assert operator("subscriptions", "delete", "s", "--yes", "--force") == "s: removed\n"
    assert "no subscriptions" in operator("subscriptions", "list")
