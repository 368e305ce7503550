"""A reader that is added later gets the rows that are there, and then the log: no gap, no overlap."""

from __future__ import annotations

import random
import threading
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, drain, publish, pull, register, settle, subscribe, value

ROWS = "SELECT id AS key, to_json(a) AS payload FROM account a ORDER BY id"


@pytest.fixture
def shop(db) -> psycopg.Connection[Any]:
    db.execute("CREATE TABLE account (id int PRIMARY KEY, total int NOT NULL)")
    db.execute("INSERT INTO account SELECT n, 0 FROM generate_series(1, 10) n")
    db.execute("SELECT outbox.declare_topic('t', 2, 1)")
    return db


def backfill(database: Database, subscription: str = "crm", topic: str = "t", query: str = ROWS) -> int:
    with psycopg.connect(database.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        return int(value(connection, "SELECT outbox.backfill(%s, %s, %s)", subscription, topic, query))


def test_rows_come_before_the_log_whatever_its_priority(database: Database, shop) -> None:
    worker = register(shop)
    publish(shop, "t", "before")
    assert backfill(database) == 10
    publish(shop, "t", "after")
    publish(shop, "t", "after, and urgent", priority=1)
    found = pull(shop, "crm", worker, 4)
    assert [message.payload["id"] for message in found] == [1, 2, 3, 4]
    assert [message.key for message in found] == ["1", "2", "3", "4"]
    assert {message.topic for message in found} == {"t"}
    settle(shop, worker, found)
    rest = drain(shop, "crm", worker, 4)
    assert [row["id"] for row in rest[:6]] == [5, 6, 7, 8, 9, 10]
    assert rest[6:] == ["after, and urgent", "after"]


def test_nobody_else_reads_the_rows(database: Database, shop) -> None:
    worker = register(shop)
    subscribe(shop, "all", "#")
    backfill(database)
    subscribe(shop, "later", "#")
    shop.execute("SELECT outbox.adopt(id) FROM outbox.subscription")
    assert drain(shop, "all", worker) == drain(shop, "later", worker) == []
    assert len(drain(shop, "crm", worker)) == 10


def test_a_change_that_is_under_way_comes_as_a_message(database: Database, shop) -> None:
    worker = register(shop)
    changing = database.connect()
    changing.execute("UPDATE account SET total = 7 WHERE id = 3")
    publish(changing, "t", "3 is 7")
    shop.execute("UPDATE account SET total = 5 WHERE id = 4")
    publish(shop, "t", "4 is 5")
    backfill(database)
    changing.commit()
    found = drain(shop, "crm", worker)
    assert {row["id"]: row["total"] for row in found[:10]} == dict.fromkeys(range(1, 11), 0) | {4: 5}
    assert found[10:] == ["3 is 7"]


def test_a_snapshot_that_was_taken_before_is_the_cut(database: Database, shop) -> None:
    """The ends of the logs are read later than the snapshot: what committed in between is not in the rows."""
    worker = register(shop)
    with psycopg.connect(database.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        shop.execute("UPDATE account SET total = 7 WHERE id = 3")
        publish(shop, "t", "3 is 7")
        connection.execute("SELECT outbox.backfill('crm', 't', %s)", (ROWS,))
    found = drain(shop, "crm", worker)
    assert {row["total"] for row in found[:10]} == {0}
    assert found[10:] == ["3 is 7"]


def test_a_reader_of_the_topic_is_not_filled_again(database: Database, shop) -> None:
    subscribe(shop, "crm", "t")
    with pytest.raises(psycopg.DatabaseError, match='reads topic "t" already'):
        backfill(database)


def test_bound_again_it_can_be_filled_again_and_gets_the_rows_once(database: Database, shop) -> None:
    worker = register(shop)
    backfill(database)
    assert len(drain(shop, "crm", worker)) == 10
    shop.execute("SELECT outbox.unbind('crm', 't')")
    backfill(database)
    shop.execute("SELECT outbox.adopt(id) FROM outbox.subscription")
    publish(shop, "t", "after")
    assert payloads_or_ids(drain(shop, "crm", worker)) == [*range(1, 11), "after"]


def payloads_or_ids(found: list[Any]) -> list[Any]:
    return [one["id"] if isinstance(one, dict) else one for one in found]


def test_a_worker_that_binds_what_was_filled_changes_nothing(database: Database, shop) -> None:
    worker = register(shop)
    backfill(database)
    subscribe(shop, "crm", "t", guarantee="exactly-once", on_failure="park")
    assert len(drain(shop, "crm", worker)) == 10


@pytest.mark.parametrize(
    ("topic", "query", "says"),
    [
        ("nothing", ROWS, 'topic "nothing" does not exist'),
        ("t", "SELECT 1 AS key, NULL::json AS payload", "payload must not be null"),
    ],
)
def test_what_cannot_be_filled_leaves_nothing(database: Database, shop, topic: str, query: str, says: str) -> None:
    with pytest.raises(psycopg.DatabaseError) as error:
        backfill(database, topic=topic, query=query)
    assert says in f"{error.value.diag.message_primary} {error.value.diag.message_hint}"
    assert value(shop, "SELECT count(*) FROM outbox.subscription") == 0
    assert value(shop, "SELECT count(*) FROM outbox.message") == 0


def test_it_needs_a_snapshot_of_its_own(database: Database, shop) -> None:
    with pytest.raises(psycopg.DatabaseError) as error:
        shop.execute("SELECT outbox.backfill('crm', 't', %s)", (ROWS,))
    assert error.value.sqlstate == "OB002"
    with psycopg.connect(database.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("UPDATE account SET total = 1")
        with pytest.raises(psycopg.DatabaseError, match="has written"):
            connection.execute("SELECT outbox.backfill('crm', 't', %s)", (ROWS,))


def test_rows_and_changes_make_the_table_as_it_is(database: Database, shop) -> None:
    """Writers add to accounts and publish how much; a reader that is filled meanwhile ends with their totals."""
    worker = register(shop)
    stop = threading.Event()
    committed = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(database.url) as connection:
            while not stop.is_set():
                account, more = chance.randint(1, 10), chance.randint(1, 9)
                connection.execute("UPDATE account SET total = total + %s WHERE id = %s", (more, account))
                connection.execute(
                    "SELECT outbox.publish('t', json_build_object('add', %s::int), %s, priority => %s)",
                    (more, str(account), chance.randint(0, 1)),
                )
                if chance.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    committed.append(more)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    readers = [f"crm-{n}" for n in range(5)]
    for nth, reader in enumerate(readers, 1):
        while len(committed) < 40 * nth:
            stop.wait(0.005)
        backfill(database, reader)
    while len(committed) < 300:
        stop.wait(0.005)
    stop.set()
    for writer in writers:
        writer.join()
    truth = dict(shop.execute("SELECT id, total FROM account").fetchall())
    for reader in readers:
        totals = dict.fromkeys(truth, 0)
        rows = 0
        while found := pull(shop, reader, worker, 50):
            for message in found:
                totals[int(message.key or 0)] += message.payload.get("add", message.payload.get("total", 0))
                rows += "total" in message.payload
            settle(shop, worker, found)
        assert rows == 10
        assert totals == truth
