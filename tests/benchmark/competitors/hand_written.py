"""The limits: loops that somebody writes with psycopg, and nothing else that a queue needs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.benchmark.competitors.competitor import Competitor, Publisher, Work, insert_order

_BATCH = 1_000
#: Seconds between polls when there is nothing.
_POLL = 0.002
_INSERT = "INSERT INTO effect VALUES (%s)"
_SCAN = "SELECT id, key, headers, payload, published_at FROM raw_message WHERE id > %s ORDER BY id LIMIT %s"
_MOVE = "UPDATE place SET id = %s"
_DELETE = (
    "DELETE FROM raw_message WHERE id = ANY (ARRAY("
    "SELECT id FROM raw_message ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)) "
    "RETURNING id, key, headers, payload, published_at"
)


class _HandWritten(Competitor):
    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None

    def missing(self) -> str | None:
        return None

    def install(self, url: str) -> None:
        with psycopg.connect(url) as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS raw_message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text, "
                "headers jsonb, payload json NOT NULL, published_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
            db.execute("CREATE TABLE IF NOT EXISTS place AS SELECT 0::bigint AS id")

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        with psycopg.connect(url) as connection:
            yield _Publisher(connection)

    def _count(self, url: str, statement: str) -> int:
        if self._connection is None:
            self._connection = psycopg.connect(url, autocommit=True)
        row = self._connection.execute(statement).fetchone()
        return int(row[0]) if row else 0

    def remove(self, url: str) -> None:
        if self._connection is not None:
            self._connection.close()


class _Publisher(Publisher):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        insert_order(self._connection, payload)
        self._connection.execute("INSERT INTO raw_message (payload) VALUES (%s)", (json.dumps(payload),))
        if commit:
            self._connection.commit()
        else:
            self._connection.rollback()

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        with self._connection.cursor() as cursor, cursor.copy("COPY raw_message (payload) FROM STDIN") as rows:
            for payload in payloads:
                rows.write_row((json.dumps(payload),))
        self._connection.commit()


class PlainInsert(_HandWritten):
    """A table that nobody reads: what publishing would cost if it were only an INSERT."""

    name = "plain INSERT"
    kinds = frozenset()

    def consume(self, url: str, work: Work) -> None:
        raise NotImplementedError

    def remaining(self, url: str) -> int:
        return 0


class KeysetScan(_HandWritten):
    """One reader that remembers the last id; loses what commits later than a higher id, and tries nothing again."""

    name = "keyset scan"

    def consume(self, url: str, work: Work) -> None:
        work.wait_for_start()
        with psycopg.connect(url, autocommit=True) as connection:
            last = 0
            while True:
                size = work.batch if work.kind == "effects" else _BATCH
                rows = connection.execute(_SCAN, (last, size)).fetchall()
                if rows:
                    _BY_KIND[work.kind](connection, rows, work)
                    last = rows[-1][0]
                else:
                    time.sleep(_POLL)

    def remaining(self, url: str) -> int:
        return self._count(url, "SELECT coalesce(max(id), 0) - (SELECT id FROM place) FROM raw_message")


def _read(connection: psycopg.Connection[Any], rows: list[Any], work: Work) -> None:
    for row in rows:
        work.handle(row[3])
    with connection.pipeline():  # it may be moved twice
        connection.execute("BEGIN")
        connection.execute("SET LOCAL synchronous_commit = off")
        connection.execute(_MOVE, (rows[-1][0],))
        connection.execute("COMMIT")


def _insert_one_by_one(connection: psycopg.Connection[Any], rows: list[Any], work: Work) -> None:
    with connection.pipeline():
        for row in rows:
            connection.execute("BEGIN")
            connection.execute(_INSERT, (row[3]["id"],))
            connection.execute(_MOVE, (row[0],))
            connection.execute("COMMIT")
            work.handle(row[3])


def _insert_together(connection: psycopg.Connection[Any], rows: list[Any], work: Work) -> None:
    with connection.pipeline(), connection.cursor() as cursor:
        connection.execute("BEGIN")
        cursor.executemany(_INSERT, [(row[3]["id"],) for row in rows])
        connection.execute(_MOVE, (rows[-1][0],))
        connection.execute("COMMIT")
    for row in rows:
        work.handle(row[3])


_BY_KIND: dict[str, Any] = {"nothing": _read, "effect": _insert_one_by_one, "effects": _insert_together}


class SkipLocked(_HandWritten):
    """Competing readers that delete what they take, in the transaction of its effects."""

    name = "SKIP LOCKED"

    def consume(self, url: str, work: Work) -> None:
        size = {"nothing": _BATCH, "effect": 1, "effects": work.batch}[work.kind]
        work.wait_for_start()
        with psycopg.connect(url) as connection:
            if work.kind == "nothing":
                connection.execute("SET synchronous_commit = off")
            while True:
                if rows := connection.execute(_DELETE, (size,)).fetchall():
                    self._handle(connection, rows, work)
                connection.commit()
                if not rows:
                    time.sleep(_POLL)

    def _handle(self, connection: psycopg.Connection[Any], rows: list[Any], work: Work) -> None:
        if work.kind != "nothing":
            with connection.cursor() as cursor:
                cursor.executemany(_INSERT, [(row[3]["id"],) for row in rows])
        for row in rows:
            work.handle(row[3])

    def remaining(self, url: str) -> int:
        return self._count(url, "SELECT count(*) FROM (SELECT FROM raw_message LIMIT 1) AS one")
