"""A dump goes on living in another cluster, where xids start again somewhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.engine.test_read import Reader
from tests.servers import Postgres
from tests.shop_floor import Database, drain, publish, pull, register, settle, subscribe

_BURN = "DO $$ BEGIN FOR i IN 1 .. {} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"


def test_a_restored_backlog_is_delivered_once_though_its_xids_come_again(own_postgres: Database) -> None:
    with own_postgres.connect(autocommit=True) as db:
        db.execute(_BURN.format(20_000))  # so that the restored cluster has yet to come to the xids of these messages
        subscribe(db, "s", "t")
        publish(db, "t", *"abcdefgh")
        worker = register(db)
        settle(db, worker, pull(db, "s", worker, 1))
    with _restored(own_postgres) as cluster, _connect(cluster) as db, _connect(cluster) as publisher:
        (xid,) = db.execute("SELECT xid::text::bigint FROM outbox.message WHERE payload::text = '\"f\"'").fetchone()
        (now,) = db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        db.execute(_BURN.format(xid - now - 1))
        publisher.execute("BEGIN")
        assert publisher.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() == (xid,)
        assert drain(db, "s", worker, 2) == list("bcdefgh")
        publish(publisher, "t", "i")
        publisher.execute("COMMIT")
        assert drain(db, "s", worker, 2) == ["i"]


def test_a_reader_goes_on_in_a_restored_log_though_its_xids_come_again(own_postgres: Database) -> None:
    with own_postgres.connect(autocommit=True) as db:
        db.execute(_BURN.format(20_000))
        publish(db, "t", *"abcdefgh")
        reader = Reader(db)
        assert reader.look(max_messages=1) == ["a"]
    with _restored(own_postgres) as cluster, _connect(cluster) as db, _connect(cluster) as publisher:
        (xid,) = db.execute("SELECT xid::text::bigint FROM outbox.message WHERE payload::text = '\"f\"'").fetchone()
        (now,) = db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        db.execute(_BURN.format(xid - now - 1))
        publisher.execute("BEGIN")
        assert publisher.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() == (xid,)
        reader = Reader(db, position=reader.position)
        assert reader.drain(max_messages=2) == list("bcdefgh")
        publish(publisher, "t", "i")
        publisher.execute("COMMIT")
        assert reader.drain(max_messages=2) == ["i"]


@contextmanager
def _restored(database: Database) -> Iterator[Postgres]:
    """The database in a fresh cluster."""
    old, dump = database.postgres, database.postgres.folder / "dump"
    old.run("pg_dump", "--format=custom", "--file", dump, "--dbname", database.url)
    cluster = Postgres(old.binaries)
    try:
        cluster.run("pg_restore", "--dbname", cluster.url(), "--exit-on-error", dump)
        yield cluster
    finally:
        cluster.remove()


def _connect(cluster: Postgres) -> psycopg.Connection:
    return psycopg.connect(cluster.url(), autocommit=True)
