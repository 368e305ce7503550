"""Where cursors are placed: at the beginning, at the end, elsewhere; and which topics a pattern takes in."""

import threading

import psycopg
import pytest

from tests.shop_floor import Database, drain, publish, pull, register, settle, subscribe, value, wait_for

# RabbitMQ's table of topic patterns, and some of our own.
MATCHES = [
    ("orders", "orders", True),
    ("orders", "orders.placed", False),
    ("orders.placed", "orders", False),
    ("orders.placed", "orders.*", True),
    ("orders.placed.eu", "orders.*", False),
    ("orders", "orders.*", False),
    ("orders", "orders.#", True),
    ("orders.placed.eu", "orders.#", True),
    ("quick.orange.rabbit", "*.orange.*", True),
    ("quick.orange.male.rabbit", "*.orange.*", False),
    ("lazy.orange.male.rabbit", "lazy.#", True),
    ("a.b", "a.#.b", True),
    ("a.x.y.b", "a.#.b", True),
    ("a.x.y.c", "a.#.b", False),
    ("anything.at-all", "#", True),
    ("a.b.c", "#.c", True),
    ("a.b.c", "*.*.*", True),
    ("ordersXplaced", "orders.placed", False),
]


@pytest.mark.parametrize(("topic", "pattern", "expected"), MATCHES)
def test_patterns_match_as_in_rabbitmq(db, topic: str, pattern: str, expected: bool) -> None:
    assert value(db, "SELECT outbox.topic_matches(%s, %s)", topic, pattern) is expected


def test_a_subscription_starts_with_the_history_or_with_what_comes_next(database: Database, db) -> None:
    publish(db, "t", "old")
    subscribe(db, "historian", "t", start="first")
    subscribe(db, "newcomer", "t", start="next")
    publish(db, "t", "new")
    worker = register(db)
    assert drain(db, "historian", worker) == ["old", "new"]
    assert drain(db, "newcomer", worker) == ["new"]


def test_a_newcomer_gets_what_was_open_when_it_was_bound(database: Database, db) -> None:
    """The message has a lower offset than the cursor, and commits after it was placed."""
    publish(db, "t", "old")
    slow, gone = database.connect(), database.connect()
    publish(slow, "t", "open")
    publish(gone, "t", "gone")
    publish(db, "t", "old too")
    subscribe(db, "newcomer", "t", start="next")
    slow.commit()
    gone.rollback()
    assert drain(db, "newcomer", register(db)) == ["open"]


def test_binding_again_changes_nothing(db) -> None:
    publish(db, "t", "a")
    subscribe(db, "s", "t", "t", "#")
    assert drain(db, "s", register(db)) == ["a"]
    subscribe(db, "s", "t", start="next")
    publish(db, "t", "b")
    assert drain(db, "s", register(db)) == ["b"]


def test_a_new_topic_that_matches_is_read_from_its_first_message(database: Database, db) -> None:
    subscribe(db, "s", "orders.#", start="next")
    with database.connect() as publisher:
        publish(publisher, "orders.placed", "a")
        publish(publisher, "invoices", "not this one")
    assert drain(db, "s", register(db)) == ["a"]


def test_a_topic_created_while_the_pattern_is_bound_is_adopted(database: Database, db) -> None:
    """Neither transaction sees the other; adoption, which workers do now and then, brings them together."""
    db.execute("SELECT outbox.subscribe('s')")
    publisher, binder = database.connect(), database.connect()
    publish(publisher, "t", "a")
    value(binder, "SELECT outbox.bind('s', '#', 'next')")
    binder.commit()
    publisher.commit()
    assert value(db, "SELECT outbox.adopt(id) FROM outbox.subscription") == 1
    assert value(db, "SELECT outbox.adopt(id) FROM outbox.subscription") == 0
    assert drain(db, "s", register(db)) == ["a"]


def test_seek_replays_from_an_offset_and_skips_to_the_end(db) -> None:
    publish(db, "t", *"abcd")
    subscribe(db, "s", "t")
    worker = register(db)
    assert drain(db, "s", worker) == list("abcd")
    db.execute("SELECT outbox.seek('s', 1, 2)")
    assert drain(db, "s", worker) == list("cd")
    db.execute("SELECT outbox.seek('s', 1, 0)")
    assert drain(db, "s", worker, 3) == list("abcd")
    publish(db, "t", "skipped")
    db.execute("SELECT outbox.seek('s', 1, NULL)")
    publish(db, "t", "next")
    assert drain(db, "s", worker) == ["next"]
    assert value(db, "SELECT count(*) FROM outbox.position") == 1


def test_seek_to_the_end_keeps_what_is_open(database: Database, db) -> None:
    publish(db, "t", "a")
    subscribe(db, "s", "t")
    slow = database.connect()
    publish(slow, "t", "open")
    publish(db, "t", "b")
    db.execute("SELECT outbox.seek('s', 1, NULL)")
    slow.commit()
    assert drain(db, "s", register(db)) == ["open"]


