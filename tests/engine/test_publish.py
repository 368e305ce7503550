"""Invariants 1, 2, 8 and 9: what is published, in which transactions, and what it may wait for."""

import hashlib
import threading
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, drain, payloads, publish, pull, register, settle, subscribe, value

ISOLATION_LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


def test_a_message_is_delivered_once_its_transaction_commits_and_not_before(database: Database, db) -> None:
    subscribe(db, "s", "t")
    worker = register(db)
    publisher = database.connect()
    publish(publisher, "t", "a")
    assert pull(db, "s", worker) == []
    publisher.commit()
    db.execute("SELECT outbox.adopt(id) FROM outbox.subscription")
    assert drain(db, "s", worker) == ["a"]


def test_a_message_of_a_transaction_that_rolled_back_is_never_delivered(database: Database, db) -> None:
    publish(db, "t", "first")
    subscribe(db, "s", "t")
    publisher = database.connect()
    publish(publisher, "t", "ghost")
    publisher.rollback()
    publish(publisher, "t", "second")
    publisher.commit()
    assert drain(db, "s", register(db)) == ["first", "second"]


def test_a_savepoint_that_rolled_back_takes_its_messages_with_it(database: Database, db) -> None:
    subscribe(db, "s", "#")
    with database.connect() as publisher:
        publish(publisher, "t", "kept")
        publisher.execute("SAVEPOINT s")
        publish(publisher, "t", "gone")
        publisher.execute("ROLLBACK TO s")
        publish(publisher, "t", "kept too")
    assert drain(db, "s", register(db)) == ["kept", "kept too"]


@pytest.mark.parametrize("level", ISOLATION_LEVELS)
def test_publish_and_settle_work_at_every_isolation_level(database: Database, db, level: str) -> None:
    publish(db, "t", "before")
    subscribe(db, "s", "t")
    worker = register(db)
    pulled = pull(db, "s", worker)
    with database.connect() as other:
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        settle(other, worker, pulled)
        publish(other, "t", "after")
        publish(other, f"new-{level[:4].lower().strip()}", "in a topic of its own")
    assert drain(db, "s", worker) == ["after"]
    assert value(db, "SELECT count(*) FROM outbox.lease") == 0


def test_a_publisher_draws_its_xid_before_its_offset(database: Database, db) -> None:
    """Between the two, a pull would see neither the row nor its transaction."""
    db.execute("SELECT outbox.declare_topic('t')")
    sequence = value(db, "SELECT sequence::regclass::text FROM outbox.partition")
    # the offset is drawn through a default that notes whether there was an xid by then
    db.execute("CREATE TABLE drawn (had_xid boolean)")
    source = value(db, "SELECT pg_get_functiondef('outbox.publish'::regproc)")
    assert "nextval(sequence)" in source
    db.execute(
        "CREATE FUNCTION outbox.probe(sequence regclass) RETURNS bigint LANGUAGE plpgsql AS $$"
        "DECLARE had boolean := pg_current_xact_id_if_assigned() IS NOT NULL; BEGIN "
        "INSERT INTO public.drawn VALUES (had); RETURN nextval(sequence); END $$"
    )
    db.execute(source.replace("nextval(sequence)", "outbox.probe(sequence)"))
    publish(db, "t", "a")
    assert value(db, "SELECT bool_and(had_xid) FROM drawn")
    assert value(db, f"SELECT last_value FROM {sequence}") == 1


def test_many_messages_keep_the_order_of_their_arrays_and_their_keys_and_headers(database: Database, db) -> None:
    subscribe(db, "s", "t")
    published = value(
        db,
        "SELECT outbox.publish_many('t', %b::text[]::json[], keys => %b::text[], headers => %b::text[]::jsonb[])",
        [str(n) for n in range(1000)],
        [f"k{n}" for n in range(1000)],
        ['{"a": "b"}'] * 1000,
    )
    assert published == 1000
    worker = register(db)
    db.execute("SELECT outbox.adopt(id) FROM outbox.subscription")
    pulled = pull(db, "s", worker, 1000)
    assert payloads(pulled) == list(range(1000))
    assert [message.key for message in pulled] == [f"k{n}" for n in range(1000)]
    assert value(db, 'SELECT count(*) FROM outbox.message WHERE headers = \'{"a": "b"}\'') == 1000


