"""A worker's own connections: a pool that outlives restarts of the database, and one steady connection."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import psycopg.conninfo
import psycopg_pool
import sqlalchemy

from outbox import connection as connections
from outbox.errors import InvalidDeclaration
from outbox.logs import log
from outbox.operations import Operation

T = TypeVar("T")

#: The database is away: it was restarted, or the network is cut.
AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout, OSError)

_LONGEST_WAIT = 5.0


def sqlalchemy_url(url: str) -> sqlalchemy.URL:
    """The same database for SQLAlchemy, through psycopg 3. Raises InvalidDeclaration for what is no URL of one."""
    return sqlalchemy.make_url(libpq_url(url)).set(drivername="postgresql+psycopg")


def libpq_url(url: str) -> str:
    """The same database for libpq, without SQLAlchemy's driver name. Raises InvalidDeclaration for what is no URL."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise InvalidDeclaration(
            "the database's URL is not one of Postgres: it looks like postgresql://user:password@host:5432/database"
        )
    if rest.count("@") > 1:
        raise InvalidDeclaration("the database's URL has more than one @: one in the user or the password is %40")
    try:
        psycopg.conninfo.conninfo_to_dict(f"postgresql://{rest}")
    except psycopg.ProgrammingError:  # its text may show the password
        raise InvalidDeclaration(
            "the database's URL can't be read: it looks like postgresql://user:password@host:5432/database, "
            "and a % in it must be %25"
        ) from None
    return f"postgresql://{rest}"


def options() -> dict[str, Any]:
    """Settings of each connection, as libpq knows them."""
    return {
        "application_name": "outbox",
        "connect_timeout": 10,
        # a peer that vanished is noticed within half a minute or so
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


class Database:
    """Runs operations on pooled connections in autocommit mode: each is a transaction of its own.

    Args:
        url: a libpq URL.
        size: connections at most.
    """

    def __init__(self, url: str, size: int) -> None:
        self.url = url
        self._pool = psycopg_pool.AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=10,
            reconnect_timeout=5,  # then it gives up, and begins afresh when it is asked again: we ask all the time
            kwargs={"autocommit": True, **options()},
            configure=_prepare_for_pulling,
            open=False,
        )
        self._away = False
        #: How often a connection broke: what was in flight may have been committed, or a crash may have undone it.
        self.breaks = 0

        self._lines: list[Line] = []

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        for line in self._lines:
            await line.close()
        await self._pool.close(timeout=1)

    def pool_stats(self) -> dict[str, int]:
        return self._pool.get_stats()

    def line(self) -> Line:
        """A connection for one who asks all the time."""
        self._lines.append(Line(self))
        return self._lines[-1]

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation; connection errors pass through."""
        try:
            async with self._pool.connection() as connection:
                _heed_cancellation()
                return await _run(operation, connection)
        except AWAY:
            self.breaks += 1
            raise

    async def persist(self, operation: Callable[[], Operation[T]]) -> T:
        """Run an operation; while the database is away, wait and try again, for ever.

        For operations that may run twice: a connection can break after the database has committed.
        """
        while True:
            try:
                result = await self.run(operation())
            except AWAY as error:
                await self.wait_until_back(error)
            else:
                return result

    async def wait_until_back(self, error: Exception) -> None:
        """Wait until the database answers again, with backoff and jitter."""
        if not self._away:
            log(logging.WARNING, "database away", reason=str(error).splitlines()[0] if str(error) else repr(error))
        self._away = True
        wait = 0.05
        while True:
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(wait * 2, _LONGEST_WAIT)
            with suppress(*AWAY):
                async with self._pool.connection() as connection:
                    _heed_cancellation()
                    await connection.execute("SELECT 1")
                break
        if self._away:
            log(logging.INFO, "database back")
        self._away = False


class Line:
    """One connection outside of the pool: the backend that answers is always the same, and so twice as fast."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation, on a new connection if the last one broke; connection errors pass through."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = await connect(self._database.url)
                await _prepare_for_pulling(self._connection)
            return await _run(operation, self._connection)
        except AWAY:
            self._database.breaks += 1
            await self.close()
            raise

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def _heed_cancellation() -> None:
    """The pool swallows a cancellation that comes at the same moment as the connection that was waited for."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _run(operation: Operation[T], connection: psycopg.AsyncConnection[Any]) -> T:
    try:
        return await connections.run_async(operation, connection)
    except psycopg.InternalError as error:
        if error.sqlstate is not None:
            raise
        await connection.close()  # a pooler mixed up answers when the server went away
        raise psycopg.OperationalError(f"the connection is out of step: {error}") from error


async def _prepare_for_pulling(connection: psycopg.AsyncConnection[Any]) -> None:
    """Pull needs READ COMMITTED; a database's default may be another."""
    await without_prepared_statements_async(connection)
    row = await (await connection.execute("SHOW default_transaction_isolation")).fetchone()
    if row and row[0] != "read committed":
        await connection.execute("SET default_transaction_isolation = 'read committed'")


async def connect(url: str) -> psycopg.AsyncConnection[Any]:
    """Open one connection in autocommit mode, outside of the pool."""
    return await psycopg.AsyncConnection.connect(url, autocommit=True, **options())


def without_prepared_statements(connection: psycopg.Connection[Any]) -> None:
    """Prepare no statements if there is a pooler: the next one may run on another backend."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.rollback()
    if row is None or row[0] != connection.info.backend_pid:
        connection.prepare_threshold = None


async def without_prepared_statements_async(connection: psycopg.AsyncConnection[Any]) -> None:
    """Prepare no statements if there is a pooler: the next one may run on another backend."""
    if await is_pooled(connection):
        connection.prepare_threshold = None
    await connection.rollback()


async def is_pooled(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Is there a pooler, such as PgBouncer, between us and Postgres? It shows another backend than answers."""
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return row is not None and row[0] != connection.info.backend_pid
