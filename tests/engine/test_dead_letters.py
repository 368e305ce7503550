"""What becomes of messages that are given up on: kept, grouped, redriven, published to a topic, deleted in the end."""

import json
import threading
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


@pytest.fixture
def worker(db: psycopg.Connection[Any]) -> int:
    """A worker, with a subscription `s` of at most three attempts on a topic `t` that holds six messages."""
    publish(db, "t", *"abcdef", key="k")
    subscribe(db, "s", "t", max_attempts=3)
    return register(db)


def give_up(db: psycopg.Connection[Any], worker: int, pulled: list[Pulled], delay: float | None = None) -> None:
    """Settle each as failed: at a place and of a class that its payload names."""
    failures = [
        {
            "lease": message.lease,
            "offset": message.offset,
            "delay": delay,
            "reason": "rejected",
            "error": {"class": f"{message.payload}Error", "text": f"It is {message.payload}", "place": "h.py:1 handle"},
        }
        for message in pulled
    ]
    leases = sorted({message.lease for message in pulled})
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, leases, json.dumps(failures)))


def to_topic(db: psycopg.Connection[Any], topic: str, subscription: str = "s") -> None:
    db.execute("SELECT outbox.configure(%s, %s::jsonb)", (subscription, json.dumps({"dead_letter_topic": topic})))


def letters(db: psycopg.Connection[Any]) -> list[Any]:
    return [
        one
        for (one,) in db.execute('SELECT payload FROM outbox.dead_letter ORDER BY partition_id, "offset"').fetchall()
    ]


def published(db: psycopg.Connection[Any], topic: str) -> list[Any]:
    """Payload, key and headers of a topic's messages."""
    return db.execute(
        "SELECT m.payload, m.key, m.headers FROM outbox.message m JOIN outbox.partition p ON p.id = m.partition_id "
        'JOIN outbox.topic t ON t.id = p.topic_id WHERE t.name = %s ORDER BY p.priority, m."offset"',
        (topic,),
    ).fetchall()


def many_letters(db: psycopg.Connection[Any], count: int, subscription: str = "s") -> None:
    """Letters as settlements leave them, of seven classes, in one statement; at offsets that the log has."""
    db.execute(
        'INSERT INTO outbox.dead_letter (subscription_id, partition_id, "offset", attempt, reason, published_at, '
        "payload, errors) SELECT s.id, p.id, n, 3, 'attempts exhausted', now(), to_json(n), "
        "jsonb_build_array(jsonb_build_object('class', 'Error' || n %% 7, 'text', 'n' || n, 'place', 'h:' || n %% 7)) "
        "FROM outbox.subscription s, outbox.partition p, generate_series(1, %s) AS n WHERE s.name = %s",
        (count, subscription),
    )


# --- settlement and dead letter are one commit


@pytest.mark.parametrize("topic", [None, "graves"])
def test_a_settlement_that_rolls_back_leaves_no_dead_letter_and_publishes_none(
    database: Database, db, worker, topic
) -> None:
    if topic:
        to_topic(db, topic)
    settling = database.connect()
    pulled = pull(db, "s", worker)
    give_up(settling, worker, pulled)
    settling.rollback()
    assert letters(db) == []
    assert published(db, "graves") == []
    settle(db, worker, pulled)
    assert drain(db, "s", worker) == []


# --- groups


def test_letters_are_grouped_by_class_and_place_of_their_last_error(db, worker) -> None:
    (message, *others) = pull(db, "s", worker, lease_size=1)
    give_up(db, worker, [message], delay=0)
    give_up(db, worker, pull(db, "s", worker))
    give_up(db, worker, others)
    rows = db.execute(
        "SELECT error_class, place, letters, example_offset, first_died_at <= last_died_at FROM outbox.dead_groups "
        "ORDER BY error_class"
    ).fetchall()
    assert rows == [(f"{name}Error", "h.py:1 handle", 1, n, True) for n, name in enumerate("abcdef", 1)]


