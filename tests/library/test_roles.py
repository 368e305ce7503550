"""Least privilege: each role can do what it is for, and nothing else. Tried by connecting as each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from outbox import Outbox, once, schema
from outbox.database import sqlalchemy_url
from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.shop_floor import Database, outbox, value, wait_for, worker

ROLES = ("outbox_publisher", "outbox_worker", "outbox_monitor", "outbox_reader", "outbox_admin")


class Users:
    """A login user for each role, without any other right."""

    def __init__(self, database: Database) -> None:
        self.database = database
        engine = sqlalchemy.create_engine(sqlalchemy_url(database.url), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            self.granted = schema.create_roles(connection)
        for role in ROLES:
            database.postgres.execute(
                f"CREATE USER {self.name(role)} PASSWORD 'hush' NOSUPERUSER NOCREATEDB NOCREATEROLE; "
                f"GRANT {role} TO {self.name(role)}"
            )

    def name(self, role: str) -> str:
        return f"{self.database.name}_{role}"

    def url(self, role: str) -> str:
        return self.database.url.replace("postgres@", f"{self.name(role)}:hush@")

    def connect(self, role: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(role), autocommit=True)

    def remove(self) -> None:
        with self.database.connect(autocommit=True) as db:
            for role in ROLES:
                db.execute(f"DROP OWNED BY {self.name(role)}; DROP USER {self.name(role)}")
        drop_roles(self.database)


def drop_roles(database: Database) -> None:
    """They are the cluster's: `outbox doctor` would miss their privileges in the databases of other tests."""
    with database.connect(autocommit=True) as db:
        for role in ROLES:
            db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
def users(shop: Database) -> Iterator[Users]:
    users = Users(shop)
    try:
        yield users
    finally:
        users.remove()


def test_a_publisher_publishes_and_can_do_nothing_else(shop: Database, users: Users) -> None:
    app = Outbox()
    with users.connect("outbox_publisher") as db:
        app.publish(db, "t", {"id": 1}, key="k", headers={"h": "v"}, idempotency_key="once")
        app.publish_many(db, "t", [1, 2, 3])
        app.declare_topic(db, "wide", partitions=3, max_priority=1)
        with db.transaction():
            assert once(db, "crm", "k")
    assert shop.value("SELECT count(*) FROM outbox.message") == 4
    refused(
        users.url("outbox_publisher"),
        "SELECT * FROM outbox.message",
        "SELECT * FROM outbox.topic",
        "SELECT * FROM outbox.deduplication",
        "INSERT INTO outbox.message (slot) VALUES (0)",
        "DELETE FROM outbox.message",
        "SELECT nextval('outbox.partition_1_offset')",
        "SELECT outbox.subscribe('s')",
        "SELECT outbox.register('w', '{}')",
        "SELECT * FROM outbox.pull('s', 1)",
        "SELECT outbox.settle(1, '{1}')",
        "SELECT outbox.seek('s', 1, 0)",
        "SELECT * FROM outbox.rotate()",
        "SELECT outbox.grant_roles()",
        "SELECT * FROM outbox.route('t', 0)",
        "SELECT outbox.create_partition(1, 9, 0, 1, 'standard')",
        "CREATE TABLE outbox.mine ()",
    )


def refused(url: str, *statements: str) -> None:
    """Each is refused for lack of a privilege, and not for another reason."""
    with psycopg.connect(url, autocommit=True) as db:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement)


@pytest.mark.parametrize("guarantee", ["at-most-once", "at-least-once", "exactly-once"])
def test_a_worker_with_its_role_alone_does_all_that_workers_do(
    shop: Database, users: Users, tmp_path: Path, guarantee: str
) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee={guarantee!r}, retries=SOON)
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    app.publish(connection, "follow-up", message.payload)
    if message.payload == 3:
        raise ValueError
