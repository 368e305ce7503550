"""Our tables in a database: up and down, three ways in, and into a database that has a life of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from outbox import Outbox, schema
from outbox.database import sqlalchemy_url
from tests.shop_floor import PATIENCE, ROOT, Database, drain, environment, register, subscribe, value

#: Everything in our schema that a migration makes, in words that do not depend on when it was made.
CATALOG = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
       a.attidentity::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
       coalesce(col_description(c.oid, a.attnum), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
WHERE c.relnamespace = 'outbox'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT 'relation', relname, relkind::text, relpersistence::text,
       coalesce(array_to_string(reloptions, ','), ''), '', '', ''
FROM pg_class WHERE relnamespace = 'outbox'::regnamespace
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '', '' FROM pg_indexes WHERE schemaname = 'outbox'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', '', ''
FROM pg_constraint WHERE connamespace = 'outbox'::regnamespace
UNION ALL
SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid), '', '', '', '', ''
FROM pg_proc WHERE pronamespace = 'outbox'::regnamespace
UNION ALL
SELECT 'row', 'retention', r::text, '', '', '', '', '' FROM outbox.retention r
UNION ALL
SELECT 'row', 'alembic_version', v::text, '', '', '', '', '' FROM outbox.alembic_version v
"""


def catalog(database: Database) -> set[tuple[Any, ...]]:
    with psycopg.connect(database.url) as connection:
        return set(connection.execute(CATALOG).fetchall())


