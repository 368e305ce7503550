"""Change capture: what statements do to a table is published, in their transactions, so that a copy can be kept."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import psycopg
import pytest
from psycopg.errors import SerializationFailure

from tests.shop_floor import Database, pull, register, settle, subscribe, value

TABLE = "CREATE TABLE t (id int PRIMARY KEY, a text, n numeric)"


def capture(db: psycopg.Connection[Any], table: str = "t", **options: Any) -> str:
    named = "".join(f", {name} => %s" for name in options)
    return str(value(db, f"SELECT outbox.capture(%s::text::regclass{named})", table, *options.values()))


def changes(db: psycopg.Connection[Any]) -> list[tuple[str, str | None, Any, Any]]:
    """What was published: operation, key, row before, row after; then it is forgotten."""
    rows = db.execute(
        "SELECT payload ->> 'operation', key, payload -> 'before', payload -> 'after', headers, payload ->> 'table' "
        'FROM outbox.message ORDER BY partition_id, "offset"'
    ).fetchall()
    db.execute("DELETE FROM outbox.message")
    assert all(row[4] == {"operation": row[0], "table": row[5]} for row in rows)
    return [row[:4] for row in rows]


def row(id: int, a: str | None = None, n: float | None = None) -> dict[str, Any]:
    return {"id": id, "a": a, "n": n}


class Copy:
    """Rows by key, kept by messages alone; fails if a message does not fit to what came before it."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}

    def apply(self, message: Any, key: str | None) -> None:
        if message["operation"] == "truncate":
            self.rows.clear()
            return
        assert key is not None
        assert message["before"] == self.rows.pop(key, None), (key, message)
        assert {"insert": (False, True), "update": (True, True), "delete": (True, False)}[message["operation"]] == (
            message["before"] is not None,
            message["after"] is not None,
        )
        if message["after"] is not None:
            self.rows[key] = message["after"]

    def catch_up(self, db: psycopg.Connection[Any], subscription: str, worker: int) -> None:
        while pulled := pull(db, subscription, worker, 500):
            for message in pulled:
                self.apply(message.payload, message.key)
            settle(db, worker, pulled)


def table_now(db: psycopg.Connection[Any], table: str = "t") -> dict[str, Any]:
    """The rows of a table as messages would show them, by the text of column id."""
    with db.transaction():
        db.execute("SET LOCAL timezone = 'UTC'")
        return {str(key): shown for key, shown in db.execute(f"SELECT id::text, row_to_json({table}.*) FROM {table}")}


