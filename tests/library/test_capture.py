"""Change capture as people use it: the command, roles, the doctor, and an application that knows nothing of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.engine.test_capture import TABLE, changes
from tests.library.test_doctor import WELL, doctor, mend, role
from tests.library.test_migrations import leaves_no_trace, migrate, psql
from tests.library.test_roles import drop_roles
from tests.shop_floor import ROOT, Database, outbox, pull, register, settle, subscribe, value


@pytest.fixture
def t(one_database: Database) -> Database:
    one_database.execute(TABLE)
    return one_database


def test_the_command_captures_lists_and_ends_it(t: Database) -> None:
    result = outbox(t.url, "capture", "t", "--on", "insert,delete", "--columns", "a", "--topic", "t.changed")
    assert (result.stdout, result.stderr) == ("captured: t, published to t.changed\n", "")
    listed = json.loads(outbox(t.url, "captures", "--json").stdout)
    assert [one.pop("created_at") is not None for one in listed] == [True]
    assert listed == [
        {"table": "public.t", "topic": "t.changed", "operations": ["insert", "delete"], "columns": ["a"], "key": None}
    ]
    assert re.search("public.t .* t.changed .* insert, delete .* a .* primary key", outbox(t.url, "captures").stdout)
    assert outbox(t.url, "capture", "t", "--no-key").stdout == "captured: t, published to changes.public.t\n"
    (one,) = json.loads(outbox(t.url, "captures", "--json").stdout)
    assert (one["columns"], one["key"], len(one["operations"])) == (None, [], 4)
    assert outbox(t.url, "uncapture", "t").stdout == "not captured any more: t\n"
    assert outbox(t.url, "uncapture", "t").stdout == "it was not captured: t\n"
    assert outbox(t.url, "captures").stdout == "no captures\n"


def test_a_dry_run_prints_the_sql_and_changes_nothing(t: Database) -> None:
    result = outbox(t.url, "capture", "t", "--on", "update", "--key", "a,id", "--dry-run")
    assert result.stdout == (
        "CREATE OR REPLACE TRIGGER outbox_capture_update AFTER UPDATE ON public.t REFERENCING OLD TABLE AS outbox_old "
        "NEW TABLE AS outbox_new FOR EACH STATEMENT "
        "EXECUTE FUNCTION outbox.publish_changes('changes.public.t', '', '{a,id}');\n"
    )
    assert t.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass") == 0
    assert outbox(t.url, "captures").stdout == "no captures\n"


@pytest.mark.parametrize(
    ("arguments", "problem", "code"),
    [
        (("nothing",), 'relation "nothing" does not exist', 1),
        (("t", "--columns", "b"), "public.t can't be captured: it has no columns b", 1),
        (("t", "--on", "select"), "'select' is no change", 2),
        (("t", "--key", "id", "--no-key"), "either --key or --no-key", 2),
    ],
)
def test_the_command_says_what_can_not_be(t: Database, arguments: tuple[str, ...], problem: str, code: int) -> None:
    result = outbox(t.url, "capture", *arguments)
    assert problem in result.stderr
    assert result.returncode == code


def test_the_command_warns_of_triggers_that_could_turn_the_order_round(t: Database) -> None:
    t.execute("CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    for name, when in (("before_row", "BEFORE"), ("after_row", "AFTER")):
        t.execute(f"CREATE TRIGGER {name} {when} INSERT ON t FOR EACH ROW EXECUTE FUNCTION again()")
    result = outbox(t.url, "capture", "t")
    assert result.returncode == 0
    assert "t has AFTER ROW triggers (after_row): if one changes t itself" in result.stderr


@pytest.fixture
def owner(t: Database) -> Iterator[str]:
    """The URL of an application's user: t is its own; of outbox it knows nothing."""
    with role(t) as url:
        name = url.split("//")[1].split("@")[0]
        t.execute(f"ALTER TABLE t OWNER TO {name}; GRANT CREATE ON SCHEMA public TO {name}")
        yield url


