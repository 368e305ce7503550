"""Bindings that end, subscriptions that go, and definitions that place cursors: nothing lost, nothing left behind."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import (
    Database,
    Later,
    Pulled,
    drain,
    payloads,
    publish,
    pull,
    register,
    settle,
    subscribe,
    value,
)


def define(db: psycopg.Connection[Any], name: str, bind: object = (), unbind: object = (), **more: Any) -> None:
    """One subscription; patterns, or bindings as dicts."""
    db.execute("SELECT outbox.define(%s::jsonb)", (json.dumps([definition(name, bind, unbind, **more)]),))


def definition(name: str, bind: object = (), unbind: object = (), **more: Any) -> dict[str, Any]:
    def bindings(those: Any) -> list[Any]:
        return [{"pattern": one} if isinstance(one, str) else one for one in those]

    plain = {"name": name, "guarantee": "at-least-once", "max_attempts": 20, "on_failure": None, "start": "first"}
    return {**plain, "bind": bindings(bind), "unbind": bindings(unbind), **more}


def retry(db: psycopg.Connection[Any], worker: int, message: Pulled, delay: float | None = 0) -> None:
    failures = [{"lease": message.lease, "offset": message.offset, "delay": delay}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [message.lease], json.dumps(failures)))


def left(db: psycopg.Connection[Any]) -> list[int]:
    """Rows of bindings, cursors, positions, leases, redeliveries, dead letters."""
    tables = ("binding", "cursor", "position", "lease", "redelivery", "dead_letter")
    return [value(db, f"SELECT count(*) FROM outbox.{table}") for table in tables]


# unbind


def test_an_unbound_topic_is_not_read_any_more_and_others_are(db) -> None:
    subscribe(db, "s", "t", "u")
    publish(db, "t", "a")
    publish(db, "u", "b")
    assert value(db, "SELECT outbox.unbind('s', 't')") == 1
    assert drain(db, "s", register(db)) == ["b"]
    assert left(db)[:3] == [1, 1, 1]
    publish(db, "t", "c")
    assert value(db, "SELECT outbox.adopt(id) FROM outbox.subscription") == 0
    assert drain(db, "s", register(db)) == []


def test_a_cursor_stays_where_it_is_while_another_binding_needs_it(db) -> None:
    subscribe(db, "s", "orders.*", "orders.placed")
    publish(db, "orders.placed", "a")
    publish(db, "orders.paid", "b")
    worker = register(db)
    assert sorted(drain(db, "s", worker)) == ["a", "b"]
    assert value(db, "SELECT outbox.unbind('s', 'orders.*')") == 1
    publish(db, "orders.placed", "c")
    publish(db, "orders.paid", "d")
    assert drain(db, "s", worker) == ["c"]


def test_a_binding_is_ended_as_it_was_bound_and_no_other(db) -> None:
    conditions = "headers => %s, match => 'any', filter => '$.a == 1', alternate => true"
    db.execute("SELECT outbox.subscribe('s')")
    db.execute(f"SELECT outbox.bind('s', 't', {conditions})", ('{"h": "v", "g": null}',))
    db.execute("SELECT outbox.bind('s', 't')")
    publish(db, "t", "a")
    assert value(db, "SELECT outbox.unbind('s', 't', headers => '{\"h\": \"v\"}')") is None
    assert value(db, "SELECT outbox.unbind('s', 'u')") is None
    assert value(db, f"SELECT outbox.unbind('s', 't', {conditions})", '{"g": null, "h": "v"}') == 0, (
        "the other needs it"
    )
    assert value(db, "SELECT outbox.unbind('s', 't', headers => '{}')") == 1
    assert left(db)[:3] == [0, 0, 0]
    with pytest.raises(psycopg.Error) as error:
        db.execute("SELECT outbox.unbind('nobody', 't')")
    assert error.value.sqlstate == "OB004"


@pytest.mark.parametrize("on_failure", [None, "block", "park", "dead-letter"])
def test_what_is_in_hand_or_waits_when_its_topic_is_unbound_ends_as_usual(database: Database, db, on_failure) -> None:
    db.execute("SELECT outbox.declare_topic('t', 4)")
    subscribe(db, "s", "t", on_failure=on_failure)
    for n in range(40):
        publish(db, "t", str(n), key=str(n))
    worker = register(db)
    first = pull(db, "s", worker, 100)
    by_partition = {m.partition_id: [x for x in first if x.partition_id == m.partition_id] for m in first}
    waits, settled, fails, released = by_partition.values()
    for partition in by_partition.values():
        assert len({m.lease for m in partition}) == 1
    lease = waits[0].lease
    failures = [{"lease": lease, "offset": m.offset, "delay": 0} for m in waits]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [lease], json.dumps(failures)))
    assert value(db, "SELECT outbox.unbind('s', 't')") == 4

    settle(db, worker, settled)
    lease = fails[0].lease
    failures = [{"lease": lease, "offset": m.offset, "delay": 0} for m in fails]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [lease], json.dumps(failures)))
    db.execute("SELECT outbox.release(%s, %s)", (worker, [released[0].lease]))
    publish(db, "t", "later")
    again = drain(db, "s", worker)
    assert sorted(again) == sorted(payloads(waits + fails + released))
    assert left(db) == [0, 0, 0, 0, 0, 0]


def test_a_dead_letter_of_an_unbound_topic_can_be_redriven(db) -> None:
    subscribe(db, "s", "t", on_failure="park")
    publish(db, "t", "a", key="k")
    worker = register(db)
    (message,) = pull(db, "s", worker)
    retry(db, worker, message, None)
    db.execute("SELECT outbox.unbind('s', 't')")
    assert value(db, "SELECT outbox.redrive('s')") == 1
    assert drain(db, "s", worker) == ["a"]


def test_a_dead_workers_lease_of_an_unbound_topic_is_recovered(db) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a", "b")
    dead = register(db)
    pull(db, "s", dead)
    db.execute("SELECT outbox.unbind('s', 't')")
    assert value(db, "SELECT outbox.recover(%s)", dead) == 2
    worker = register(db)
    assert drain(db, "s", worker) == ["a", "b"]


def test_bound_again_a_subscription_starts_anew(db) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    worker = register(db)
    assert drain(db, "s", worker) == ["a"]
    db.execute("SELECT outbox.unbind('s', 't')")
    publish(db, "t", "b")
    db.execute("SELECT outbox.bind('s', 't', 'next')")
    publish(db, "t", "c")
    assert drain(db, "s", worker) == ["c"]
    db.execute("SELECT outbox.unbind('s', 't')")
    db.execute("SELECT outbox.bind('s', 't', 'first')")
    assert drain(db, "s", worker) == ["a", "b", "c"]


def test_an_unbind_waits_for_a_pull_and_leaves_no_position(database: Database, db) -> None:
    subscribe(db, "s", "t", "new.*")
    publish(db, "t", "a")
    worker = register(db)
    puller = database.connect()
    assert payloads(pull(puller, "s", worker)) == ["a"]
    unbinding = Later(database.connect(autocommit=True), "SELECT outbox.unbind('s', 't')").wait_until_it_waits(database)
    db.execute("SET lock_timeout = '30s'")
    publish(db, "new.topic", "a publisher that declares a topic waits for neither")
    puller.commit()
    assert unbinding.join() == 1
    assert left(db)[:4] == [1, 1, 1, 1]


def test_a_pull_that_comes_after_an_unbind_finds_nothing(database: Database, db) -> None:
    """It has seen the cursor before, and gets its turn after."""
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    unbinder = database.connect()
    unbinder.execute("SELECT outbox.unbind('s', 't')")
    worker = register(db)
    assert pull(db, "s", worker) == [], "its turn is taken"
    unbinder.rollback()
    assert payloads(pull(db, "s", worker)) == ["a"], "nothing was done"


def test_an_adoption_that_meets_an_unbind_leaves_no_cursor_behind(database: Database, db) -> None:
    subscribe(db, "s", "#", "u")
    unbinder, publisher = database.connect(), database.connect(autocommit=True)
    unbinder.execute("SELECT outbox.unbind('s', '#')")
    declaring = Later(publisher, "SELECT outbox.declare_topic('t')").wait_until_it_waits(database)
    unbinder.commit()
    assert declaring.join() == 1
    assert left(db)[:3] == [1, 0, 0]


def test_an_unbind_gives_up_on_a_transaction_that_declares_topics_and_publishers_go_on(database: Database, db) -> None:
    subscribe(db, "s", "#")
    publisher = database.connect()
    publish(publisher, "t", "a")
    with pytest.raises(psycopg.errors.LockNotAvailable, match="an open transaction is declaring topics"):
        db.execute("SELECT outbox.unbind('s', '#')")
    publish(publisher, "u", "b")
    publisher.commit()
    assert value(db, "SELECT outbox.unbind('s', '#')") == 2


@pytest.mark.parametrize("call", ["unbind('s', 't')", "unsubscribe('s')", "define('[]')"])
def test_an_old_snapshot_is_refused(database: Database, db, call: str) -> None:
    subscribe(db, "s", "t")
    other = database.connect()
    other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.Error) as error:
        other.execute(f"SELECT outbox.{call}")
    assert error.value.sqlstate == "OB002"


# unsubscribe


def test_a_subscription_that_is_removed_leaves_nothing_behind(db) -> None:
    subscribe(db, "s", "t")
    subscribe(db, "other", "t")
    publish(db, "t", *"abc")
    worker = register(db)
    for message in pull(db, "s", worker, 2, lease_size=1)[:1]:
        retry(db, worker, message, 3600)
    db.execute("SELECT outbox.unsubscribe('s')")
    assert left(db) == [1, 1, 1, 0, 0, 0]
    assert drain(db, "other", worker) == ["a", "b", "c"]
    with pytest.raises(psycopg.Error) as error:
        db.execute("SELECT outbox.unsubscribe('s')")
    assert error.value.sqlstate == "OB004"


def test_a_subscription_with_live_workers_or_dead_letters_goes_by_force_only(db) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a", "b")
    worker = value(db, "SELECT outbox.register('host:1', '{s}', '1 hour')")
    with pytest.raises(psycopg.Error, match="run by live workers: host:1") as error:
        db.execute("SELECT outbox.unsubscribe('s')")
    assert error.value.sqlstate == "OB007"
    dead, held = pull(db, "s", worker, lease_size=1)
    retry(db, worker, dead, None)
    db.execute("SELECT outbox.retire(%s)", (worker,))
    with pytest.raises(psycopg.Error, match="has dead letters"):
        db.execute("SELECT outbox.unsubscribe('s')")
    db.execute("SELECT outbox.unsubscribe('s', force => true)")
    assert left(db) == [0, 0, 0, 0, 0, 0]
    with pytest.raises(psycopg.Error) as lost:
        settle(db, worker, [held])
    assert lost.value.sqlstate == "OB001", "and so its effects roll back"


def test_a_removal_waits_for_settlements_and_pulls_and_leaves_nothing_of_theirs(database: Database, db) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a", "b")
    worker = register(db)
    one, other = pull(db, "s", worker, lease_size=1)
    retry(db, worker, other, 0)
    settler, puller = database.connect(), database.connect()
    retry(settler, worker, one, 0)
    assert payloads(pull(puller, "s", worker)) == ["b"]
    removing = Later(database.connect(autocommit=True), "SELECT outbox.unsubscribe('s')").wait_until_it_waits(database)
    settler.commit()
    puller.commit()
    removing.join()
    assert left(db) == [0, 0, 0, 0, 0, 0]


# define


def test_a_definition_brings_about_all_of_a_subscription(db) -> None:
    binding = {"pattern": "t", "headers": {"h": None}, "match": "any", "filter": "$.a == 1", "alternate": True}
    define(db, "s", [binding, "u"], guarantee="exactly-once", max_attempts=3, settings={"rate": 5, "ttl": 60})
    row = db.execute("SELECT guarantee, max_attempts, rate, ttl::text FROM outbox.subscription").fetchone()
    assert row == ("exactly-once", 3, 5, "00:01:00")
    rows = db.execute(
        "SELECT pattern, headers, match, filter, alternate FROM outbox.binding ORDER BY pattern"
    ).fetchall()
    assert rows == [tuple(binding.values()), ("u", None, "all", None, False)]


@pytest.mark.parametrize(
    "bad",
    [
        {"bind": [{"pattern": "t", "filter": "a >"}]},
        {"bind": [{"pattern": "a..b"}]},
        {"start": "soon"},
        {"settings": {"rat": 5}},
        {"name": "a b"},
        {"guarantee": "twice"},
    ],
)
def test_a_definition_is_all_or_nothing(db, bad: dict[str, Any]) -> None:
    orders = [definition("good", ["t"]), {**definition("bad", ["t"]), **bad}]
    with pytest.raises(psycopg.Error):
        db.execute("SELECT outbox.define(%s::jsonb)", (json.dumps(orders),))
    assert value(db, "SELECT count(*) FROM outbox.subscription") == 0
    assert left(db) == [0, 0, 0, 0, 0, 0]


def test_a_defined_subscription_starts_with_the_history_or_with_what_comes_next(database: Database, db) -> None:
    publish(db, "t", "old")
    slow, gone = database.connect(), database.connect()
    publish(slow, "t", "open")
    publish(gone, "t", "gone")
    publish(db, "t", "old too")
    define(db, "historian", ["t"])
    define(db, "newcomer", ["t", "#"], start="next")
    publish(db, "t", "new")
    publish(db, "later", "topic")
    slow.commit()
    gone.rollback()
    worker = register(db)
    assert sorted(drain(db, "historian", worker)) == ["new", "old", "old too", "open"]
    assert sorted(drain(db, "newcomer", worker)) == ["new", "open", "topic"]


def test_a_transaction_that_commits_while_a_definition_is_under_way_is_delivered_whole(database: Database, db) -> None:
    publish(db, "t", "a")
    publisher, blocker = database.connect(), database.connect()
    publish(publisher, "t", "one")
    publish(db, "t", "b")
    blocker.execute("SELECT outbox.subscribe('s')")
    order = json.dumps([definition("s", ["t"], start="next")])
    defining = Later(database.connect(autocommit=True), "SELECT outbox.define(%s::jsonb)", order)
    defining.wait_until_it_waits(database)
    publish(publisher, "t", "two")
    publisher.commit()
    publish(db, "t", "new")
    blocker.rollback()
    defining.join()
    assert sorted(drain(db, "s", register(db))) == ["new", "one", "two"]


def test_cursors_stay_where_they_are_when_a_binding_is_changed(database: Database, db) -> None:
    subscribe(db, "s", "orders.*")
    publish(db, "orders.placed", "a")
    worker = register(db)
    assert drain(db, "s", worker) == ["a"]
    slow = database.connect()
    publish(slow, "orders.placed", "late")
    publish(db, "orders.placed", "b")
    publish(db, "other", "c")
    define(db, "s", ["#"], ["orders.*"], start="next")
    slow.commit()
    assert sorted(drain(db, "s", worker)) == ["b", "late"]
    define(db, "s", ["orders.placed"], ["#"], start="first")
    publish(db, "orders.placed", "d")
    publish(db, "other", "e")
    assert drain(db, "s", worker) == ["d"]
    assert left(db)[:3] == [1, 1, 1]


def test_a_definition_that_removes_waits_for_pulls_before_publishers_could_wait_for_it(database: Database, db) -> None:
    for name in ("gone", "narrow", "ordered"):
        subscribe(db, name, "t")
    db.execute("SELECT outbox.bind('gone', 'new.*')")
    publish(db, "t", "a")
    worker, puller = register(db), database.connect()
    pull(puller, "gone", worker)
    orders = [
        {"name": "gone", "remove": True, "force": True},
        definition("narrow", ["u"], ["t"]),
        definition("ordered", on_failure="park"),
    ]
    connection = database.connect(autocommit=True)
    defining = Later(connection, "SELECT outbox.define(%s::jsonb)", json.dumps(orders)).wait_until_it_waits(database)
    db.execute("SET lock_timeout = '30s'")
    publish(db, "new.topic", "a")
    puller.commit()
    defining.join()
    names = db.execute("SELECT name, on_failure FROM outbox.subscription ORDER BY name").fetchall()
    assert names == [("narrow", None), ("ordered", "park")]
    assert left(db) == [2, 1, 1, 0, 0, 0]


def test_a_fair_subscription_can_be_defined_as_ordered_and_back(db) -> None:
    define(db, "s", ["t"], settings={"fair": True})
    define(db, "s", on_failure="park", settings={"fair": False})
    define(db, "s", settings={"fair": True})
    assert db.execute("SELECT fair, on_failure FROM outbox.subscription").fetchone() == (True, None)
