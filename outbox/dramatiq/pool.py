"""Connections of a process's own: what is said on them is committed at once."""

from __future__ import annotations

import os
import select
import threading
from typing import Any, TypeVar

import psycopg
import psycopg_pool
from dramatiq.errors import ConnectionClosed, ConnectionFailed

from outbox import connection as connections
from outbox.database import libpq_url, options, without_prepared_statements
from outbox.errors import InvalidDeclaration
from outbox.operations import Operation

T = TypeVar("T")

#: Seconds to wait for a free connection, or for a new one.
_PATIENCE = 10.0


class Pool:
    """Runs operations, each in one round trip and a transaction of its own. Thread-safe; opened when it is first used.

    A process that forks has a pool of its own, and a pool that was closed opens again.

    Args:
        url: the database; None: `OUTBOX_DATABASE_URL`.
        size: connections at most.

    Raises:
        InvalidDeclaration: there is no URL, or it is none of Postgres.
    """

    def __init__(self, url: str | None, size: int) -> None:
        url = url or os.environ.get("OUTBOX_DATABASE_URL")
        if not url:
            raise InvalidDeclaration("no database: pass its URL, or set OUTBOX_DATABASE_URL")
        self.url, self._size = libpq_url(url), size
        self._lock = threading.Lock()
        self._pool: psycopg_pool.ConnectionPool[psycopg.Connection[Any]] | None = None
        self._owner = 0

    def run(self, operation: Operation[T]) -> T:
        """Run one operation.

        Raises:
            dramatiq.errors.ConnectionFailed: no connection could be had; nothing was done.
            dramatiq.errors.ConnectionClosed: it broke: whether the operation was done is not known.
        """
        try:
            with self._opened().connection() as connection:
                return connections.run(operation, connection)
        except psycopg_pool.PoolTimeout as error:
            raise ConnectionFailed(f"no connection to the database within {_PATIENCE:.0f} s") from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if broken := _as_broken(error):
                raise broken from error
            raise

    def close(self) -> None:
        """Close the connections that are idle, and those in use when they are given back."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None and self._owner == os.getpid():
            pool.close()

    def _opened(self) -> psycopg_pool.ConnectionPool[psycopg.Connection[Any]]:
        with self._lock:
            if self._pool is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._pool = psycopg_pool.ConnectionPool(
                    self.url,
                    min_size=0,
                    max_size=self._size,
                    timeout=_PATIENCE,
                    reconnect_timeout=_PATIENCE,
                    kwargs={"autocommit": True, **options()},
                    configure=_prepare,
                    check=_check,
                    open=True,
                )
            return self._pool


def _prepare(connection: psycopg.Connection[Any]) -> None:
    """Binding a queue needs READ COMMITTED; a database's default may be another."""
    without_prepared_statements(connection)
    row = connection.execute("SHOW default_transaction_isolation").fetchone()
    if row and row[0] != "read committed":
        connection.execute("SET default_transaction_isolation = 'read committed'")


def _check(connection: psycopg.Connection[Any]) -> None:
    """An idle connection has nothing to say, unless it was closed: so a restart of the database costs no message."""
    readable, _, _ = select.select([connection.fileno()], [], [], 0) if connection.fileno() < 1024 else ([1], [], [])
    if readable:
        connection.execute("")


def _as_broken(error: psycopg.Error) -> ConnectionClosed | None:
    """The error as dramatiq knows it, if the connection is gone."""
    state = error.sqlstate
    if state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05"):
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ConnectionClosed(f"the connection to the database broke: {text}")
    return None