def test_arrays_of_unequal_length_are_refused(db) -> None:
    with pytest.raises(psycopg.Error, match="of one length") as caught:
        db.execute("SELECT outbox.publish_many('t', '{1,2}'::json[], keys => '{a}')")
    assert caught.value.sqlstate == "OB007"


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a b", "a#", "é", "x" * 256])
def test_a_topic_name_that_is_none_is_refused(db, name: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        publish(db, name, "a")


def test_priority_is_capped_at_the_topics_highest_and_refused_beyond_nine(db) -> None:
    db.execute("SELECT outbox.declare_topic('t', max_priority => 2)")
    publish(db, "t", "high", priority=9)
    assert value(db, "SELECT p.priority FROM outbox.message m JOIN outbox.partition p ON p.id = m.partition_id") == 2
    with pytest.raises(psycopg.Error, match="between 0 and 9"):
        publish(db, "t", "too high", priority=10)


def test_a_key_goes_to_the_partition_that_sha256_says(db) -> None:
    """So that a client in another language finds it too."""
    for key in ("", "a", "order-4711", "ключ", "🔑" * 100):
        expected = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 12
        assert value(db, "SELECT outbox.partition_number(%s, 12)", key) == expected


def test_an_undeclared_topic_is_declared_in_the_publishers_transaction(database: Database, db) -> None:
    subscribe(db, "s", "orders.#")
    publisher = database.connect()
    publish(publisher, "orders.placed", "a")
    publisher.rollback()
    assert value(db, "SELECT count(*) FROM outbox.topic") == 0
    publish(publisher, "orders.placed", "b")
    publisher.commit()
    assert drain(db, "s", register(db)) == ["b"]


def test_an_undeclared_topic_is_an_error_where_that_is_switched_off(db) -> None:
    db.execute("SET outbox.declare_topics = off")
    with pytest.raises(psycopg.Error, match='topic "t" is not declared') as caught:
        publish(db, "t", "a")
    assert caught.value.sqlstate == "OB006"
    assert "outbox.declare_topic('t')" in str(caught.value)


def test_two_first_publishes_to_a_topic_at_once_make_one_topic(database: Database, db) -> None:
    subscribe(db, "s", "t")
    first, second = database.connect(), database.connect()
    publish(first, "t", "a")
    waiting = threading.Thread(target=publish, args=(second, "t", "b"))
    waiting.start()
    first.commit()
    waiting.join()
    second.commit()
    assert sorted(drain(db, "s", register(db))) == ["a", "b"]


def test_declaring_a_topic_otherwise_than_it_is_is_refused(db) -> None:
    db.execute("SELECT outbox.declare_topic('t', partitions => 3)")
    db.execute("SELECT outbox.declare_topic('t', partitions => 3)")
    with pytest.raises(psycopg.Error, match="exists with 3 partitions") as caught:
        db.execute("SELECT outbox.declare_topic('t', partitions => 4)")
    assert caught.value.sqlstate == "OB007"


def test_a_publisher_waits_for_no_consumer(database: Database, db) -> None:
    """Invariant 8: while pulls, settlements, seeks and binds are open and stay so, a publish succeeds."""
    publish(db, "t", "a", "b")
    subscribe(db, "s", "t")
    worker = register(db)
    settler, puller, seeker, binder = (database.connect() for _ in range(4))
    settle(settler, worker, pull(db, "s", worker, 1))
    pull(puller, "s", worker)
    db.execute("SELECT outbox.subscribe('other')")
    value(binder, "SELECT outbox.bind('other', 't')")
    subscribe(db, "sought", "t")
    value(seeker, "SELECT outbox.seek('sought', (SELECT min(id) FROM outbox.partition), 0)")

    publisher = database.connect(options="-c lock_timeout=10s")
    publish(publisher, "t", "c")
    value(publisher, "SELECT outbox.publish_many('t', '{1,2,3}'::json[])")
    publisher.commit()


def test_a_publish_is_one_insert(database: Database, db) -> None:
    """Invariant 9: no other row is written, whoever subscribes."""
    db.execute("SELECT outbox.declare_topic('t')")
    for number in range(20):
        subscribe(db, f"s{number}", "t")
    publisher = database.connect()  # a new one: its statistics begin at nothing
    publish(publisher, "t", "a")
    written = dict(
        publisher.execute(
            "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables "
            "WHERE schemaname = 'outbox' AND n_tup_ins + n_tup_upd + n_tup_del > 0"
        ).fetchall()
    )
    assert list(written.values()) == [1]
    assert next(iter(written)).startswith("message_")


def test_a_trigger_publishes_in_the_transaction_of_the_row(database: Database, db) -> None:
    db.execute("CREATE TABLE orders (id int)")
    db.execute(
        "CREATE FUNCTION announce() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM outbox.publish('orders', to_json(new), key => new.id::text); RETURN new; END $$"
    )
    db.execute("CREATE TRIGGER announce AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION announce()")
    db.execute("INSERT INTO orders VALUES (1), (2)")
    with database.connect() as other:
        other.execute("INSERT INTO orders VALUES (3)")
        other.rollback()
    subscribe(db, "s", "orders")
    assert drain(db, "s", register(db)) == [{"id": 1}, {"id": 2}]


def test_a_transaction_that_will_be_prepared_publishes_without_a_notification(database: Database, db) -> None:
    publish(db, "t", "a")
    subscribe(db, "s", "t")
    sleeper = database.connect(autocommit=True)
    sleeper.execute("SELECT pg_advisory_lock_shared(outbox.wake_lock(id)) FROM outbox.topic")
    publisher: psycopg.Connection[Any] = database.connect(autocommit=True)
    publisher.execute("SET outbox.notify = off")
    publisher.execute("BEGIN")
    publish(publisher, "t", "b")
    publisher.execute("PREPARE TRANSACTION 'p'")
    worker = register(db)
    assert drain(db, "s", worker) == ["a"]
    publisher.execute("COMMIT PREPARED 'p'")
    assert drain(db, "s", worker) == ["b"]