def test_an_error_without_class_place_or_sense_is_grouped_too(db, worker) -> None:
    pulled = pull(db, "s", worker, lease_size=1)
    errors = [None, {}, {"class": 7}, {"class": "x" * 5000, "place": "é" * 5000}, {"class": None}, {"place": ["a"]}]
    for message, error in zip(pulled, errors, strict=True):
        failure = [{"lease": message.lease, "offset": message.offset, "delay": None, "error": error}]
        db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [message.lease], json.dumps(failure)))
    groups = db.execute(
        "SELECT left(error_class, 2), left(place, 5), letters FROM outbox.dead_groups ORDER BY 1, 2"
    ).fetchall()
    assert groups == [("", "", 3), ("", '["a"]', 1), ("7", "", 1), ("xx", "ééééé", 1)]


# --- filters


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({}, "abcdef"),
        ({"error_class": "bError"}, "b"),
        ({"error_class": "bError", "place": "h.py:1 handle"}, "b"),
        ({"error_class": "bError", "place": "h.py:2 handle"}, ""),
        ({"reason": "rejected"}, "abcdef"),
        ({"reason": "worker died"}, ""),
        ({"key": "k"}, "abcdef"),
        ({"key": "other"}, ""),
        ({"topic": "t"}, "abcdef"),
        ({"topic": "*"}, "abcdef"),
        ({"topic": "u"}, ""),
        ({"text": "IS C"}, "c"),
        ({"text": "%"}, ""),
        ({"died_after": "2020-01-01"}, "abcdef"),
        ({"died_before": "2020-01-01"}, ""),
        ({"died_before": "2100-01-01", "died_after": "2099-01-01"}, ""),
        ({"key": None}, "abcdef"),
    ],
)
def test_letters_are_listed_purged_and_redriven_by_what_they_are(db, worker, filter, found: str) -> None:
    give_up(db, worker, pull(db, "s", worker))
    listed = db.execute("SELECT payload FROM outbox.dead_letters('s', %s::jsonb)", (json.dumps(filter),)).fetchall()
    assert sorted(one for (one,) in listed) == list(found)
    with db.transaction(force_rollback=True):
        assert value(db, "SELECT outbox.purge_dead('s', filter => %s::jsonb)", json.dumps(filter)) == len(found)
        assert letters(db) == [one for one in "abcdef" if one not in found]
    assert value(db, "SELECT outbox.redrive('s', filter => %s::jsonb)", json.dumps(filter)) == len(found)
    assert sorted(drain(db, "s", worker)) == list(found)


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("outbox.redrive('nobody')", "OB004"),
        ("outbox.purge_dead('nobody')", "OB004"),
        ("outbox.dead_letters('nobody')", "OB004"),
        ("outbox.dead_letter_ids('nobody')", "OB004"),
        ("outbox.redrive('s', '{1}')", "OB007"),
        ("outbox.redrive('s', filter => '{\"colour\": \"red\"}')", "OB007"),
        ("outbox.redrive('s', filter => '[]')", "OB007"),
        ("outbox.redrive('s', filter => '{\"died_after\": \"soon\"}')", "OB007"),
        ("outbox.redrive('s', '{1}', '{1}', '{}')", "OB007"),
        ("outbox.redrive('s', rate => 0)", "OB007"),
        ("outbox.redrive('s', rate => 'NaN')", "OB007"),
        ("outbox.redrive('s', payload => '1')", "OB007"),
        ("outbox.redrive('s', '{1,1}', '{1,2}', payload => '1')", "OB007"),
        ("outbox.purge_dead('s', '{1}', '{1}', '{}')", "OB007"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(db, worker, call: str, state: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"SELECT * FROM {call}")
    assert caught.value.sqlstate == state


# --- redrive


def test_a_redrive_at_a_rate_spaces_what_is_due(db, worker) -> None:
    give_up(db, worker, pull(db, "s", worker))
    assert value(db, "SELECT outbox.redrive('s', rate => 2, due_from => now() + interval '1 hour')") == 6
    rows = db.execute(
        "SELECT extract(epoch FROM due_at - min(due_at) OVER ())::float, due_at > now() FROM outbox.redelivery "
        'ORDER BY "offset"'
    ).fetchall()
    assert rows == [(n / 2, True) for n in range(6)]
    assert pull(db, "s", worker) == []


def test_a_redrive_that_is_late_is_due_now_and_not_before(db, worker) -> None:
    """Else nobody would look at it for a while: workers look at what came due in the last moments."""
    give_up(db, worker, pull(db, "s", worker))
    db.execute("SELECT outbox.redrive('s', rate => 1000, due_from => now() - interval '1 hour')")
    assert value(db, "SELECT min(due_at) > now() - interval '1 minute' FROM outbox.redelivery")
    assert len(pull(db, "s", worker, 100, overdue=False)) == 6


def test_a_letter_is_redriven_with_another_payload(db, worker) -> None:
    db.execute('SELECT outbox.publish(\'t\', NULL, headers => \'{"content-type": "x", "h": "v"}\', body => \'\\x00\')')
    give_up(db, worker, pull(db, "s", worker))
    assert value(db, "SELECT outbox.redrive('s', '{1}', '{2}', payload => '{\"mended\": true}')") == 1
    assert value(db, "SELECT outbox.redrive('s', '{1}', '{7}', payload => '7')") == 1
    rows = db.execute("SELECT payload, body, headers FROM outbox.pull('s', %s)", (worker,)).fetchall()
    assert rows == [({"mended": True}, None, None), (7, None, {"h": "v"})]
    db.execute("SELECT outbox.recover(%s)", (worker,))
    assert payloads(pull(db, "s", register(db))) == [{"mended": True}], "it stays when its worker dies"


def test_two_redrives_at_once_do_not_double(database: Database, db, worker) -> None:
    give_up(db, worker, pull(db, "s", worker))
    first, second = database.connect(), database.connect(autocommit=True)
    assert value(first, "SELECT outbox.redrive('s')") == 6
    later = Later(second, "SELECT outbox.redrive('s')").wait_until_it_waits(database)
    first.commit()
    assert later.join() == 0
    assert sorted(drain(db, "s", worker)) == list("abcdef")


def test_a_redrive_that_rolls_back_leaves_its_letters_to_the_next(database: Database, db, worker) -> None:
    give_up(db, worker, pull(db, "s", worker))
    first, second = database.connect(), database.connect(autocommit=True)
    first.execute("SELECT outbox.redrive('s', '{1,1}', '{2,1}')")
    later = Later(second, "SELECT outbox.redrive('s', '{1,1}', '{1,2}')").wait_until_it_waits(database)
    first.rollback()
    assert later.join() == 2


def test_ids_are_gone_through_in_portions_in_their_order(db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('wide', partitions => 3)")
    many_letters(db, 5)
    found, last = [], (0, 0)
    while portion := db.execute("SELECT * FROM outbox.dead_letter_ids('s', NULL, 3, %s, %s)", last).fetchall():
        found += portion
        last = portion[-1]
    assert found == [(partition, n) for partition in (1, 2, 3, 4) for n in range(1, 6)]


def test_many_concurrent_redrives_make_each_letter_one_redelivery(database: Database, db, worker) -> None:
    many_letters(db, 3_000)
    redriven: list[int] = []

    def redrive(connection: psycopg.Connection[Any]) -> None:
        last = (0, 0)
        while ids := connection.execute(
            "SELECT * FROM outbox.dead_letter_ids('s', NULL, 200, %s, %s)", last
        ).fetchall():
            last = ids[-1]
            partitions, offsets = zip(*ids, strict=True)
            redriven.append(value(connection, "SELECT outbox.redrive('s', %s, %s)", list(partitions), list(offsets)))

    threads = [threading.Thread(target=redrive, args=(database.connect(autocommit=True),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(redriven) == 3_000
    assert letters(db) == []
    assert value(db, "SELECT count(*) FROM outbox.redelivery") == 3_000


# --- dead-letter topics


def test_a_message_that_is_given_up_on_goes_to_the_dead_letter_topic_whole(db, worker) -> None:
    db.execute("SELECT outbox.publish('t', '{\"n\": 1}', key => 'key', headers => '{\"h\": \"v\"}')")
    to_topic(db, "t.dead")
    give_up(db, worker, pull(db, "s", worker)[-1:])
    ((payload, key, headers),) = published(db, "t.dead")
    assert (payload, key) == ({"n": 1}, "key")
    assert headers == {
        "h": "v",
        "dead-letter-subscription": "s",
        "dead-letter-topic": "t",
        "dead-letter-id": "1-7",
        "dead-letter-reason": "rejected",
        "dead-letter-error": "{'n': 1}Error: It is {'n': 1}",
        "dead-letter-attempts": "1",
    }
    assert letters(db) == []


def test_bodies_and_priorities_keep_their_kind_on_a_dead_letter_topic(db, worker) -> None:
    db.execute("SELECT outbox.declare_topic('p', max_priority => 2), outbox.declare_topic('graves', max_priority => 1)")
    for priority in 0, 1, 2:
        db.execute("SELECT outbox.publish('p', NULL, priority => %s, body => %s)", (priority, bytes([priority])))
    subscribe(db, "q", "p")
    subscribe(db, "heirs", "graves")
    to_topic(db, "graves", "q")
    give_up(db, worker, pull(db, "q", worker))
    rows = db.execute(
        "SELECT priority, body, payload FROM outbox.pull('heirs', %s) ORDER BY body", (worker,)
    ).fetchall()
    assert rows == [(0, b"\0", None), (1, b"\1", None), (1, b"\2", None)]


def test_a_message_whose_workers_died_goes_to_the_dead_letter_topic(db, worker) -> None:
    to_topic(db, "graves")
    for _ in range(20):
        pulled = pull(db, "s", worker)
        if "c" in payloads(pulled):
            db.execute("SELECT outbox.recover(%s)", (worker,))
            worker = register(db)
        else:
            settle(db, worker, pulled)
    ((payload, _, headers),) = published(db, "graves")
    assert (payload, headers["dead-letter-reason"], headers["dead-letter-attempts"]) == ("c", "worker died", "3")
    assert headers["dead-letter-error"].startswith("WorkerDied: worker ")
    assert letters(db) == []
    assert value(db, "SELECT count(*) FROM outbox.lease") + value(db, "SELECT count(*) FROM outbox.redelivery") == 0


def test_what_is_buried_without_having_been_tried_goes_to_the_dead_letter_topic(db, worker) -> None:
    """So do messages that expire."""
    to_topic(db, "graves")
    db.execute(
        "SELECT outbox.bury('{1}', '{1}', '{4}', NULL, '{expired}', ARRAY[now()], NULL, NULL, "
        "ARRAY[to_json('d'::text)], NULL, NULL)"
    )
    ((payload, _, headers),) = published(db, "graves")
    assert (payload, headers["dead-letter-attempts"], headers["dead-letter-error"]) == ("d", "0", "")


@pytest.mark.parametrize("trouble", ["not declared", "no name of a topic", "no room for its headers"])
def test_a_dead_letter_topic_that_cannot_be_published_to_loses_nothing_and_stops_no_settlement(
    database: Database, db, worker, trouble: str
) -> None:
    if trouble == "no room for its headers":
        to_topic(db, "graves")
    else:  # it was there when it was configured
        db.execute("UPDATE outbox.subscription SET dead_letter_topic = %s", (trouble.replace(" ", "-"),))
        db.execute("SET outbox.declare_topics = off")
    if trouble == "no name of a topic":
        db.execute("UPDATE outbox.subscription SET dead_letter_topic = 'no name!'")
    if trouble == "no room for its headers":
        db.execute("ALTER TABLE outbox.message ADD CHECK (headers IS NULL)")
    pulled = pull(db, "s", worker)
    give_up(db, worker, pulled)
    assert letters(db) == list("abcdef")
    assert published(db, "graves") == []
    assert value(db, "SELECT count(*) FROM outbox.lease") == 0


def test_a_dead_letter_that_dies_where_it_was_buried_is_kept(db, worker) -> None:
    """A subscription that reads its own dead-letter topic would bury it for ever."""
    to_topic(db, "graves")
    db.execute("SELECT outbox.bind('s', 'graves')")
    give_up(db, worker, pull(db, "s", worker))
    again = pull(db, "s", worker)
    assert len(again) == 6
    give_up(db, worker, again)
    assert letters(db) == list("abcdef")
    assert pull(db, "s", worker) == []


def test_a_dead_letter_that_comes_back_by_a_circle_of_topics_is_kept(db, worker) -> None:
    to_topic(db, "graves")
    give_up(db, worker, pull(db, "s", worker)[:1])
    ((payload, _, headers),) = published(db, "graves")
    db.execute("SELECT outbox.publish('t', %s::json, headers => %s::jsonb)", (json.dumps(payload), json.dumps(headers)))
    give_up(db, worker, pull(db, "s", worker))
    assert letters(db) == ["a"]
    assert len(published(db, "graves")) == 1


# --- what pull tells of the past


def test_a_redelivered_message_brings_its_history_without_tracebacks(db, worker) -> None:
    pulled = pull(db, "s", worker)
    assert db.execute("SELECT count(history) FROM outbox.pull('s', %s)", (worker,)).fetchone() == (0,)
    failure = {"class": "Oops", "text": "no", "place": "h.py:1 f", "traceback": "long"}
    for attempt in 1, 2:
        failures = [{"lease": pulled[0].lease, "offset": 1, "delay": 0, "error": failure}]
        db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [pulled[0].lease], json.dumps(failures)))
        row = db.execute("SELECT lease_id, history FROM outbox.pull('s', %s)", (worker,)).fetchone()
        assert row is not None
        pulled = [pulled[0]._replace(lease=row[0])]
        assert [one["attempt"] for one in row[1]] == list(range(1, attempt + 1))
        assert row[1][0] | {"class": "Oops", "text": "no", "place": "h.py:1 f", "worker": worker} == row[1][0]
        assert all("at" in one and "traceback" not in one for one in row[1])


@pytest.mark.parametrize("error", ["oops", ["oops"], 7, {"text": None}, {"text": "x" * 2000}, {"text": {"a": 1}}])
def test_an_error_of_any_shape_stops_no_pull(db, worker, error) -> None:
    pulled = pull(db, "s", worker)
    failures = [{"lease": pulled[0].lease, "offset": 1, "delay": 0, "error": error}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [pulled[0].lease], json.dumps(failures)))
    (history,) = db.execute("SELECT history FROM outbox.pull('s', %s)", (worker,)).fetchone() or ()
    assert all(len(one["text"]) <= 500 for one in history or [])


def test_a_message_that_was_released_has_no_history(db, worker) -> None:
    pulled = pull(db, "s", worker)
    db.execute("SELECT outbox.release(%s, %s)", (worker, [pulled[0].lease]))
    assert value(db, "SELECT count(*) || ' ' || count(history) FROM outbox.pull('s', %s, 1000)", worker) == "6 0"


# --- expiry


def test_letters_whose_time_is_over_are_deleted_the_oldest_first_some_at_a_time(database: Database, db, worker) -> None:
    subscribe(db, "keeps", "t")
    many_letters(db, 5)
    many_letters(db, 5, "keeps")
    db.execute("SELECT outbox.configure('s', '{\"dead_letter_ttl\": 3600}')")
    assert value(db, "SELECT outbox.expire_dead_letters()") == 0
    db.execute("UPDATE outbox.dead_letter SET died_at = now() - \"offset\" * interval '40 minutes'")
    assert value(db, "SELECT outbox.expire_dead_letters(3)") == 3
    left = (
        'SELECT array_agg(d."offset" ORDER BY d."offset") FROM outbox.dead_letter d '
        "JOIN outbox.subscription s ON s.id = d.subscription_id WHERE s.name = %s"
    )
    assert value(db, left, "s") == [1, 2]
    busy = database.connect()
    busy.execute('SELECT FROM outbox.dead_letter WHERE "offset" = 2 FOR UPDATE')
    assert value(db, "SELECT outbox.expire_dead_letters(3)") == 0, "somebody has it in hand"
    busy.rollback()
    assert value(db, "SELECT outbox.expire_dead_letters(3)") == 1
    assert value(db, left, "s") == [1]
    assert value(db, left, "keeps") == [1, 2, 3, 4, 5]
