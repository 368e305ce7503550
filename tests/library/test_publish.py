"""Publishing in the caller's transaction, whatever the caller's connection is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
import psycopg
import psycopg2
import pytest
import sqlalchemy
from django.db.utils import ConnectionHandler
from psycopg.rows import dict_row
from psycopg2.extras import RealDictCursor
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import InvalidMessage, MessageId, NewMessage, Outbox, SchemaOutdated, TopicNotDeclared
from tests.shop_floor import Database, drain, register, subscribe, value

MANY = [NewMessage({"n": n}, key=f"k{n}", headers={"n": str(n)}) for n in range(3)]


@contextlib.contextmanager
def engine(url: str, driver: str) -> Iterator[sqlalchemy.Engine]:
    made = sqlalchemy.create_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    yield made
    made.dispose()


@contextlib.contextmanager
def with_psycopg(url: str) -> Iterator[Any]:
    with contextlib.closing(psycopg.connect(url, row_factory=dict_row)) as connection:
        yield connection


@contextlib.contextmanager
def with_psycopg2(url: str) -> Iterator[Any]:
    with contextlib.closing(psycopg2.connect(url)) as connection:
        yield connection


@contextlib.contextmanager
def with_django(url: str) -> Iterator[Any]:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    settings = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "HOST": parts["host"],
        "PORT": parts["port"],
        "AUTOCOMMIT": False,
        "TIME_ZONE": None,
    }
    from django.conf import settings as django_settings

    if not django_settings.configured:
        django_settings.configure(USE_TZ=True, DATABASES={})
        django.setup()
    connection = ConnectionHandler({"default": settings})["default"]
    yield connection
    connection.close()


@contextlib.contextmanager
def with_sqlalchemy_connection(url: str, driver: str = "psycopg") -> Iterator[Any]:
    with engine(url, driver) as made, made.connect() as connection:
        yield connection


@contextlib.contextmanager
def with_sqlalchemy_session(url: str, driver: str = "psycopg") -> Iterator[Any]:
    with engine(url, driver) as made, orm.Session(made) as session:
        yield session


@contextlib.contextmanager
def with_scoped_session(url: str) -> Iterator[Any]:
    with engine(url, "psycopg") as made:
        session = orm.scoped_session(orm.sessionmaker(made))
        yield session
        session.remove()


SYNC: dict[str, Callable[[str], Any]] = {
    "psycopg": with_psycopg,
    "psycopg2 as any DB-API connection": with_psycopg2,
    "Django": with_django,
    "SQLAlchemy connection": with_sqlalchemy_connection,
    "SQLAlchemy session": with_sqlalchemy_session,
    "SQLAlchemy scoped session": with_scoped_session,
    "SQLAlchemy connection on psycopg2": lambda url: with_sqlalchemy_connection(url, "psycopg2"),
    "SQLAlchemy session on psycopg2": lambda url: with_sqlalchemy_session(url, "psycopg2"),
}


@pytest.mark.parametrize("kind", SYNC)
def test_messages_share_the_fate_of_the_callers_transaction(one_database: Database, kind: str) -> None:
    app = Outbox()
    with SYNC[kind](one_database.url) as connection:
        app.publish(connection, "t", {"id": "ghost"})
        app.publish_many(connection, "t", MANY)
        connection.rollback()
        id = app.publish(connection, "t", {"id": "é"}, key="k", headers={"h": "v"}, priority=3)
        app.publish(connection, "t", b"\x00\xff", content_type="image/png")
        assert app.publish_many(connection, "t", [*MANY, [1, None], b"raw"]) == 5
        assert isinstance(id, MessageId)
        assert one_database.value("SELECT count(*) FROM outbox.message") == 0, "it must not commit"
        connection.commit()
    check(one_database, id)


@contextlib.asynccontextmanager
async def with_async_psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection


@contextlib.asynccontextmanager
async def with_async_connection(url: str, driver: str) -> AsyncIterator[Any]:
    made = sqlalchemy_async.create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    async with made.connect() as connection:
        yield connection
    await made.dispose()


@contextlib.asynccontextmanager
async def with_async_session(url: str, driver: str) -> AsyncIterator[Any]:
    made = sqlalchemy_async.create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    async with sqlalchemy_async.AsyncSession(made) as session:
        yield session
    await made.dispose()


ASYNC: dict[str, Callable[[str], Any]] = {
    "psycopg": with_async_psycopg,
    "SQLAlchemy connection": lambda url: with_async_connection(url, "psycopg"),
    "SQLAlchemy session": lambda url: with_async_session(url, "psycopg"),
    "SQLAlchemy connection on asyncpg": lambda url: with_async_connection(url, "asyncpg"),
    "SQLAlchemy session on asyncpg": lambda url: with_async_session(url, "asyncpg"),
}


@pytest.mark.parametrize("kind", ASYNC)
def test_messages_share_the_fate_of_the_callers_async_transaction(one_database: Database, kind: str) -> None:
    async def publish() -> MessageId:
        app = Outbox()
        async with ASYNC[kind](one_database.url) as connection:
            await app.publish(connection, "t", {"id": "ghost"})
            await app.publish_many(connection, "t", MANY)
            await connection.rollback()
            id = await app.publish(connection, "t", {"id": "é"}, key="k", headers={"h": "v"}, priority=3)
            await app.publish(connection, "t", b"\x00\xff", content_type="image/png")
            assert await app.publish_many(connection, "t", [*MANY, [1, None], b"raw"]) == 5
            assert one_database.value("SELECT count(*) FROM outbox.message") == 0, "it must not commit"
            await connection.commit()
            return id

    check(one_database, asyncio.run(publish()))


def check(database: Database, id: MessageId) -> None:
    """The log holds just what was committed, in order."""
    with psycopg.connect(database.url) as db:
        rows = db.execute('SELECT partition_id, "offset", key, headers, payload, body FROM outbox.message ORDER BY 2')
        found = rows.fetchall()
    assert found[0] == (*id, "k", {"h": "v"}, {"id": "é"}, None)
    assert found[1][3:] == ({"content-type": "image/png"}, None, b"\x00\xff")
    assert [row[2:5] for row in found[2:5]] == [(f"k{n}", {"n": str(n)}, {"n": n}) for n in range(3)]
    assert found[5][2:] == (None, None, [1, None], None)
    assert found[6][2:] == (None, {"content-type": "application/octet-stream"}, None, b"raw")
    assert len(found) == 7


def test_a_message_that_cannot_be_stored_takes_the_business_change_with_it(one_database: Database) -> None:
    with engine(one_database.url, "psycopg") as made:
        with made.begin() as setup:
            setup.exec_driver_sql("CREATE TABLE orders (id int)")

        def place_order() -> None:
            with orm.Session(made) as session, session.begin():
                session.execute(sqlalchemy.text("INSERT INTO orders VALUES (1)"))
                Outbox().publish(session, "t", {"not": object()})

        with pytest.raises(InvalidMessage):
            place_order()
    assert one_database.value("SELECT count(*) FROM orders") == 0


@pytest.mark.parametrize("kind", SYNC)
def test_an_error_of_the_database_says_what_to_do(one_database: Database, kind: str) -> None:
    one_database.switch_off_declaring()
    with SYNC[kind](one_database.url) as connection:
        with pytest.raises(TopicNotDeclared, match=r"is not declared.*SELECT outbox\.declare_topic\('t'\)"):
            Outbox().publish(connection, "t", 1)
        connection.rollback()


@pytest.mark.parametrize("kind", ASYNC)
def test_an_error_of_the_database_says_what_to_do_in_async_code_too(one_database: Database, kind: str) -> None:
    async def publish() -> None:
        async with ASYNC[kind](one_database.url) as connection:
            with pytest.raises(TopicNotDeclared, match=r"is not declared.*SELECT outbox\.declare_topic\('t'\)"):
                await Outbox().publish(connection, "t", 1)

    one_database.switch_off_declaring()
    asyncio.run(publish())


def test_a_declared_topic_has_its_partitions_and_priorities(one_database: Database) -> None:
    app = Outbox()
    with one_database.connect() as connection:
        app.declare_topic(connection, "t", partitions=3, max_priority=1)
        app.declare_topic(connection, "t", partitions=3, max_priority=1)
        assert value(connection, "SELECT count(*) FROM outbox.partition") == 6
        for n in range(20):
            app.publish(connection, "t", n, key=f"k{n}")
    assert one_database.value("SELECT count(DISTINCT partition_id) FROM outbox.message") == 3


def test_a_database_without_the_schema_is_refused_with_the_command_that_mends_it(empty_database: Database) -> None:
    with (
        empty_database.connect() as connection,
        pytest.raises(SchemaOutdated, match=r"is missing.*run `outbox migrate`"),
    ):
        Outbox().publish(connection, "t", 1)


def test_an_outdated_schema_is_refused(one_database: Database) -> None:
    with one_database.connect() as connection:
        connection.execute("CREATE OR REPLACE FUNCTION outbox.schema_version() RETURNS text RETURN '0000'")
        with pytest.raises(SchemaOutdated, match=r"is at version 0000, version \d+ is needed: run `outbox migrate`"):
            Outbox().publish(connection, "t", 1)


def test_a_schema_that_is_newer_is_fine(one_database: Database) -> None:
    """So that the database can be migrated first, and processes replaced one by one."""
    with one_database.connect() as connection:
        connection.execute("CREATE OR REPLACE FUNCTION outbox.schema_version() RETURNS text RETURN '9999'")
        Outbox().publish(connection, "t", 1)


def test_what_is_no_connection_is_refused_with_what_would_be_one() -> None:
    with pytest.raises(TypeError, match="can't use a str as a connection: give it a psycopg or SQLAlchemy"):
        Outbox().publish("postgresql://", "t", 1)


def test_a_cursor_that_returns_dictionaries_will_do(one_database: Database) -> None:
    with contextlib.closing(psycopg2.connect(one_database.url, cursor_factory=RealDictCursor)) as connection:
        assert str(Outbox().publish(connection, "t", 1)) == "1-1"


def test_connection_errors_pass_through_as_the_drivers_own(one_database: Database) -> None:
    connection = one_database.connect()
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        Outbox().publish(connection, "t", 1)


def test_a_bulk_is_not_held_in_memory_whole(one_database: Database) -> None:
    """A generator is read as it is sent."""
    with one_database.connect() as connection:
        assert Outbox().publish_many(connection, "t", ({"n": n} for n in range(12_345))) == 12_345
    db = one_database.connect(autocommit=True)
    subscribe(db, "s", "t")
    assert drain(db, "s", register(db), 10_000) == [{"n": n} for n in range(12_345)]
