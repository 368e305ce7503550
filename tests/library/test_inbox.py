"""Effects in another database: done once, however often the message comes."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from outbox import InvalidDeclaration, SchemaOutdated, once, schema
from outbox.database import sqlalchemy_url
from tests.library.workshop import PREAMBLE, publish, wait_for_rest
from tests.shop_floor import Database, WorkerProcess, outbox, value, wait_for


@pytest.fixture
def elsewhere(empty_database: Database) -> Database:
    """A database with an inbox and nothing else of ours."""
    assert "the inbox is there" in outbox(empty_database.url, "migrate", "--inbox").stdout
    return empty_database


def test_once_is_true_once_on_any_kind_of_connection(elsewhere: Database) -> None:
    async def on_async() -> list[bool]:
        async with await psycopg.AsyncConnection.connect(elsewhere.url) as connection:
            first = await once(connection, "crm", "async")
        engine = create_async_engine(sqlalchemy_url(elsewhere.url))
        async with AsyncSession(engine) as session:
            second = await once(session, "crm", "async")
        await engine.dispose()
        return [first, second]

    engine = sqlalchemy.create_engine(sqlalchemy_url(elsewhere.url), poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        assert [once(connection, "crm", "a"), once(connection, "crm", "a"), once(connection, "erp", "a")] == [
            True,
            False,
            True,
        ]
    with elsewhere.connect() as db:
        assert not once(db, "crm", "a")
    assert asyncio.run(on_async()) == [True, False]


def test_an_effect_that_rolls_back_was_not_done(elsewhere: Database) -> None:
    with elsewhere.connect() as db:
        assert once(db, "crm", "a")
        db.rollback()
        assert once(db, "crm", "a")


def test_the_inbox_is_installed_again_and_becomes_a_whole_outbox_without_forgetting(elsewhere: Database) -> None:
    with elsewhere.connect() as db:
        once(db, "crm", "a")
    assert outbox(elsewhere.url, "migrate", "--inbox").returncode == 0
    assert outbox(elsewhere.url, "migrate").returncode == 0
    assert outbox(elsewhere.url, "migrate", "--inbox").returncode == 0
    with elsewhere.connect() as db:
        assert not once(db, "crm", "a")
    assert outbox(elsewhere.url, "migrate", "--to", "base", "--yes").returncode == 0
    assert elsewhere.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'outbox'") == 0


def test_plain_sql_installs_the_same_inbox(elsewhere: Database, one_database: Database) -> None:
    objects = (
        "SELECT array_agg(o ORDER BY o) FROM ("
        "SELECT c.relname::text AS o FROM pg_class c WHERE c.relnamespace = %s::regnamespace "
        "UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = %s::regnamespace) AS x"
    )
    installed = elsewhere.value(objects, "outbox", "outbox")
    elsewhere.execute("DROP SCHEMA outbox CASCADE")
    with elsewhere.connect(autocommit=True) as db:
        db.execute(outbox("", "migrate", "--inbox", "--sql").stdout)
    assert elsewhere.value(objects, "outbox", "outbox") == installed
    assert installed is not None


def test_without_an_inbox_once_says_what_to_do(empty_database: Database) -> None:
    with empty_database.connect() as db, pytest.raises(SchemaOutdated, match="outbox migrate --inbox"):
        once(db, "crm", "a")


def test_what_cannot_be_remembered_is_refused(elsewhere: Database) -> None:
    with elsewhere.connect() as db, pytest.raises(InvalidDeclaration, match="28 days"):
        once(db, "crm", "a", remembered=timedelta(days=31))


def test_an_effect_elsewhere_is_done_once_though_its_worker_is_killed_again_and_again(
    shop: Database, empty_database: Database, tmp_path: Path
) -> None:
    """Between the commit elsewhere and the settlement here: the window in which at-least-once repeats."""
    engine = sqlalchemy.create_engine(sqlalchemy_url(empty_database.url), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        schema.install_inbox(connection)
    elsewhere = empty_database
    elsewhere.connect(autocommit=True).execute("CREATE TABLE contact (id text); CREATE TABLE tried (id text)")
    app = f"""{PREAMBLE}
from outbox import once

@app.subscribe("crm", "t", concurrency=4)
def handle(message):
    with psycopg.connect({elsewhere.url!r}) as db:
        db.execute("INSERT INTO tried VALUES (%s)", (str(message.payload),))
        if once(db, "crm", f"contact-{{message.payload}}"):
            db.execute("INSERT INTO contact VALUES (%s)", (str(message.payload),))
    time.sleep(0.005)
"""
    publish(shop, "t", *range(300))
    for round in range(4):
        process = WorkerProcess(shop.url, tmp_path, app, "--timeout", "1")
        try:
            goal = min(40 * (round + 1), 150)
            wait_for(lambda goal=goal: elsewhere.value("SELECT count(*) FROM contact") >= goal, "contacts")
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
        finally:
            process.kill()
    process = WorkerProcess(shop.url, tmp_path, app, "--timeout", "1")
    try:
        wait_for_rest(shop)
    finally:
        process.kill()
    with elsewhere.connect() as db:
        assert value(db, "SELECT count(*) FROM contact") == value(db, "SELECT count(DISTINCT id) FROM contact") == 300
        assert value(db, "SELECT count(*) FROM tried") > 300, "nothing was repeated: this tests nothing"


def test_once_needs_a_transaction_and_a_name(elsewhere: Database) -> None:
    db = elsewhere.connect(autocommit=True)
    with pytest.raises(InvalidDeclaration, match="needs a transaction"):
        once(db, "crm", "a")
    with db.transaction():
        assert once(db, "crm", "a")
        for odd in (5, "", " ", None):
            with pytest.raises(InvalidDeclaration, match="names something"):
                once(db, "crm", odd)  # type: ignore[arg-type]
