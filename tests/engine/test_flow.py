"""What holds back, passes over or hurries messages: times to live, rates, backlogs, pauses, owners, fairness."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Later, drain, payloads, publish, pull, register, settle, subscribe, value


@pytest.fixture
def worker(db) -> int:
    return register(db)


def configure(db: psycopg.Connection[Any], **settings: Any) -> None:
    db.execute("SELECT outbox.configure('s', %s)", (json.dumps(settings),))


def bound(db: psycopg.Connection[Any], *, partitions: int = 1, max_priority: int = 0, **settings: Any) -> None:
    """A subscription `s` on a topic `t`."""
    db.execute("SELECT outbox.declare_topic('t', %s, %s)", (partitions, max_priority))
    subscribe(db, "s", "t")
    configure(db, **settings)


def make_older(db: psycopg.Connection[Any], by: str) -> None:
    """As if all that waits had been published so much earlier."""
    for table in ("message", "redelivery"):
        db.execute(
            f"UPDATE outbox.{table} SET published_at = published_at - age, expires_at = expires_at - age "
            "FROM (SELECT %s::interval AS age) AS t",
            (by,),
        )


def again_in(db: psycopg.Connection[Any], worker: int) -> float | None:
    rows = db.execute("SELECT again_in FROM outbox.pull_batches('s', %s)", (worker,)).fetchall()
    assert len(rows) <= 1
    return rows[0][0] if rows else None


# times to live


def test_a_message_that_is_too_old_is_not_delivered(db, worker) -> None:
    bound(db)
    db.execute("SELECT outbox.publish('t', '\"short\"', ttl => '1 minute')")
    db.execute("SELECT outbox.publish('t', '\"long\"', ttl => '1 hour')")
    publish(db, "t", "for ever")
    make_older(db, "2 minutes")
    assert drain(db, "s", worker) == ["long", "for ever"]
    assert value(db, "SELECT count(*) FROM outbox.dead_letter") == 0


def test_each_of_many_has_a_time_to_live_of_its_own(db, worker) -> None:
    bound(db)
    db.execute("""SELECT outbox.publish_many('t', ARRAY['1', '2', '3']::json[], ttls => ARRAY[60, NULL, 3600])""")
    db.execute(
        "SELECT outbox.publish_many('t', ARRAY['4', '5']::json[], "
        "idempotency_keys => ARRAY['a', 'b'], ttls => ARRAY[60, NULL])"
    )
    make_older(db, "2 minutes")
    assert drain(db, "s", worker) == [2, 3, 5]


def test_a_subscription_can_want_no_old_messages(db, worker) -> None:
    bound(db, ttl="1 minute")
    subscribe(db, "patient", "t")
    publish(db, "t", "old")
    make_older(db, "2 minutes")
    publish(db, "t", "new")
    assert drain(db, "s", worker) == ["new"]
    assert drain(db, "patient", worker) == ["old", "new"]


def test_what_is_too_old_can_become_a_dead_letter_and_be_redriven(db, worker) -> None:
    bound(db, ttl=60, expired="dead-letter")
    publish(db, "t", "old", "older")
    make_older(db, "2 minutes")
    assert drain(db, "s", worker) == []
    assert db.execute("SELECT reason, payload FROM outbox.dead_letter ORDER BY 2::text").fetchall() == [
        ("expired", "old"), ("expired", "older")]  # fmt: skip
    configure(db, ttl=None)
    db.execute("SELECT outbox.redrive('s')")
    assert sorted(drain(db, "s", worker)) == ["old", "older"]


@pytest.mark.parametrize("expired", ["drop", "dead-letter"])
@pytest.mark.parametrize("on_failure", [None, "park", "block"])
def test_a_redelivery_that_is_too_old_is_not_delivered_and_makes_room(db, worker, expired: str, on_failure) -> None:
    db.execute("SELECT outbox.declare_topic('t')")
    subscribe(db, "s", "t", on_failure=on_failure)
    configure(db, expired=expired)
    db.execute("SELECT outbox.publish('t', '\"old\"', key => 'k', ttl => '1 minute')")
    failed = pull(db, "s", worker)[0]
    failure = [{"lease": failed.lease, "offset": failed.offset, "delay": 0, "error": {"class": "E"}}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [failed.lease], json.dumps(failure)))
    publish(db, "t", "next", key="k")
    make_older(db, "2 minutes")
    assert drain(db, "s", worker) + drain(db, "s", worker) == ["next"]
    assert value(db, "SELECT count(*) FROM outbox.redelivery") == 0
    assert value(db, "SELECT count(*) FROM outbox.dead_letter") == (expired == "dead-letter")


def test_what_is_redriven_does_not_expire_again(db, worker) -> None:
    bound(db, ttl=60)
    publish(db, "t", "old")
    pulled = pull(db, "s", worker)
    failure = [{"lease": pulled[0].lease, "offset": 1, "delay": None, "error": {"class": "E"}}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [pulled[0].lease], json.dumps(failure)))
    db.execute("UPDATE outbox.dead_letter SET published_at = published_at - interval '2 minutes'")
    assert value(db, "SELECT outbox.redrive('s')") == 1
    assert drain(db, "s", worker) == ["old"]


def test_of_many_redeliveries_that_are_too_old_none_is_delivered(db, worker) -> None:
    bound(db, ttl=60)
    publish(db, "t", *map(str, range(10)))
    pulled = pull(db, "s", worker, lease_size=1)
    db.execute("SELECT outbox.release(%s, %s)", (worker, [message.lease for message in pulled]))
    make_older(db, "2 minutes")
    assert pull(db, "s", worker, 4) == []
    assert value(db, "SELECT count(*) FROM outbox.redelivery") == 0


def test_behind_messages_that_are_too_old_there_may_be_more(db, worker) -> None:
    bound(db)
    db.execute("SELECT outbox.publish_many('t', array_fill('1'::json, ARRAY[20]), ttls => array_fill(1, ARRAY[20]))")
    make_older(db, "2 minutes")
    publish(db, "t", "new")
    rows = db.execute("SELECT offsets, again_in FROM outbox.pull_batches('s', %s, 5)", (worker,)).fetchall()
    assert rows == [([], 0)]
    configure(db, ttl="1 minute")
    assert payloads(pull(db, "s", worker, 5)) == ["new"]


def test_pulls_that_expire_what_waits_in_lanes_do_not_deadlock(database: Database, db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('t', 2)")
    subscribe(db, "s", "t", on_failure="park")
    configure(db, ttl=60)
    for n in range(8):
        publish(db, "t", str(n), key=str(n))
    pulled = pull(db, "s", worker)
    assert len({message.partition for message in pulled}) == 2
    db.execute("SELECT outbox.release(%s, %s)", (worker, sorted({message.lease for message in pulled})))
    make_older(db, "2 minutes")
    first = database.connect()
    pull(first, "s", worker, 2)
    second = Later(database.connect(autocommit=True), "SELECT count(*) FROM outbox.pull('s', %s, 2)", register(db))
    assert second.join() == 0
    first.commit()
    while pull(db, "s", worker) or value(db, "SELECT count(*) FROM outbox.redelivery"):
        pass
    assert value(db, "SELECT count(*) FROM outbox.redelivery") == 0


# cancel, edit


def test_a_message_that_nobody_had_yet_can_be_cancelled_and_edited(db, worker) -> None:
    bound(db)
    subscribe(db, "fast", "t")
    publish(db, "t", "a", "b", "c")
    assert drain(db, "fast", worker) == ["a", "b", "c"]
    assert value(db, "SELECT outbox.cancel(1, 1)") == ["s"]
    assert value(db, "SELECT outbox.edit(1, 2, '\"B\"')") == ["s"]
    assert value(db, "SELECT outbox.cancel(1, 99)") == []
    assert drain(db, "s", worker) == ["B", "c"]
    assert value(db, "SELECT outbox.cancel(1, 2)") == []
    assert value(db, "SELECT outbox.edit(1, 2, '1')") == []


def test_a_message_that_waits_for_another_try_can_be_cancelled_and_edited(db, worker) -> None:
    bound(db)
    publish(db, "t", "a", "b")
    pulled = pull(db, "s", worker, lease_size=1)
    db.execute("SELECT outbox.release(%s, %s)", (worker, [message.lease for message in pulled]))
    assert value(db, "SELECT outbox.cancel(1, 1)") == ["s"]
    assert value(db, "SELECT outbox.edit(1, 2, '\"B\"')") == ["s"]
    assert drain(db, "s", worker) == ["B"]


def test_a_message_that_committed_late_can_be_cancelled(database: Database, db, worker) -> None:
    bound(db)
    slow = database.connect()
    publish(slow, "t", "a", "b")
    publish(db, "t", "c")
    assert drain(db, "s", worker) == ["c"]
    assert value(db, "SELECT outbox.cancel(1, 1)") == []
    slow.commit()
    assert value(db, "SELECT outbox.cancel(1, 1)") == ["s"]
    assert drain(db, "s", worker) == ["b"]


def test_who_cancels_waits_for_the_pull_that_is_under_way(database: Database, db, worker) -> None:
    bound(db)
    publish(db, "t", "a")
    pulling = database.connect()
    assert payloads(pull(pulling, "s", worker)) == ["a"]
    cancelling = Later(database.connect(autocommit=True), "SELECT outbox.cancel(1, 1)").wait_until_it_waits(database)
    pulling.commit()
    assert cancelling.join() == []


def test_who_had_a_cancelled_message_in_hand_may_try_it_again(db, worker) -> None:
    bound(db)
    subscribe(db, "other", "t")
    publish(db, "t", "a")
    held = pull(db, "s", worker)
    assert value(db, "SELECT outbox.cancel(1, 1)") == ["other"]
    failure = [{"lease": held[0].lease, "offset": 1, "delay": 0, "error": {"class": "E"}}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [held[0].lease], json.dumps(failure)))
    assert drain(db, "s", worker) == ["a"]
    assert drain(db, "other", worker) == []


@pytest.mark.parametrize("call", ["outbox.cancel(1, 1)", "outbox.edit(1, 1, '1')"])
def test_an_older_snapshot_can_cancel_and_edit_nothing(database: Database, db, worker, call: str) -> None:
    bound(db)
    publish(db, "t", "a")
    late = database.connect()
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.Error) as caught:
        late.execute(f"SELECT {call}")
    assert caught.value.sqlstate == "OB002"


# rates


def test_a_rate_is_shared_by_all_workers_and_the_rest_waits(db, worker) -> None:
    bound(db, rate=0.01, burst=4)
    publish(db, "t", *map(str, range(10)))
    other = register(db)
    assert payloads(pull(db, "s", worker, 3)) == ["0", "1", "2"]
    assert len(pull(db, "s", other)) == 1  # what was left
    wait = again_in(db, worker)
    assert wait is not None
    assert 0 < wait <= 100
    db.execute("UPDATE outbox.allowance SET counted_at = counted_at - interval '200 s'")
    assert len(pull(db, "s", worker)) == 2


def test_a_rate_below_one_a_second_lets_one_at_a_time_through(db, worker) -> None:
    bound(db, rate=0.01)
    publish(db, "t", "a", "b")
    assert payloads(pull(db, "s", worker)) == ["a"]
    assert pull(db, "s", worker) == []
    db.execute("UPDATE outbox.allowance SET counted_at = counted_at - interval '100 s'")
    assert payloads(pull(db, "s", worker)) == ["b"]


def test_no_message_is_handed_out_beyond_the_rate_while_another_pull_is_under_way(
    database: Database, db, worker
) -> None:
    bound(db, rate=1, burst=5, partitions=2)
    db.execute(
        "SELECT outbox.publish_many('t', array_fill('1'::json, ARRAY[50]), "
        "ARRAY(SELECT n::text FROM generate_series(1, 50) AS n))"
    )
    pulling = database.connect()
    assert len(pull(pulling, "s", worker)) == 5
    db.execute("SET lock_timeout = '30s'")  # it does not wait, either
    assert pull(db, "s", register(db)) == []
    pulling.rollback()
    assert len(pull(db, "s", worker)) == 5


def test_redeliveries_count_for_the_rate(db, worker) -> None:
    bound(db, rate=0.01, burst=5)
    publish(db, "t", *map(str, range(20)))
    pulled = pull(db, "s", worker)
    db.execute("SELECT outbox.release(%s, %s)", (worker, [pulled[0].lease]))
    assert pull(db, "s", worker) == []
    db.execute("UPDATE outbox.allowance SET counted_at = counted_at - interval '400 s'")
    again = pull(db, "s", worker)
    assert len(again) == 4
    assert any(message.redelivered for message in again)
    assert pull(db, "s", worker) == []


# backlogs


def test_the_oldest_are_dropped_beyond_the_backlog(db, worker) -> None:
    bound(db, max_backlog=30)
    publish(db, "t", *map(str, range(300)))
    assert drain(db, "s", worker, 7) == list(map(str, range(270, 300)))
    publish(db, "t", "one more")
    assert drain(db, "s", worker) == ["one more"]


def test_of_several_partitions_each_keeps_its_share_of_the_backlog_that_is_left_when_it_is_read(db, worker) -> None:
    bound(db, partitions=3, max_backlog=30)
    for n in range(300):
        publish(db, "t", str(n), key=str(n))
    found = [int(payload) for payload in drain(db, "s", worker, 7)]
    assert 27 <= len(found) <= 30 * (1 + 1 / 2 + 1 / 3) + 3
    assert min(found) >= 150


@pytest.mark.parametrize(("waiting", "most"), [(25, 11), (50, 13), (299, 7)])
def test_as_many_are_kept_as_may_wait(db, worker, waiting: int, most: int) -> None:
    bound(db, max_backlog=most)
    publish(db, "t", *map(str, range(waiting)))
    assert drain(db, "s", worker) == list(map(str, range(waiting - most, waiting)))


def test_higher_priorities_are_kept_first(db, worker) -> None:
    bound(db, max_priority=9, max_backlog=10)
    publish(db, "t", *(f"high {n}" for n in range(8)), priority=9)
    publish(db, "t", *(f"low {n}" for n in range(30)))
    assert drain(db, "s", worker) == [*(f"high {n}" for n in range(8)), "low 28", "low 29"]


def test_what_rolled_back_drops_nobody(database: Database, db, worker) -> None:
    bound(db, max_backlog=100)
    publish(db, "t", *map(str, range(50)))
    rolled_back = database.connect()
    rolled_back.execute("SELECT outbox.publish_many('t', array_fill('1'::json, ARRAY[1000]))")
    rolled_back.rollback()
    assert len(drain(db, "s", worker)) == 50


def test_a_backlog_within_its_limit_is_delivered_whole(db, worker) -> None:
    bound(db, max_backlog=30)
    publish(db, "t", *map(str, range(30)))
    assert len(drain(db, "s", worker, 7)) == 30


def test_a_full_backlog_can_reject_a_publish(db, worker) -> None:
    bound(db, max_backlog=3, overflow="reject-publish")
    publish(db, "t", "a", "b", "c")
    with pytest.raises(psycopg.Error, match='3 messages wait for subscription "s"') as caught:
        publish(db, "t", "d")
    assert caught.value.sqlstate == "OB008"
    with pytest.raises(psycopg.Error, match='topic "t" takes no more'):
        db.execute("SELECT outbox.publish_many('t', ARRAY['1']::json[])")
    publish(db, "other", "is not guarded")
    settle(db, worker, pull(db, "s", worker, 1))
    publish(db, "t", "d")
    configure(db, max_backlog=None)
    publish(db, "t", "e")
    assert drain(db, "s", worker) == ["b", "c", "d", "e"]


def test_a_topic_that_is_declared_later_is_guarded_too(db) -> None:
    subscribe(db, "s", "orders.*")
    configure(db, max_backlog=1, overflow="reject-publish")
    publish(db, "orders.new", "a")
    with pytest.raises(psycopg.Error, match="takes no more"):
        publish(db, "orders.new", "b")


def test_guards_of_two_who_configure_at_once_are_both_kept(database: Database, db) -> None:
    bound(db)
    subscribe(db, "other", "t")
    settings = json.dumps({"max_backlog": 1, "overflow": "reject-publish"})
    first = database.connect()
    first.execute("SELECT outbox.configure('s', %s)", (settings,))
    second = Later(
        database.connect(autocommit=True), "SELECT outbox.configure('other', %s)", settings
    ).wait_until_it_waits(database)
    first.commit()
    second.join()
    assert value(db, "SELECT cardinality(guards) FROM outbox.topic") == 2


def test_publishers_that_declare_different_topics_do_not_wait_for_each_other(database: Database, db) -> None:
    early, first, second = database.connect(), database.connect(), database.connect()
    publish(early, "n.a", "1")
    subscribe(db, "s", "n.#")
    configure(db, max_backlog=5, overflow="reject-publish")
    early.commit()
    publish(first, "m.a", "1")
    second.execute("SET statement_timeout = '30s'")
    publish(second, "k.a", "1")
    first.rollback()
    db.execute("SELECT outbox.adopt(id) FROM outbox.subscription")
    assert value(db, "SELECT guards IS NOT NULL FROM outbox.topic WHERE name = 'n.a'")


def test_a_known_idempotency_key_needs_no_room(db) -> None:
    bound(db, max_backlog=2, overflow="reject-publish")
    known = "SELECT outbox.publish_many('t', ARRAY['1', '2']::json[], idempotency_keys => ARRAY['a', 'b'])"
    assert value(db, known) == 2
    assert value(db, known) == 0
    with pytest.raises(psycopg.Error, match="takes no more"):
        value(db, known.replace("'b'", "'c'"))


# pause, purge


def test_a_paused_subscription_gets_nothing_and_loses_nothing(db, worker) -> None:
    bound(db)
    publish(db, "t", "a")
    assert value(db, "SELECT outbox.pause('s')")
    assert not value(db, "SELECT outbox.pause('s')")
    assert pull(db, "s", worker) == []
    assert value(db, "SELECT outbox.resume('s')")
    assert not value(db, "SELECT outbox.resume('s')")
    assert drain(db, "s", worker) == ["a"]


def test_what_is_in_hand_can_be_settled_while_paused(db, worker) -> None:
    bound(db)
    publish(db, "t", "a")
    pulled = pull(db, "s", worker)
    db.execute("SELECT outbox.pause('s')")
    settle(db, worker, pulled)
    assert value(db, "SELECT count(*) FROM outbox.lease") == 0


def test_purge_drops_what_waits_and_nothing_else(database: Database, db, worker) -> None:
    bound(db, partitions=2)
    subscribe(db, "other", "t")
    slow = database.connect()
    publish(slow, "t", "open", key="1")
    for n in range(10):
        publish(db, "t", str(n), key=str(n))
    held = pull(db, "s", worker, 1)
    released = pull(db, "s", worker, 1)
    db.execute("SELECT outbox.release(%s, %s)", (worker, [released[0].lease]))
    assert value(db, "SELECT outbox.purge('s')") >= 9
    assert pull(db, "s", worker) == []
    settle(db, worker, held)
    publish(db, "t", "after")
    slow.commit()
    assert sorted(drain(db, "s", worker)) == ["after", "open"]
    assert len(drain(db, "other", worker)) == 12


def test_purge_drops_what_committed_late_before_it(database: Database, db, worker) -> None:
    bound(db)
    slow = database.connect()
    publish(slow, "t", "late")
    publish(db, "t", "now")
    assert drain(db, "s", worker) == ["now"]
    slow.commit()
    db.execute("SELECT outbox.purge('s')")
    assert pull(db, "s", worker) == []


def test_purge_waits_for_a_pull_that_is_under_way(database: Database, db, worker) -> None:
    bound(db)
    publish(db, "t", "a", "b")
    pulling = database.connect()
    assert payloads(pull(pulling, "s", worker, 1)) == ["a"]
    purging = Later(database.connect(autocommit=True), "SELECT outbox.purge('s')").wait_until_it_waits(database)
    pulling.commit()
    assert purging.join() == 1


@pytest.mark.parametrize("name", ["pause", "resume", "purge"])
def test_an_unknown_subscription_is_named(db, name: str) -> None:
    with pytest.raises(psycopg.Error, match='subscription "nobody" does not exist'):
        db.execute(f"SELECT outbox.{name}('nobody')")


# exclusive


def test_an_exclusive_subscription_hands_all_to_one_worker_until_it_ends(db, worker) -> None:
    bound(db, exclusive=True)
    publish(db, "t", *map(str, range(6)))
    other = register(db)
    assert again_in(db, worker) == 0  # now it is the owner
    assert payloads(pull(db, "s", worker, 2)) == ["0", "1"]
    assert pull(db, "s", other) == []
    assert again_in(db, other) == 0.5
    db.execute("SELECT outbox.retire(%s)", (worker,))
    assert again_in(db, other) == 0
    assert sorted(drain(db, "s", other)) == ["0", "1", "2", "3", "4", "5"]


def test_the_owner_that_died_is_followed_by_another(db) -> None:
    bound(db, exclusive=True)
    first, second, third = register(db, "1 hour"), register(db), register(db)
    assert again_in(db, first) == 0
    db.execute("UPDATE outbox.worker SET alive_until = clock_timestamp() - interval '1 second' WHERE id = %s", (first,))
    assert again_in(db, second) == 0
    assert again_in(db, third) == 0.5
    assert value(db, "SELECT worker_id FROM outbox.owner") == second


def test_of_two_workers_at_once_one_becomes_the_owner(database: Database, db, worker) -> None:
    bound(db, exclusive=True)
    publish(db, "t", "a")
    claiming = database.connect()
    pull(claiming, "s", worker)
    other = register(db)
    later = Later(
        database.connect(autocommit=True), "SELECT again_in FROM outbox.pull_batches('s', %s)", other
    ).wait_until_it_waits(database)
    claiming.commit()
    later.join()
    assert value(db, "SELECT worker_id FROM outbox.owner") == worker
    assert pull(db, "s", other) == []
    assert payloads(pull(db, "s", worker)) == ["a"]


# fairness, priorities


def test_a_quiet_key_is_not_held_up_by_the_flood_of_another(db, worker) -> None:
    bound(db, partitions=16, fair=True)
    for _ in range(20):
        db.execute(
            "SELECT outbox.publish_many('t', array_fill('\"flood\"'::json, ARRAY[500]), "
            "array_fill('loud'::text, ARRAY[500]))"
        )
    home = "SELECT partition_id FROM outbox.message WHERE key = %s LIMIT 1"
    quiet = [str(n) for n in range(20)]
    for key in quiet:
        publish(db, "t", key, key=key)
    quiet = [key for key in quiet if value(db, home, key) != value(db, home, "loud")]
    first = Counter(payloads(pull(db, "s", worker, 100)))
    assert all(first[key] == 1 for key in quiet), first
    assert first["flood"] > 50


def test_strict_priority_with_a_share_for_those_that_waited_long(db, worker) -> None:
    bound(db, max_priority=9, ageing="1 minute")
    publish(db, "t", "low", priority=0)
    db.execute("SELECT outbox.publish_many('t', array_fill('\"high\"'::json, ARRAY[900]), priority => 9)")
    found = [payload for _ in range(100) for payload in payloads(pull(db, "s", worker, 1))]
    assert found == ["high"] * 100
    db.execute(
        "UPDATE outbox.message SET published_at = published_at - interval '2 minutes' WHERE payload::text = '\"low\"'"
    )
    found = [payload for _ in range(200) for payload in payloads(pull(db, "s", worker, 1))]
    assert found.count("low") == 1  # by chance it comes later than the 200th pull once in a billion runs


# settings


def test_configure_changes_what_it_names_and_null_sets_the_default(db) -> None:
    bound(db, rate=5, ttl="1 hour", expired="dead-letter")
    read = "SELECT rate, ttl::text, expired FROM outbox.subscription"
    assert db.execute(read).fetchone() == (5, "01:00:00", "dead-letter")
    assert value(db, "SELECT outbox.configure('s', '{\"rate\": null}')")
    assert db.execute(read).fetchone() == (None, "01:00:00", "dead-letter")
    assert not value(db, "SELECT outbox.configure('s', '{\"ttl\": 3600}')")
    assert value(db, "SELECT outbox.configure('s', '{\"expired\": null, \"ttl\": null}')")
    assert db.execute(read).fetchone() == (None, None, "drop")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"speed": 1}, "has no setting speed"),
        ({"rate": -1}, "can't be configured so"),
        ({"rate": "fast"}, "can't be configured so"),
        ({"ttl": "soon"}, "can't be configured so"),
        ({"expired": "keep"}, "can't be configured so"),
        ({"max_backlog": 0}, "can't be configured so"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(db, settings: dict[str, Any], says: str) -> None:
    bound(db)
    with pytest.raises(psycopg.Error, match=says) as caught:
        configure(db, **settings)
    assert caught.value.sqlstate == "OB007"


def test_two_who_configure_at_once_both_have_their_way(database: Database, db) -> None:
    bound(db)
    first = database.connect()
    first.execute("""SELECT outbox.configure('s', '{"ttl": 60}')""")
    second = Later(
        database.connect(autocommit=True), """SELECT outbox.configure('s', '{"rate": 5}')"""
    ).wait_until_it_waits(database)
    first.commit()
    second.join()
    assert db.execute("SELECT rate, ttl::text FROM outbox.subscription").fetchone() == (5, "00:01:00")


def test_a_dead_letter_topic_is_declared_at_once(db) -> None:
    bound(db, dead_letter_topic="t.dead")
    assert value(db, "SELECT count(*) FROM outbox.topic WHERE name = 't.dead'") == 1
    with pytest.raises(psycopg.Error, match="can't be configured so"):
        configure(db, dead_letter_topic="not a topic")


def test_more_at_once_than_may_ever_wait_is_named(db) -> None:
    bound(db, max_backlog=3, overflow="reject-publish")
    with pytest.raises(psycopg.Error, match="takes no 4 messages at once"):
        db.execute("SELECT outbox.publish_many('t', array_fill('1'::json, ARRAY[4]))")