@pytest.mark.parametrize(("target", "partition"), [(-1, 1), (5, 1), (0, 99)])
def test_seek_refuses_what_is_not_there(db, target: int, partition: int) -> None:
    publish(db, "t", *"abcd")
    subscribe(db, "s", "t")
    with pytest.raises(psycopg.Error) as caught:
        db.execute("SELECT outbox.seek('s', %s, %s)", (partition, target))
    assert caught.value.sqlstate in ("OB004", "OB007")


def test_xids_of_a_restored_database_that_are_drawn_again_bring_nothing_back(database: Database, db) -> None:
    """A dump keeps the xids of its rows; in the cluster it is restored into, others draw the same ones."""
    publish(db, "t", *"abc")
    subscribe(db, "s", "t")
    worker = register(db)
    assert drain(db, "s", worker) == list("abc")
    # the rows claim to be of a transaction that is open now
    holder = database.connect()
    xid = value(holder, "SELECT pg_current_xact_id()")
    db.execute("UPDATE outbox.message SET xid = %s", (xid,))
    publish(db, "t", "d")
    assert drain(db, "s", worker) == ["d"]
    subscribe(db, "newcomer", "t", start="next")
    publish(holder, "t", "e")
    holder.commit()
    assert drain(db, "s", worker) == ["e"]
    assert drain(db, "newcomer", worker) == ["e"]


def test_settled_messages_stay_settled_while_a_cursor_seeks(db) -> None:
    publish(db, "t", *"ab")
    subscribe(db, "s", "t")
    worker = register(db)
    pulled = pull(db, "s", worker)
    db.execute("SELECT outbox.seek('s', 1, NULL)")
    settle(db, worker, pulled)
    assert drain(db, "s", worker) == []


def test_a_transaction_that_commits_while_a_seek_is_under_way_is_delivered_whole(database: Database, db) -> None:
    """What was open and what is visible must be told by one snapshot."""
    publish(db, "t", "a")
    subscribe(db, "s", "t")
    publisher, blocker, seeker = database.connect(), database.connect(), database.connect(autocommit=True)
    publish(publisher, "t", "one")
    publish(db, "t", "b")
    blocker.execute("SELECT FROM outbox.position FOR UPDATE")
    seeking = threading.Thread(target=seeker.execute, args=("SELECT outbox.seek('s', 1, NULL)",))
    seeking.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%outbox.seek%%'"
    wait_for(lambda: value(db, waiting), "the seek waiting")
    publish(publisher, "t", "two")
    publisher.commit()
    blocker.commit()
    seeking.join()
    assert sorted(drain(db, "s", register(db))) == ["one", "two"]


def test_a_transaction_that_commits_while_a_bind_is_under_way_is_delivered_whole(database: Database, db) -> None:
    publish(db, "t", "a")
    db.execute("SELECT outbox.subscribe('s')")
    publisher, blocker, binder = database.connect(), database.connect(), database.connect(autocommit=True)
    publish(publisher, "t", "one")
    publish(db, "t", "b")
    blocker.execute("INSERT INTO outbox.binding SELECT id, 't' FROM outbox.subscription")
    binding = threading.Thread(target=binder.execute, args=("SELECT outbox.bind('s', 't', 'next')",))
    binding.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%outbox.bind%%'"
    wait_for(lambda: value(db, waiting), "the bind waiting")
    publish(publisher, "t", "two")
    publisher.commit()
    blocker.rollback()
    binding.join()
    assert sorted(drain(db, "s", register(db))) == ["one", "two"]


def test_seek_does_not_forget_late_messages_that_wait_to_be_pulled(database: Database, db) -> None:
    publish(db, "t", *"abc")
    subscribe(db, "s", "t")
    worker = register(db)
    slow = database.connect()
    publish(slow, "t", "late")
    publish(db, "t", *"defg")
    drain(db, "s", worker)
    slow.commit()
    db.execute("SELECT outbox.seek('s', 1, 6)")
    assert drain(db, "s", worker) == ["late", "f", "g"]


def test_a_late_message_of_a_restored_database_comes_once_though_its_xid_lies_in_the_future(
    database: Database, db
) -> None:
    """The cluster it came from was further on; here its xid has not been drawn yet."""
    publish(db, "t", "a")
    subscribe(db, "s", "t")
    worker = register(db)
    slow = database.connect()
    publish(slow, "t", "late")
    publish(db, "t", "b")
    assert drain(db, "s", worker) == ["a", "b"]
    slow.commit()
    future = "(xid::text::bigint + 1000000000000)::text::xid8"
    db.execute(f"UPDATE outbox.message SET xid = {future}")
    db.execute(f"UPDATE outbox.position SET open = ARRAY(SELECT {future} FROM unnest(open) AS o (xid))")
    assert drain(db, "s", worker) == ["late"]
    publish(db, "t", "c")
    assert drain(db, "s", worker) == ["c"]