def test_an_application_without_any_rights_to_our_schema_is_captured(t: Database, owner: str) -> None:
    outbox(t.url, "capture", "t")
    with psycopg.connect(owner, autocommit=True) as db:
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("SET search_path = ''")
        db.execute("UPDATE public.t SET a = 'x'")
        for forbidden in (
            "SELECT outbox.publish('changes.public.t', '1')",
            "SELECT outbox.uncapture('t')",
            "CREATE TRIGGER x AFTER INSERT ON public.t EXECUTE FUNCTION outbox.publish_changes('orders', '', '')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(forbidden)
    with t.connect(autocommit=True) as db:
        assert [operation for operation, *_ in changes(db)] == ["insert", "update"]


@contextmanager
def admin(database: Database) -> Iterator[str]:
    """The URL of a user of our admin role."""
    db = database.connect(autocommit=True)
    db.execute("SELECT outbox.grant_roles(true)")
    db.execute("CREATE ROLE captain LOGIN IN ROLE outbox_admin")
    try:
        yield database.url.replace("postgres@", "captain@")
    finally:
        db.execute("DROP OWNED BY captain; DROP ROLE captain")
        drop_roles(database)


def test_who_captures_needs_a_privilege_on_the_table_and_our_admin_role(t: Database, owner: str) -> None:
    """Neither lets one put triggers on what is not one's own."""
    with admin(t) as url:
        with psycopg.connect(url, autocommit=True) as db:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table t"):
                db.execute("SELECT outbox.capture('t')")
            assert value(db, "SELECT count(*) FROM outbox.capture") == 0
            t.execute("GRANT TRIGGER ON t TO captain")
            db.execute("SELECT outbox.capture('t')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner of"):
                db.execute("SELECT outbox.uncapture('t')")
        t.execute(f"GRANT outbox_admin TO {name_of(owner)}")
        with psycopg.connect(owner, autocommit=True) as db:
            db.execute("INSERT INTO t VALUES (1)")
            assert value(db, "SELECT outbox.uncapture('t')") is True
            assert value(db, "SELECT outbox.capture('t', '{insert}')") == "changes.public.t"


def name_of(url: str) -> str:
    return url.split("//")[1].split("@")[0]


def test_a_cast_of_the_application_is_not_run_with_our_rights(t: Database, owner: str) -> None:
    """to_json(value) runs a cast to json that the owner of the value's type has written."""
    with psycopg.connect(owner, autocommit=True) as db:
        for type, kind in (("mood", "ENUM ('sad')"), ("pair", "(a int)")):
            db.execute(f"CREATE TYPE {type} AS {kind}")
            db.execute(
                f"CREATE FUNCTION steal({type}) RETURNS json LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'run as %', current_user; END $$"
            )
            db.execute(f"CREATE CAST ({type} AS json) WITH FUNCTION steal({type})")
            db.execute(f"ALTER TABLE t ADD {type} {type}, ADD {type}s {type}[]")
        db.execute("CREATE DOMAIN moody AS mood; ALTER TABLE t ADD moody moody, ADD moodies moody[]")
        outbox(t.url, "capture", "t")
        db.execute("INSERT INTO t VALUES (1, 'a', 1, 'sad', '{sad}', '(1)', '{(1)}', 'sad', '{sad}')")
        db.execute("UPDATE t SET a = 'b'")
        db.execute("ALTER TABLE t ALTER a TYPE mood USING 'sad'")
        db.execute("DELETE FROM t")
        db.execute("DROP CAST (mood AS json); DROP CAST (pair AS json)")
    with t.connect(autocommit=True) as db:
        first = changes(db)[0][3]
    assert first == {
        "id": 1, "a": "a", "n": 1, "mood": "sad", "moods": ["sad"], "pair": "(1)", "pairs": ["(1)"], "moody": "sad",
        "moodies": ["sad"],
    }  # fmt: skip  # a row


def test_the_doctor_finds_captures_that_do_not_publish(database: Database) -> None:
    db = database.connect(autocommit=True)
    db.execute('CREATE SCHEMA "S \'1"; CREATE TABLE "S \'1".t (id int PRIMARY KEY, a text, b text)')
    table = '"S \'1".t'
    db.execute("SELECT outbox.capture(%s::text::regclass, '{insert,delete}', '{a,b}', 'odd', '{id}')", (table,))
    assert doctor(database) == WELL
    for statement, state in (
        (f"ALTER TABLE {table} DISABLE TRIGGER outbox_capture_delete", "is disabled"),
        (f"ALTER TABLE {table} ENABLE REPLICA TRIGGER outbox_capture_delete", "is disabled"),
        (f"DROP TRIGGER outbox_capture_delete ON {table}", "is missing"),
    ):
        db.execute(statement)
        finding = doctor(database).of("capture-trigger")
        assert finding["what"] == (
            f"the changes of {table} by delete are not published: trigger outbox_capture_delete {state}"
        )
        mend(database, finding)
        assert doctor(database) == WELL
    assert value(db, "SELECT (columns, key, topic)::text FROM outbox.capture") == '("{a,b}",{id},odd)'
    db.execute(f"ALTER TABLE {table} DROP b")
    assert doctor(database).of("capture-columns")["fields"] == {"table": table, "columns": ["b"]}
    db.execute(f"ALTER TABLE {table} DROP id")
    finding = doctor(database).of("capture-key")
    assert finding["severity"] == "critical"
    assert finding["what"] == f"writing to {table} fails: it is captured, and the key of its messages is gone"
    mend(database, finding)
    assert doctor(database) == WELL
    db.execute(f"ALTER TABLE {table} ADD id int PRIMARY KEY")
    db.execute("SELECT outbox.capture(%s::text::regclass, topic => 'odd')", (table,))
    assert doctor(database) == WELL
    db.execute(f"DROP TABLE {table}")
    assert doctor(database) == WELL


NORTHWIND = ROOT.parent / "shared" / "data" / "northwind.sql"


def test_northwind_is_followed_though_it_knows_nothing_of_it(database: Database) -> None:
    if not NORTHWIND.exists():
        pytest.skip("needs northwind.sql in ../shared/data")
    psql(database, NORTHWIND.read_text())
    db = database.connect(autocommit=True)
    tables = ("customers", "orders", "order_details", "employees")
    for table in tables:
        subscribe(db, table, f"changes.public.{table}")
        db.execute("SELECT outbox.capture(%s::text::regclass)", (table,))
        db.execute(f"CREATE TABLE copy_{table} AS TABLE {table}")
    worker = register(db)
    for statement in (
        "DELETE FROM order_details WHERE order_id < 10300",
        "DELETE FROM orders WHERE order_id < 10300",
        "UPDATE orders SET freight = freight * 2, shipped_date = order_date WHERE ship_country = 'Germany'",
        "UPDATE customers SET region = 'EU' WHERE country IN ('Germany', 'France')",
        "UPDATE order_details SET quantity = quantity + 1 WHERE product_id = 11",
        "UPDATE order_details SET order_id = 11076 WHERE order_id = 11077 AND product_id > 50",
        "UPDATE employees SET reports_to = NULL, notes = notes || ' ÿ'",
        "INSERT INTO customers (customer_id, company_name) VALUES ('OUTBX', 'Outbox') ON CONFLICT DO NOTHING",
        "INSERT INTO orders SELECT order_id + 1000, 'OUTBX', employee_id FROM orders",
    ):
        db.execute(statement)
    for table in tables:
        follow(db, table, worker)
        difference = f"(TABLE {table} EXCEPT TABLE copy_{table}) UNION ALL (TABLE copy_{table} EXCEPT TABLE {table})"
        assert db.execute(difference).fetchall() == [], table


def follow(db: psycopg.Connection[Any], table: str, worker: int) -> None:
    """Bring copy_TABLE up to date by messages alone: the row before goes, the row after comes."""
    copy = f"copy_{table}"
    while pulled := pull(db, table, worker, 500):
        for message in pulled:
            if before := message.payload["before"]:
                gone = db.execute(
                    f"DELETE FROM {copy} c WHERE c::text = json_populate_record(NULL::{copy}, %s)::text",
                    (json.dumps(before),),
                )
                assert gone.rowcount == 1, message
            if after := message.payload["after"]:
                db.execute(
                    f"INSERT INTO {copy} SELECT * FROM json_populate_record(NULL::{copy}, %s)", (json.dumps(after),)
                )
        settle(db, worker, pulled)


def test_to_migrate_down_leaves_the_tables_of_the_application_as_they_were(t: Database) -> None:
    t.execute("SELECT outbox.capture('t')")
    migrate(t, "base")
    assert leaves_no_trace(t)
    t.execute("INSERT INTO t VALUES (1); UPDATE t SET a = 'x'; DELETE FROM t; TRUNCATE t")
    assert t.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass") == 0


def test_captures_survive_a_dump_and_a_restore(t: Database) -> None:
    t.execute("INSERT INTO t VALUES (1)")
    outbox(t.url, "capture", "t", "--columns", "a")
    binaries = t.postgres.binaries
    dump = subprocess.run([binaries / "pg_dump", t.url], capture_output=True, text=True, check=True).stdout
    t.postgres.execute(f"CREATE DATABASE {t.name}_restored TEMPLATE template0")
    restored = Database(t.postgres, f"{t.name}_restored")
    try:
        psql(restored, dump)
        restored.execute("UPDATE t SET a = 'x'")
        db = restored.connect(autocommit=True)
        assert [operation for operation, *_ in changes(db)] == ["update"]
        assert doctor(restored) == WELL
        assert "public.t" in outbox(restored.url, "captures").stdout
    finally:
        restored.close()
        t.postgres.execute(f"DROP DATABASE {t.name}_restored WITH (FORCE)")
