"""A CRM that is added later: it gets the customers that are there, then what happens to them."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from outbox import InvalidDeclaration, NotOwnTransaction, Outbox, TopicNotDeclared
from outbox.database import sqlalchemy_url
from tests.library.workshop import PREAMBLE, wait_for_rest
from tests.shop_floor import Database, WorkerProcess, outbox, value, wait_for

ROWS = "SELECT id AS key, to_json(c) AS payload FROM customer c"
CRM = (
    PREAMBLE
    + """
@app.subscribe("crm", "customers", guarantee="exactly-once", ordered=True)
def copy(message, connection: psycopg.Connection):
    connection.execute(
        "INSERT INTO crm VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET points = excluded.points",
        (message.payload["id"], message.payload["points"]),
    )
    time.sleep(0.001)
"""
)


@pytest.fixture
def shop(one_database: Database) -> Database:
    one_database.execute(
        "CREATE TABLE customer (id int PRIMARY KEY, points int NOT NULL);"
        "CREATE TABLE crm (LIKE customer INCLUDING ALL);"
        "INSERT INTO customer SELECT n, 0 FROM generate_series(1, 300) n; SELECT outbox.declare_topic('customers', 3)"
    )
    return one_database


def test_a_copy_of_a_table_that_changes_meanwhile_ends_as_the_table(shop: Database, tmp_path: Path) -> None:
    stop, committed = threading.Event(), []

    def work(seed: int) -> None:
        app, chance = Outbox(), random.Random(seed)
        with psycopg.connect(shop.url) as db:
            while not stop.wait(0.002):
                id = chance.randint(1, 300)
                points = value(db, "UPDATE customer SET points = points + 1 WHERE id = %s RETURNING points", id)
                app.publish(db, "customers", {"id": id, "points": points}, key=str(id))
                if chance.random() < 0.2:
                    db.rollback()
                else:
                    db.commit()
                    committed.append(id)

    people = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for one in people:
        one.start()
    wait_for(lambda: len(committed) > 50, "changes")
    assert "300 rows" in outbox(shop.url, "backfill", "crm", "customers", "--table", "customer").stdout
    worker = WorkerProcess(shop.url, tmp_path, CRM, "--timeout", "2")
    try:
        wait_for(lambda: shop.value("SELECT count(*) FROM crm") > 20, "a beginning")
        worker.kill()
        worker = WorkerProcess(shop.url, tmp_path, CRM, "--timeout", "2")
        wait_for(lambda: shop.value("SELECT count(*) FROM crm WHERE points > 0") > 20, "changes in the copy")
        stop.set()
        for one in people:
            one.join()
        wait_for_rest(shop)
        assert worker.stop(signal.SIGTERM) == 0
    finally:
        stop.set()
        worker.kill()
    assert shop.value("SELECT count(*) FROM (TABLE crm EXCEPT TABLE customer) AS other") == 0
    assert shop.value("SELECT count(*) FROM crm") == 300


def test_the_rows_of_a_query_are_what_it_finds(shop: Database) -> None:
    shown = outbox(shop.url, "backfill", "crm", "customers", "--query", f"{ROWS} WHERE id > 290 -- the last")
    assert shown.returncode == 1  # the comment swallows what comes after it: an error, and nothing done
    assert shop.value("SELECT count(*) FROM outbox.subscription") == 0
    shown = outbox(shop.url, "backfill", "crm", "customers", "--query", f"{ROWS} WHERE id > 290")
    assert shown.stdout == "crm reads 10 rows, and then customers\n"


def test_a_key_of_several_columns_is_a_list(shop: Database) -> None:
    shop.execute("CREATE TABLE item (a int, b text, PRIMARY KEY (b, a)); INSERT INTO item VALUES (1, 'x')")
    assert outbox(shop.url, "backfill", "crm", "customers", "--table", "public.item").returncode == 0
    assert shop.value("SELECT key FROM outbox.message") == '["x", 1]'


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("customers",), 2, "give --table or --query"),
        (("customers", "--table", "customer", "--query", ROWS), 2, "give --table or --query"),
        (("customers", "--table", "nothing"), 1, "no table 'nothing' with a primary key"),
        (("nothing", "--table", "customer"), 1, 'topic "nothing" does not exist'),
        (("customers", "--query", "SELECT 1 AS key"), 1, "the database refuses"),
    ],
)
def test_what_cannot_be_is_one_line(shop: Database, arguments: tuple[str, ...], code: int, says: str) -> None:
    result = outbox(shop.url, "backfill", "crm", *arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (code, 1), result.stderr
    assert says in result.stderr
    assert shop.value("SELECT count(*) FROM outbox.subscription") == 0


def test_an_application_backfills_in_its_own_transaction(shop: Database) -> None:
    app = Outbox()
    engine = sqlalchemy.create_engine(sqlalchemy_url(shop.url), poolclass=sqlalchemy.NullPool)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        assert app.backfill(connection, "crm", "customers", ROWS) == 300
        connection.rollback()
        assert app.backfill(connection, "crm", "customers", ROWS) == 300
        connection.commit()
    with engine.begin() as connection, pytest.raises(NotOwnTransaction, match="REPEATABLE READ"):
        app.backfill(connection, "erp", "customers", ROWS)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        with pytest.raises(InvalidDeclaration, match="already"):
            app.backfill(connection, "crm", "customers", ROWS)
        connection.rollback()
        with pytest.raises(TopicNotDeclared):
            app.backfill(connection, "erp", "nothing", ROWS)
    engine.dispose()


def test_a_topic_is_altered_and_filled_from_coroutines(shop: Database) -> None:
    app = Outbox()

    async def work() -> tuple[bool, bool, int]:
        engine = create_async_engine(sqlalchemy_url(shop.url)).execution_options(isolation_level="REPEATABLE READ")
        async with AsyncSession(engine) as session, session.begin():
            rows = await app.backfill(session, "crm", "customers", ROWS)
        async with AsyncSession(engine) as session, session.begin():
            altered = [await app.alter_topic(session, "customers", partitions=12) for _ in range(2)]
        await engine.dispose()
        return altered[0], altered[1], rows

    assert asyncio.run(work()) == (True, False, 300)
    assert shop.value("SELECT partitions FROM outbox.topic") == 12
    with shop.connect() as db, pytest.raises(TopicNotDeclared):
        app.alter_topic(db, "nothing", partitions=2)