"""
    shop.execute(f"GRANT INSERT ON seen TO {users.name('outbox_worker')}; GRANT USAGE ON seen_id_seq TO PUBLIC")
    publish(shop, "t", *range(5))
    with worker(users.url("outbox_worker"), tmp_path, app) as process:
        wait_for_rest(shop)
        publish(shop, "t", 5)
        wait_for(lambda: "5" in seen(shop), "a message after a rest")
        assert process.stop() == 0
        assert "hush" not in process.log
    assert sorted(seen(shop)) == ["0", "1", "2", "4", "5"]


def test_a_worker_reads_no_payload_but_by_pulling(users: Users) -> None:
    refused(
        users.url("outbox_worker"),
        "SELECT payload FROM outbox.message",
        "SELECT payload FROM outbox.redelivery",
        "SELECT * FROM outbox.dead_letter",
        "DELETE FROM outbox.lease",
        'UPDATE outbox.position SET "offset" = 0',
        "SELECT outbox.seek('s', 1, 0)",
        "SELECT outbox.redrive('s')",
        "SELECT * FROM outbox.take(NULL, 1, '{}', '{}', '{}', '{}', 0::smallint, 0::smallint, 1, 1, 1, 1, true, now())",
        "SELECT outbox.seek_to('s', 'first')",
        "SELECT outbox.replay('s', 1, 1, 2)",
        "SELECT * FROM outbox.messages(1, 0, 10)",
    )


def test_a_monitor_sees_how_things_stand_and_no_content(shop: Database, users: Users) -> None:
    shop.value("SELECT outbox.subscribe('s')")
    shop.value("SELECT outbox.bind('s', 't')")
    publish(shop, "t", "secret")
    with users.connect("outbox_monitor") as db:
        assert value(db, "SELECT lag FROM outbox.lag") == 1
        assert db.execute("SELECT * FROM outbox.in_flight").fetchall() == []
        assert value(db, 'SELECT count("offset") FROM outbox.message') == 1
        assert value(db, 'SELECT count("offset") FROM outbox.redelivery') == 0
    assert outbox(users.url("outbox_monitor"), "status", "--json").returncode == 0
    refused(
        users.url("outbox_monitor"),
        *(f"SELECT {column} FROM outbox.message" for column in ("payload", "body", "headers", "key", "*")),
        *(f"SELECT {column} FROM outbox.redelivery" for column in ("payload", "body", "headers", "key", "errors")),
        *(f"SELECT {column} FROM outbox.dead_letter" for column in ("payload", "body", "headers", "key", "errors")),
        "SELECT key FROM outbox.deduplication",
        "SELECT key FROM outbox.inbox",
        "SELECT outbox.publish('t', '1')",
        "SELECT * FROM outbox.pull('s', 1)",
        "SELECT outbox.redrive('s')",
        "DELETE FROM outbox.worker",
    )


def test_a_reader_reads_the_log_and_can_do_nothing_else(shop: Database, users: Users) -> None:
    publish(shop, "t", "a", "b")
    url = users.url("outbox_reader")
    with users.connect("outbox_reader") as db:
        assert value(db, "SELECT count(*) FROM outbox.history WHERE topic = 't'") == 2
        assert [message.payload for message in Outbox().read(db, "t", start="last")] == ["b"]
    assert outbox(url, "read", "#").stdout.count("\n") == 2
    refused(
        url,
        "SELECT * FROM outbox.message",
        "SELECT * FROM outbox.topic",
        "SELECT * FROM outbox.dead_letter",
        "SELECT * FROM outbox.lag",
        "SELECT outbox.publish('t', '1')",
        "SELECT * FROM outbox.pull('s', 1)",
        "SELECT outbox.seek('s', 1, 0)",
        "SELECT outbox.log_end('outbox.partition_1_offset')",
        "SELECT * FROM outbox.messages(1, 0, 10)",
    )
    for role in ("outbox_publisher", "outbox_worker", "outbox_monitor"):
        refused(users.url(role), "SELECT * FROM outbox.history", "SELECT * FROM outbox.read('t')")


def test_an_admin_seeks_redrives_and_purges(shop: Database, users: Users, tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): raise Reject('no')\n"
    publish(shop, "t", "a", "b")
    url = users.url("outbox_admin")
    with worker(url, tmp_path, app):
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 2, "two dead letters")
    assert "rejected" in outbox(url, "dead", "list").stdout
    assert outbox(url, "dead", "redrive", "s", "1-1").returncode == 0
    assert outbox(url, "dead", "purge", "s", "--all", "--yes").returncode == 0
    with users.connect("outbox_admin") as db:
        db.execute("SELECT outbox.seek('s', 1, 0)")
        db.execute("SELECT * FROM outbox.rotate()")
    assert outbox(url, "seek", "s", "--to", "next").stdout.endswith("skipped: 2\n")
    assert outbox(url, "replay", "s", "t").stdout == "replayed: 1, skipped: 1\n"  # one waits: it was redriven
    refused(url, "DROP TABLE outbox.message", "TRUNCATE outbox.message", "SELECT outbox.grant_roles()", "CREATE ROLE x")


def test_an_admin_applies_definitions_and_a_monitor_looks_what_they_would_change(users: Users, tmp_path: Path) -> None:
    path = tmp_path / "bus.toml"
    path.write_text('[topics.t]\n[subscriptions.s]\nbindings = [{ topic = "t", filter = "$.a == 1" }]\nrate = 5\n')
    admin, monitor = users.url("outbox_admin"), users.url("outbox_monitor")
    assert outbox(monitor, "apply", str(path), "--check").returncode == 1
    assert outbox(admin, "apply", str(path)).stdout.endswith("2 to create\n")
    assert outbox(monitor, "apply", str(path), "--check", "--prune").stdout == "nothing to change\n"
    assert "rate = 5" in outbox(monitor, "export").stdout
    assert outbox(admin, "subscriptions", "unbind", "s", "t", "--filter", "$.a == 1").returncode == 0
    assert outbox(admin, "subscriptions", "delete", "s", "--yes").returncode == 0
    for role in ("outbox_monitor", "outbox_worker", "outbox_publisher"):
        refused(users.url(role), "SELECT outbox.define('[]')", "SELECT outbox.unsubscribe('s')")
        refused(users.url(role), "SELECT outbox.unbind('s', 't')", "SELECT outbox.drop_cursors(1, '{1}')")


def test_no_function_is_for_everybody_and_those_with_the_owners_rights_pin_their_search_path(users: Users) -> None:
    open_to_all = """
        SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'outbox'::regnamespace
        AND has_function_privilege('public', p.oid, 'EXECUTE')"""
    unpinned = """
        SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'outbox'::regnamespace AND p.prosecdef
        AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)"""
    allowed = """
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'outbox'::regnamespace AND NOT p.prosecdef
        AND has_function_privilege('outbox_admin', p.oid, 'EXECUTE') ORDER BY 1"""
    with users.database.connect() as db:
        assert db.execute(open_to_all).fetchall() == []
        assert db.execute(unpinned).fetchall() == []
        harmless = ["key_slot", "needed_grants", "schema_version", "topic_matches", "wake_lock"]
        # with the rights of who asks: these put triggers on tables, and a backfill runs a query
        capturing = [
            "backfill",
            "capture",
            "capture_problem",
            "capture_statements",
            "change_triggers",
            "topic_of_changes",
            "uncapture",
        ]
        assert [name for (name,) in db.execute(allowed)] == sorted(harmless + capturing), (
            "others have the owner's rights"
        )


def test_a_schema_on_the_search_path_cannot_slip_its_functions_in(shop: Database, users: Users) -> None:
    """Not into what runs with the owner's rights."""
    shop.execute(f"CREATE SCHEMA evil AUTHORIZATION {users.name('outbox_publisher')}")
    with users.connect("outbox_publisher") as db:
        db.execute("CREATE TABLE evil.stolen (who text); GRANT ALL ON evil.stolen TO PUBLIC")
        for function in ("format(text, text)", "nextval(regclass)", "clock_timestamp()", "greatest_of(int)"):
            returns = {"format(text, text)": "text", "nextval(regclass)": "bigint", "clock_timestamp()": "timestamptz"}
            db.execute(
                f"CREATE FUNCTION evil.{function} RETURNS {returns.get(function, 'int')} LANGUAGE plpgsql AS "
                "$$ BEGIN INSERT INTO evil.stolen VALUES (current_user); RETURN NULL; END $$"
            )
        db.execute("SET search_path = evil, pg_catalog")
        Outbox().publish(db, "brand.new", 1)
        Outbox().publish_many(db, "brand.new", [1, 2])
        assert value(db, "SELECT count(*) FROM evil.stolen") == 0


def test_the_command_creates_the_roles(shop: Database) -> None:
    result = outbox(shop.url, "migrate", "--roles")
    assert ", ".join(ROLES) in result.stdout, result.stderr
    assert result.returncode == 0
    drop_roles(shop)