@pytest.fixture
def t(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection to a database with a captured table t."""
    db.execute(TABLE)
    assert capture(db) == "changes.public.t"
    return db


def test_insert_update_delete_and_truncate_are_published(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x', 1.50), (2, NULL, NULL)")
    assert changes(t) == [("insert", "1", None, row(1, "x", 1.5)), ("insert", "2", None, row(2))]
    t.execute("UPDATE t SET a = 'y' WHERE id = 1")
    assert changes(t) == [("update", "1", row(1, "x", 1.5), row(1, "y", 1.5))]
    t.execute("DELETE FROM t")
    assert sorted(changes(t), key=str) == [("delete", "1", row(1, "y", 1.5), None), ("delete", "2", row(2), None)]
    t.execute("TRUNCATE t")
    assert changes(t) == [("truncate", None, None, None)]


def test_what_changes_nothing_publishes_nothing(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    changes(t)
    t.execute("UPDATE t SET a = 'x'")
    t.execute("UPDATE t SET a = 'y' WHERE id = 3")
    t.execute("DELETE FROM t WHERE id = 3")
    t.execute("INSERT INTO t VALUES (1, 'z') ON CONFLICT DO NOTHING")
    assert changes(t) == []
    t.execute("UPDATE t SET a = CASE id WHEN 2 THEN 'y' ELSE a END")
    assert changes(t) == [("update", "2", row(2, "x"), row(2, "y"))]


def test_a_change_is_published_if_and_only_if_its_transaction_commits(database: Database, t) -> None:
    other = database.connect()
    other.execute("INSERT INTO t VALUES (1)")
    other.rollback()
    other.execute("INSERT INTO t VALUES (2)")
    with other.transaction(force_rollback=True):
        other.execute("INSERT INTO t VALUES (3)")
    assert changes(t) == []
    other.commit()
    assert changes(t) == [("insert", "2", None, row(2))]


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_changes_are_published_at_any_isolation_level(database: Database, t, isolation: str) -> None:
    other = database.connect()
    other.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
    other.execute("INSERT INTO t VALUES (1)")
    other.commit()
    assert changes(t) == [("insert", "1", None, row(1))]


def test_a_publishing_trigger_draws_the_xid_before_the_offset(database: Database, t) -> None:
    other = database.connect()
    other.execute("INSERT INTO t VALUES (1)")
    xid = value(other, "SELECT pg_current_xact_id()::text")
    other.commit()
    assert value(t, "SELECT xid::text FROM outbox.message") == xid


def test_a_bulk_load_by_copy_and_a_bulk_update_are_published_row_by_row(t) -> None:
    with t.cursor().copy("COPY t (id, a) FROM STDIN") as copy:
        for id in range(2_500):
            copy.write_row((id, "x"))
    assert [(operation, key) for operation, key, *_ in changes(t)] == [("insert", str(id)) for id in range(2_500)]
    t.execute("UPDATE t SET n = id")
    updates = changes(t)
    assert [(before["id"], after["n"]) for _, _, before, after in updates] == [(id, id) for id in range(2_500)]
    t.execute("DELETE FROM t WHERE id % 2 = 0")
    assert {operation for operation, *_ in changes(t)} == {"delete"}


def test_a_statement_that_touches_very_many_rows_needs_little_memory(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute(TABLE)
    capture(db)
    db.execute("INSERT INTO t SELECT n, repeat('x', 20) FROM generate_series(1, 1000) AS n")
    before = _peak_of_memory(db)
    db.execute("INSERT INTO t SELECT n, repeat('x', 20) FROM generate_series(1001, 200000) AS n")
    db.execute("UPDATE t SET id = -id")
    assert value(db, "SELECT count(*) FROM outbox.message") == 600_000
    assert _peak_of_memory(db) - before < 100


def _peak_of_memory(db: psycopg.Connection[Any]) -> int:
    """MB of a backend, shared buffers included."""
    with open(f"/proc/{db.info.backend_pid}/status") as status:
        (peak,) = (int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
    return peak


def test_wide_rows_are_published_in_portions_that_fit(t) -> None:
    """No array of all of them, which could not have more than 1 GB."""
    t.execute("INSERT INTO t SELECT n, repeat('x', 500000) FROM generate_series(1, 20) AS n")
    t.execute("UPDATE t SET a = repeat('y', 500000)")
    assert value(t, "SELECT count(*) FROM outbox.message WHERE length(payload ->> 'after') > 500000") == 40


def test_upserts_are_inserts_and_updates(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x')")
    changes(t)
    t.execute("INSERT INTO t VALUES (1, 'y'), (2, 'y') ON CONFLICT (id) DO UPDATE SET a = excluded.a")
    assert sorted(changes(t), key=str) == [
        ("insert", "2", None, row(2, "y")),
        ("update", "1", row(1, "x"), row(1, "y")),
    ]


def test_merge_is_published(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    changes(t)
    t.execute(
        "MERGE INTO t USING (VALUES (1), (2), (3)) AS s (id) ON s.id = t.id WHEN MATCHED AND s.id = 1 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET a = 'y' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new')"
    )
    assert sorted(changes(t), key=str) == [
        ("delete", "1", row(1, "x"), None),
        ("insert", "3", None, row(3, "new")),
        ("update", "2", row(2, "x"), row(2, "y")),
    ]


def test_a_key_that_is_freed_and_taken_in_one_merge_is_deleted_before_it_is_inserted(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x')")
    changes(t)
    t.execute(
        "MERGE INTO t USING (VALUES ('x'), ('y')) AS s (a) ON s.a = t.a WHEN MATCHED THEN DELETE "
        "WHEN NOT MATCHED THEN INSERT VALUES (1, s.a)"
    )
    assert changes(t) == [("delete", "1", row(1, "x"), None), ("insert", "1", None, row(1, "y"))]


def test_columns_that_are_computed_when_they_are_read_are_left_out(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL)")
    capture(db)
    db.execute("INSERT INTO t VALUES (1)")
    assert changes(db) == [("insert", "1", None, {"id": 1})]
    with pytest.raises(psycopg.Error, match="it has no columns twice"):
        capture(db, columns=["twice"])


def test_changes_in_ctes_are_published_in_their_order(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x')")
    changes(t)
    t.execute("WITH gone AS (DELETE FROM t RETURNING *) INSERT INTO t SELECT id, 'again' FROM gone")
    assert changes(t) == [("delete", "1", row(1, "x"), None), ("insert", "1", None, row(1, "again"))]


def test_a_row_whose_key_changes_is_deleted_and_inserted(t) -> None:
    copy = Copy()
    subscribe(t, "copy", "changes.#")
    worker = register(t)
    t.execute("INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 5) AS n")
    t.execute("UPDATE t SET id = id + 10, a = 'moved' WHERE id = 3")
    copy.catch_up(t, "copy", worker)
    assert copy.rows == table_now(t)
    t.execute("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE")
    for shift in (1, -1, 2):  # each takes the key of another
        t.execute("UPDATE t SET id = id + %s", (shift,))
        t.execute("UPDATE t SET id = id + %s, a = a || id WHERE id < 10", (shift,))
        copy.catch_up(t, "copy", worker)
        assert copy.rows == table_now(t)
    t.execute("UPDATE t SET id = 12 - id WHERE id < 12")
    copy.catch_up(t, "copy", worker)
    assert copy.rows == table_now(t)


def test_cascades_are_published_though_they_change_a_row_twice(db) -> None:
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, boss int REFERENCES t ON UPDATE CASCADE ON DELETE SET NULL, "
        "mentor int REFERENCES t ON UPDATE CASCADE ON DELETE SET NULL, "
        "part int REFERENCES t ON UPDATE CASCADE ON DELETE CASCADE)"
    )
    capture(db)
    copy = Copy()
    subscribe(db, "copy", "changes.#")
    worker = register(db)
    for statement in (
        "INSERT INTO t SELECT n, nullif(n / 2, 0), nullif(n / 3, 0) FROM generate_series(1, 12) AS n",
        "UPDATE t SET part = 11 WHERE id > 11",
        "UPDATE t SET id = id + 100",  # a key, and then what refers to others, in the same row
        "DELETE FROM t WHERE id IN (101, 111)",
        "DELETE FROM t WHERE id < 104",
    ):
        db.execute(statement)
        copy.catch_up(db, "copy", worker)
        assert copy.rows == table_now(db), statement


def test_values_are_shown_as_json_whatever_the_session_is_set_to(database: Database, db) -> None:
    db.execute("""
        CREATE TYPE mood AS ENUM ('sad', 'happy');
        CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN amount AS numeric CHECK (value > 0);
        CREATE TABLE t (id timestamptz PRIMARY KEY, big numeric, nan numeric, inf float8, bytes bytea, ints int[],
            mood mood, moods mood[], pair pair, amount amount, js json, jsb jsonb,
            doubled int GENERATED ALWAYS AS (2 * 2) STORED, span interval, at tstzrange,
            day date, "c" text, "r" text, "a ""b"" %s" text)
    """)  # fmt: skip  # a table
    capture(db)
    subscribe(db, "copy", "changes.#")
    other = database.connect(autocommit=True)
    other.execute("SET timezone = 'Europe/Berlin'; SET datestyle = 'German'; SET bytea_output = 'escape'")
    other.execute("SET intervalstyle = 'iso_8601'; SET extra_float_digits = -10")
    other.execute("""
        INSERT INTO t VALUES ('2026-01-01 12:00+01', 12345678901234567890.12345678901234567890, 'NaN', '-infinity',
            '\\xde00', '{1,NULL}', 'sad', '{happy,NULL}', '(1,x)', 1.0,
            '{"b":  1, "a": "\\u0000"}', '{"b": 1}', DEFAULT,
            '1 day 2 hours', '[2026-01-01,)', 'infinity', 'c', NULL, '%')
    """)
    texts = database.value("SELECT payload::text FROM outbox.message").replace(
        '"js":{"b":  1, "a": "\\u0000"}', '"js":1'
    )
    assert '"big":12345678901234567890.12345678901234567890,' in texts
    assert json.loads(texts)["after"] == {
        "id": "2026-01-01T11:00:00+00:00", "big": 12345678901234567890.12345678901234567890, "nan": "NaN",
        "inf": "-Infinity", "bytes": "\\xde00", "ints": [1, None], "mood": "sad", "moods": ["happy", None],
        "pair": "(1,x)", "amount": 1.0, "js": 1, "jsb": {"b": 1}, "doubled": 4, "span": "1 day 02:00:00",
        "at": '["2025-12-31 23:00:00+00",)', "day": "infinity", "c": "c", "r": None, 'a "b" %s': "%",
    }  # fmt: skip  # a row
    other.execute("UPDATE t SET amount = 2.00")
    other.execute("DELETE FROM t")
    assert value(db, "SELECT array_agg(key) FROM outbox.message") == ["2026-01-01T11:00:00+00:00"] * 3


def test_the_two_ways_to_read_a_row_agree(db) -> None:
    """Tables of built-in types are read without dynamic SQL."""
    columns = (
        "id int, k text, b bigint, n numeric, f float8, at timestamptz, d date, js jsonb, bytes bytea, u uuid, a int[]"
    )
    db.execute(f"CREATE TABLE plain ({columns}, PRIMARY KEY (k, id))")
    db.execute("CREATE TYPE mood AS ENUM ('sad')")
    db.execute(f"CREATE TABLE mixed ({columns}, PRIMARY KEY (k, id), mood mood)")
    found = {}
    for table in ("plain", "mixed"):
        capture(db, table)
        db.execute(
            f"INSERT INTO {table} VALUES (1, '\"ü\\', 9007199254740993, 1.10, 1e-7, '2026-01-01', 'infinity', "
            "'[1, {}]', '\\x00', '6d4c3a9e-3f5b-4e0e-9d55-0d3d3ff5a111', '{{1},{2}}')"
        )
        db.execute(f"INSERT INTO {table} (id, k) VALUES (2, 'x')")
        db.execute(f"UPDATE {table} SET b = 2, k = k || id WHERE id = 1")
        rows = db.execute(
            "SELECT key, replace(replace(payload::text, 'mixed', 'plain'), ',\"mood\":null', '') FROM outbox.message"
            ' ORDER BY "offset"'
        ).fetchall()
        found[table] = rows
        db.execute("DELETE FROM outbox.message")
    assert found["plain"] == found["mixed"]
    assert [key for key, *_ in found["plain"]] == ['["\\"ü\\\\", 1]', '["x", 2]', '["\\"ü\\\\", 1]', '["\\"ü\\\\1", 1]']


def test_some_columns_can_be_left_out_and_an_update_of_those_publishes_nothing(db) -> None:
    db.execute(TABLE)
    capture(db, columns=["a"])
    db.execute("INSERT INTO t VALUES (1, 'x', 1)")
    db.execute("UPDATE t SET n = 2")
    db.execute("UPDATE t SET a = 'y', n = 3")
    db.execute("DELETE FROM t")
    assert changes(db) == [
        ("insert", "1", None, {"id": 1, "a": "x"}),
        ("update", "1", {"id": 1, "a": "x"}, {"id": 1, "a": "y"}),
        ("delete", "1", {"id": 1, "a": "y"}, None),
    ]


def test_only_the_operations_that_are_wanted_are_published(db) -> None:
    db.execute(TABLE)
    capture(db, operations=["update", "delete"])
    db.execute("INSERT INTO t VALUES (1), (2)")
    db.execute("UPDATE t SET a = 'x' WHERE id = 1")
    db.execute("DELETE FROM t")
    db.execute("TRUNCATE t")
    assert [operation for operation, *_ in changes(db)] == ["update", "delete", "delete"]


def test_the_key_can_be_named_and_there_need_be_none(db) -> None:
    db.execute("CREATE TABLE t (a text, b int, c int)")
    with pytest.raises(psycopg.Error, match="t can't be captured: it has no primary key; say which columns") as raised:
        capture(db)
    assert raised.value.sqlstate == "OB007"
    capture(db, key=["b", "a"])
    db.execute("INSERT INTO t VALUES ('x', 1), (NULL, 2)")
    assert [key for _, key, *_ in changes(db)] == ['[1, "x"]', "[2, null]"]
    capture(db, key=[])
    db.execute("UPDATE t SET a = a, c = b")
    assert [(operation, key) for operation, key, *_ in changes(db)] == [("update", None)] * 2


def test_columns_come_and_go_while_the_session_goes_on(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x', 1)")
    t.execute("ALTER TABLE t ADD COLUMN late int DEFAULT 7")
    t.execute("UPDATE t SET a = 'y'")
    t.execute("ALTER TABLE t DROP COLUMN n")
    t.execute("UPDATE t SET a = 'z'")
    t.execute("ALTER TABLE t ALTER COLUMN late TYPE text")
    t.execute("ALTER TABLE t RENAME COLUMN id TO number")
    t.execute("ALTER TABLE t RENAME TO renamed")
    t.execute("UPDATE renamed SET late = late || '!'")
    assert [(key, after) for _, key, _, after in changes(t)] == [
        ("1", row(1, "x", 1)),
        ("1", {"id": 1, "a": "y", "n": 1, "late": 7}),
        ("1", {"id": 1, "a": "z", "late": 7}),
        ("1", {"number": 1, "a": "z", "late": "7!"}),
    ]
    assert value(t, 'SELECT "table"::text FROM outbox.capture') == "renamed"


def test_a_captured_column_that_is_gone_is_left_out_and_a_key_that_is_gone_is_an_error(db) -> None:
    db.execute(TABLE)
    capture(db, columns=["a", "n"], key=["id"])
    db.execute("ALTER TABLE t DROP COLUMN n")
    db.execute("INSERT INTO t VALUES (1, 'x')")
    assert changes(db) == [("insert", "1", None, {"id": 1, "a": "x"})]
    db.execute("ALTER TABLE t RENAME COLUMN id TO number")
    with pytest.raises(
        psycopg.Error, match=r"changes of public.t can't be published: of their key \{id\} some columns"
    ):
        db.execute("INSERT INTO t VALUES (2, 'x')")
    capture(db)
    db.execute("INSERT INTO t VALUES (2, 'x')")
    db.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    with pytest.raises(psycopg.Error, match="its primary key is gone"):
        db.execute("INSERT INTO t VALUES (3, 'x')")
    db.execute("SELECT outbox.uncapture('t')")
    db.execute("INSERT INTO t VALUES (3, 'x')")


def test_partitions_and_children_are_captured_through_the_table_that_is_named(db) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, a text) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10)")
    db.execute("CREATE TABLE high (a text, dropped int, id int NOT NULL)")
    db.execute("ALTER TABLE high DROP COLUMN dropped")
    db.execute("ALTER TABLE t ATTACH PARTITION high FOR VALUES FROM (10) TO (20)")
    capture(db)
    db.execute("INSERT INTO t VALUES (1, 'x'), (11, 'x')")
    db.execute("UPDATE t SET a = 'y'")
    db.execute("UPDATE t SET id = 12 WHERE id = 1")  # to the other partition
    found = changes(db)
    assert [(operation, key) for operation, key, *_ in found] == [
        ("insert", "1"), ("insert", "11"), ("update", "1"), ("update", "11"), ("delete", "1"), ("insert", "12"),
    ]  # fmt: skip  # in the order of the statements
    assert found[-1][3] == {"id": 12, "a": "y"}
    db.execute("INSERT INTO high VALUES ('z', 13)")
    assert changes(db) == [], "of what goes past the root nothing is known"
    capture(db, "high", topic="changes.public.t", key=["id"])
    db.execute("INSERT INTO high VALUES ('z', 14)")
    db.execute("INSERT INTO t VALUES (15, 'z')")
    assert [key for _, key, *_ in changes(db)] == ["14", "15"]


@pytest.mark.parametrize(
    ("create", "name", "problem"),
    [
        ("CREATE VIEW v AS SELECT 1 AS id", "v", "it is a view; capture the tables that it reads"),
        ("CREATE MATERIALIZED VIEW v AS SELECT 1 AS id", "v", "it is a view"),
        ("CREATE SEQUENCE s", "s", "it is no table"),
        ("CREATE TEMP TABLE v (id int PRIMARY KEY)", "v", "it is a temporary table"),
        ("SELECT", "outbox.topic", "it belongs to outbox"),
        ("SELECT", "pg_class", "it belongs to pg_catalog"),
        ('CREATE TABLE "Order Items" (id int PRIMARY KEY)', '"Order Items"', "its name can't be part of a topic's"),
    ],
)
def test_what_is_no_table_of_the_application_is_refused(db, create: str, name: str, problem: str) -> None:
    db.execute(create)
    with pytest.raises(psycopg.Error, match=problem) as raised:
        capture(db, name)
    assert raised.value.sqlstate == "OB007"
    assert db.execute("SELECT FROM outbox.capture").fetchall() == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"columns": ["a", "b", "c"]}, "it has no columns b, c"),
        ({"key": ["b"]}, "it has no columns b"),
        ({"columns": []}, "no columns are named"),
        ({"columns": ["a", None]}, "a column's name is NULL"),
        ({"key": ["id", "id"]}, "its key names a column twice"),
        ({"operations": ["insert", "select"]}, "operations are of insert, update, delete and truncate"),
        ({"operations": []}, "no operations are named"),
        ({"topic": "a b"}, "a b"),
    ],
)
def test_a_capture_that_cannot_be_is_refused(db, options: dict[str, Any], problem: str) -> None:
    db.execute(TABLE)
    with pytest.raises(psycopg.Error, match=problem) as raised:
        capture(db, **options)
    assert raised.value.sqlstate in ("OB007", "23514")
    assert value(db, "SELECT count(*) FROM pg_trigger WHERE tgname ~ 'outbox'") == 0


def test_names_are_never_run_as_sql(db) -> None:
    table, column = '"x\'); DROP TABLE t; --"', '"y\'; DROP TABLE t; --"'
    db.execute(TABLE)
    db.execute(f'CREATE TABLE {table} ({column} int PRIMARY KEY, "a,b{{" text)')
    name = column.strip('"')
    capture(db, table, topic="odd", columns=["a,b{"], key=[name])
    db.execute(f"INSERT INTO {table} VALUES (1, '%s %1$I')")
    assert changes(db) == [("insert", "1", None, {name: 1, "a,b{": "%s %1$I"})]
    assert value(db, "SELECT count(*) FROM t") == 0


def test_to_capture_again_changes_how_and_uncapture_ends_it(t) -> None:
    assert capture(t, operations=["delete"], topic="gone", columns=["a"]) == "gone"
    t.execute("INSERT INTO t VALUES (1, 'x', 1)")
    t.execute("DELETE FROM t")
    assert changes(t) == [("delete", "1", {"id": 1, "a": "x"}, None)]
    assert value(t, "SELECT array_agg(tgname::text) FROM pg_trigger WHERE tgrelid = 't'::regclass") == [
        "outbox_capture_delete"
    ]
    assert t.execute('SELECT "table"::text, topic, operations, columns, key FROM outbox.capture').fetchall() == [
        ("t", "gone", ["delete"], ["a"], None)
    ]
    assert value(t, "SELECT outbox.uncapture('t')") is True
    t.execute("INSERT INTO t VALUES (1, 'x', 1)")
    t.execute("DELETE FROM t")
    assert changes(t) == []
    assert value(t, "SELECT outbox.uncapture('t')") is False
    assert value(t, "SELECT count(*) FROM outbox.capture") == 0


def test_a_dropped_table_takes_its_capture_with_it(t) -> None:
    t.execute("DROP TABLE t")
    t.execute(TABLE)
    capture(t)
    assert value(t, "SELECT count(*) FROM outbox.capture") == 1


def test_a_capture_that_rolls_back_was_never_there(database: Database, db) -> None:
    db.execute(TABLE)
    other = database.connect()
    capture(other)
    other.rollback()
    db.execute("INSERT INTO t VALUES (1)")
    assert changes(db) == []


def test_who_keeps_a_table_from_being_captured_is_named_and_nobody_waits_long(database: Database, db) -> None:
    db.execute(TABLE)
    writer = database.connect()
    writer.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(
        psycopg.Error, match=rf"others use it: pid {writer.info.backend_pid} \(postgres\) since"
    ) as raised:
        capture(db)
    assert raised.value.sqlstate == "OB007"
    writer.rollback()
    capture(db)


def test_a_topic_that_is_not_declared_is_an_error_where_declaring_is_off(database: Database) -> None:
    database.switch_off_declaring()
    db = database.connect(autocommit=True)
    db.execute(TABLE)
    with pytest.raises(psycopg.Error, match="is not declared"):
        capture(db)
    db.execute("SELECT outbox.declare_topic('changes.public.t', 4)")
    capture(db)
    db.execute("INSERT INTO t VALUES (1)")


def test_dropping_our_schema_leaves_the_table_as_it_was(t) -> None:
    t.execute("INSERT INTO t VALUES (1, 'x')")
    t.execute("DROP SCHEMA outbox CASCADE")
    t.execute("INSERT INTO t VALUES (2, 'x')")
    t.execute("UPDATE t SET a = 'y'")
    t.execute("TRUNCATE t")
    assert value(t, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 't'::regclass") == 0


STATEMENTS = (
    "INSERT INTO t SELECT %(id)s, 'new', %(n)s WHERE NOT EXISTS (SELECT FROM t WHERE id = %(id)s)",
    "INSERT INTO t VALUES (%(id)s, 'upsert', %(n)s) ON CONFLICT (id) DO UPDATE SET a = t.a || 'u', n = excluded.n",
    "INSERT INTO t SELECT g, 'many', %(n)s FROM generate_series(%(id)s, %(id)s + 9) g ON CONFLICT DO NOTHING",
    "UPDATE t SET n = n + 1 WHERE id = %(id)s",
    "UPDATE t SET a = left(a || 'z', 9) WHERE id BETWEEN %(id)s AND %(id)s + 5",
    "UPDATE t SET id = 50 - id WHERE id BETWEEN %(id)s AND %(id)s + 5 "
    "AND NOT EXISTS (SELECT FROM t u WHERE u.id = 50 - t.id)",
    "DELETE FROM t WHERE id = %(id)s",
    "DELETE FROM t WHERE id BETWEEN %(id)s AND %(id)s + 3",
    "WITH gone AS (DELETE FROM t WHERE id = %(id)s RETURNING *) INSERT INTO t SELECT id, 'again', n FROM gone",
    "MERGE INTO t USING (SELECT %(id)s AS id) s ON s.id = t.id WHEN MATCHED AND t.n > 5 THEN DELETE "
    "WHEN MATCHED THEN UPDATE SET n = 6 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged', 1)",
)


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_that_is_kept_by_messages_alone_ends_as_the_table(db, seed: int) -> None:
    chance = random.Random(seed)
    db.execute(
        TABLE + ("" if seed else "; CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE t ADD mood mood DEFAULT 'sad'")
    )
    capture(db)
    copy = Copy()
    subscribe(db, "copy", "changes.#")
    worker = register(db)
    for step in range(150):
        with db.transaction(force_rollback=chance.random() < 0.2):
            for _ in range(chance.choice((1, 1, 3))):
                arguments = {"id": chance.randrange(40), "n": chance.randrange(9)}
                db.execute(chance.choice(STATEMENTS), arguments)
        if chance.random() < 0.05:
            with db.cursor().copy("COPY t (id, a) FROM STDIN") as rows:
                for id in range(100 + 10 * step, 100 + 10 * step + 5):
                    rows.write_row((id, "copied"))
        if chance.random() < 0.02:
            db.execute("TRUNCATE t")
        if chance.random() < 0.1:
            copy.catch_up(db, "copy", worker)
    copy.catch_up(db, "copy", worker)
    assert copy.rows == table_now(db)


@pytest.mark.parametrize("partitions", [1, 4])
def test_concurrent_writers_are_followed_in_the_order_of_each_key(database: Database, db, partitions: int) -> None:
    db.execute(TABLE)
    db.execute("SELECT outbox.declare_topic('changes.public.t', %s)", (partitions,))
    capture(db)
    subscribe(db, "copy", "changes.#")
    worker = register(db)
    copy = Copy()
    writers = [
        threading.Thread(target=_write, args=(database.connect(), random.Random(seed), 100)) for seed in range(4)
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        copy.catch_up(db, "copy", worker)
    copy.catch_up(db, "copy", worker)
    assert copy.rows == table_now(db)
    assert len(copy.rows) > 3


def _write(db: psycopg.Connection[Any], chance: random.Random, transactions: int) -> None:
    for _ in range(transactions):
        try:
            for _ in range(chance.choice((1, 2, 4))):
                db.execute(chance.choice(STATEMENTS), {"id": chance.randrange(20), "n": chance.randrange(9)})
            if chance.random() < 0.2:
                db.rollback()
            else:
                db.commit()
        except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation, SerializationFailure):
            db.rollback()