def migrate(database: Database, to: str = "head") -> None:
    engine = sqlalchemy.create_engine(sqlalchemy_url(database.url), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        schema.migrate(connection, to)


def leaves_no_trace(database: Database) -> bool:
    return bool(database.value("SELECT count(*) = 0 FROM pg_namespace WHERE nspname = 'outbox'"))


def test_up_down_and_up_again_gives_the_same_catalog(empty_database: Database) -> None:
    migrate(empty_database)
    once = catalog(empty_database)
    migrate(empty_database)
    assert catalog(empty_database) == once
    with empty_database.connect() as connection:  # with a life in it: topics have sequences of their own
        Outbox().publish(connection, "t", 1)
    migrate(empty_database, "base")
    assert leaves_no_trace(empty_database)
    migrate(empty_database)
    assert catalog(empty_database) == once
    assert len(once) > 200


def test_two_migrations_at_once_take_turns(empty_database: Database) -> None:
    command = [sys.executable, "-m", "outbox", "migrate"]
    runs = [
        subprocess.Popen(command, env=environment(empty_database.url), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(3)
    ]
    outputs = [run.communicate(timeout=PATIENCE)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs


def test_plain_sql_makes_the_same_schema(empty_database: Database, postgres) -> None:
    """The second way: what `outbox migrate --sql` prints, run by psql."""
    migrate(empty_database)
    expected = catalog(empty_database)
    migrate(empty_database, "base")
    psql(empty_database, schema.sql())
    assert catalog(empty_database) == expected


def test_plain_sql_removes_the_schema_too(empty_database: Database) -> None:
    migrate(empty_database)
    psql(empty_database, schema.sql(to="base"))
    assert leaves_no_trace(empty_database)


def psql(database: Database, text: str) -> None:
    command = [str(database.postgres.binaries / "psql"), "-v", "ON_ERROR_STOP=1", "-q", "-d", database.url]
    result = subprocess.run(command, input=text, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr


REVISION = """
from alembic import op
from outbox import schema

revision = "b2"
down_revision = "a1"

def upgrade():
    schema.upgrade(to="0001")

def downgrade():
    schema.downgrade(since="0001")
"""

FIRST_REVISION = """
from alembic import op
revision = "a1"
down_revision = None

def upgrade():
    op.execute("CREATE TABLE ours (id int)")

def downgrade():
    op.execute("DROP TABLE ours")
"""

ENV = """
import os
from alembic import context
from sqlalchemy import create_engine

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""


def alembic(folder: Path, database: Database, driver: str, *arguments: str) -> str:
    """Run the user's own Alembic, in the user's own folder."""
    url = database.url.replace("postgresql://", f"postgresql+{driver}://")
    command = [sys.executable, "-m", "alembic", "-c", str(folder / "alembic.ini"), *arguments]
    result = subprocess.run(
        command, env={**environment(database.url), "DATABASE_URL": url}, cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def users_history(tmp_path: Path) -> Path:
    """An Alembic history that is not ours, with a revision that calls `outbox.schema.upgrade`."""
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "migrations" / "env.py").write_text(ENV)
    (versions / "a1.py").write_text(FIRST_REVISION)
    (versions / "b2.py").write_text(REVISION)
    return tmp_path


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_revision_of_the_users_own_history_makes_the_same_schema(
    empty_database: Database, users_history: Path, driver: str
) -> None:
    """The third way, and back; `outbox migrate` goes on from there."""
    migrate(empty_database)
    expected = catalog(empty_database)
    migrate(empty_database, "base")
    alembic(users_history, empty_database, driver, "upgrade", "head")
    assert catalog(empty_database) == expected
    migrate(empty_database)
    assert catalog(empty_database) == expected
    assert empty_database.value("SELECT version_num FROM public.alembic_version") == "b2"
    alembic(users_history, empty_database, driver, "downgrade", "a1")
    assert leaves_no_trace(empty_database)


def test_the_users_own_history_prints_it_as_sql_too(empty_database: Database, users_history: Path) -> None:
    migrate(empty_database)
    expected = catalog(empty_database)
    migrate(empty_database, "base")
    psql(empty_database, alembic(users_history, empty_database, "psycopg", "upgrade", "head", "--sql"))
    assert catalog(empty_database) == expected


# Northwind: an existing database with a history of its own. ###########################################################


@pytest.fixture
def northwind(empty_database: Database, users_history: Path) -> Database:
    """Northwind, loaded by psql and under its own Alembic history."""
    data = ROOT.parent / "shared" / "data" / "northwind.sql"
    if not data.exists():
        pytest.skip("needs northwind.sql in ../shared/data")
    psql(empty_database, data.read_text())
    alembic(users_history, empty_database, "psycopg", "upgrade", "a1")
    return empty_database


def fingerprint(database: Database) -> dict[str, tuple[int, str]]:
    """Of each table that is not ours: its rows and a hash of all of them."""
    with psycopg.connect(database.url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        found = {}
        for (table,) in tables:
            hashed = f"SELECT count(*), md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {table} t"
            row = connection.execute(hashed).fetchone()
            assert row is not None
            found[table] = row
        return found


def test_northwind_publishes_its_orders_and_keeps_its_tables(northwind: Database, tmp_path: Path) -> None:
    before = fingerprint(northwind)
    assert before["orders"][0] == 830
    migrate(northwind)
    assert fingerprint(northwind) == before
    assert northwind.value("SELECT version_num FROM public.alembic_version") == "a1"

    app = Outbox()
    engine = sqlalchemy.create_engine(sqlalchemy_url(northwind.url))
    with engine.begin() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT order_id, customer_id, order_date FROM orders ORDER BY 1"))
        for row in rows.all():
            order = {"id": row.order_id, "customer": row.customer_id, "date": row.order_date}
            app.publish(connection, "orders.imported", order, key=str(row.customer_id))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("UPDATE orders SET freight = 0 WHERE order_id = 10248"))
        app.publish(connection, "orders.changed", {"id": 10248})
        connection.rollback()
    engine.dispose()

    db = northwind.connect(autocommit=True)
    subscribe(db, "crm", "orders.#")
    read = drain(db, "crm", register(db), 1000)
    assert [order["id"] for order in read] == list(range(10248, 11078))
    assert read[0] == {"id": 10248, "customer": "VINET", "date": "1996-07-04"}
    assert fingerprint(northwind) == before

    migrate(northwind, "base")
    assert leaves_no_trace(northwind)
    assert fingerprint(northwind) == before


def test_northwinds_own_history_takes_the_tables_in(northwind: Database, users_history: Path) -> None:
    before = fingerprint(northwind)
    alembic(users_history, northwind, "psycopg", "upgrade", "head")
    with northwind.connect() as connection:
        Outbox().publish(connection, "orders.imported", {"id": 1})
    assert northwind.value("SELECT count(*) FROM outbox.message") == 1
    after = fingerprint(northwind)
    assert after.pop("alembic_version") != before.pop("alembic_version")
    assert after == before


def test_the_functions_work_whatever_the_search_path_is(one_database: Database) -> None:
    """And whatever the user's own tables are called."""
    db = one_database.connect(autocommit=True)
    db.execute(
        textwrap.dedent("""
        CREATE TABLE message (id int); CREATE TABLE position (id int); CREATE TABLE lease (id int);
        CREATE TABLE topic (id int); CREATE FUNCTION news(int) RETURNS int RETURN 1;
    """)
    )
    db.execute("SET search_path = ''")
    subscribe(db, "s", "#")
    db.execute("SELECT outbox.publish('t', '1')")
    assert drain(db, "s", register(db)) == [1]
    assert value(db, "SELECT count(*) FROM public.message") == 0
