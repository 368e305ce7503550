"""The transactions that handlers ask for: sessions and connections on the outbox's database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy
from psycopg.pq import TransactionStatus
from sqlalchemy import event, orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox.database import options, sqlalchemy_url, without_prepared_statements, without_prepared_statements_async
from outbox.errors import OutboxError


class NotBegun(OutboxError):
    """Raised when a handler's transaction can't be opened: the handler was not called. The cause says why."""


class HandlerTransactionError(OutboxError):
    """Raised when a handler did to its transaction what is the worker's to do, or went on in one that had failed."""


class Transactions:
    """Opens transactions of the kinds that handlers ask for; one commits if its handler returns, else it rolls back.

    Args:
        url: where the outbox's tables are.
        size: how many may be open at once.
        kinds: what will be asked for.
        session_factory: the application's own, if it has one.
        async_session_factory: the same for coroutines.
    """

    def __init__(
        self,
        url: str,
        size: int,
        kinds: set[Any],
        session_factory: Callable[[], orm.Session] | None = None,
        async_session_factory: Callable[[], sqlalchemy_async.AsyncSession] | None = None,
    ) -> None:
        pool: dict[str, Any] = {
            "min_size": 1,
            "max_size": size,
            "reconnect_timeout": 5,
            "kwargs": options(),
            "open": False,
        }
        engine: dict[str, Any] = {
            "pool_size": size,
            "max_overflow": 0,
            "pool_pre_ping": True,
            "hide_parameters": True,  # they are payloads, and errors go into logs
        }
        self._engine = self._async_engine = self._pool = self._async_pool = None
        self._session_factory, self._async_session_factory = session_factory, async_session_factory
        if psycopg.Connection in kinds:
            self._pool = psycopg_pool.ConnectionPool(url, configure=without_prepared_statements, **pool)
        if psycopg.AsyncConnection in kinds:
            self._async_pool = psycopg_pool.AsyncConnectionPool(
                url, configure=without_prepared_statements_async, **pool
            )
        if orm.Session in kinds and session_factory is None:
            self._engine = sqlalchemy.create_engine(sqlalchemy_url(url), **engine)
            self._session_factory = orm.sessionmaker(self._engine)
        if sqlalchemy_async.AsyncSession in kinds and async_session_factory is None:
            self._async_engine = sqlalchemy_async.create_async_engine(sqlalchemy_url(url), **engine)
            self._async_session_factory = sqlalchemy_async.async_sessionmaker(self._async_engine)

    async def start(self) -> None:
        """Open the pools; connections are made as they are needed."""
        if self._pool:
            self._pool.open()
        if self._async_pool:
            await self._async_pool.open()

    @contextmanager
    def open(self, kind: Any, pipeline: bool = False) -> Iterator[Any]:
        """Open an `orm.Session` or a `psycopg.Connection` with its transaction begun, in pipeline mode if asked.

        Raises:
            NotBegun: it could not be opened.
            HandlerTransactionError: the handler committed, or swallowed the error of a statement.
        """
        if kind is orm.Session:
            assert self._session_factory is not None
            with self._session_factory() as session:
                with _beginning():
                    session.connection()
                guard = _CommitGuard(session)
                yield session
                _refuse_failed(session.connection().connection.driver_connection)
                guard.lifted = True
                session.commit()
        else:
            assert self._pool is not None
            with ExitStack() as stack:
                with _beginning():
                    connection = stack.enter_context(self._pool.connection())
                    if pipeline:
                        stack.enter_context(connection.pipeline())
                    stack.enter_context(connection.transaction())
                yield connection
                _refuse_failed(connection)

    def driver_connection(self, transaction: Any) -> psycopg.Connection[Any] | None:
        """The connection of an open sync transaction, whose query can be cancelled from another thread."""
        found = (
            transaction.connection().connection.driver_connection
            if isinstance(transaction, orm.Session)
            else transaction
        )
        return found if isinstance(found, psycopg.Connection) else None

    @asynccontextmanager
    async def open_async(self, kind: Any, pipeline: bool = False) -> AsyncIterator[Any]:
        """Open an `AsyncSession` or a `psycopg.AsyncConnection` with its transaction begun. Raises as `open` does."""
        if kind is sqlalchemy_async.AsyncSession:
            assert self._async_session_factory is not None
            async with self._async_session_factory() as session:
                with _beginning():
                    await session.connection()
                guard = _CommitGuard(session.sync_session)
                yield session
                raw = await (await session.connection()).get_raw_connection()
                _refuse_failed(raw.driver_connection)
                guard.lifted = True
                await session.commit()
        else:
            assert self._async_pool is not None
            async with AsyncExitStack() as stack:
                with _beginning():
                    connection = await stack.enter_async_context(self._async_pool.connection())
                    if pipeline:
                        await stack.enter_async_context(connection.pipeline())
                    await stack.enter_async_context(connection.transaction())
                yield connection
                _refuse_failed(connection)

    def pool_stats(self) -> dict[str, dict[str, int]]:
        """Of psycopg's pools; SQLAlchemy's say nothing of who waits."""
        pools = {"handlers": self._pool, "async handlers": self._async_pool}
        return {name: pool.get_stats() for name, pool in pools.items() if pool is not None}

    async def close(self) -> None:
        """Close what was opened; what a handler still uses is closed when it comes back."""
        if self._pool:
            self._pool.close(timeout=1)
        if self._async_pool:
            await self._async_pool.close(timeout=1)
        if self._engine:
            self._engine.dispose()
        if self._async_engine:
            await self._async_engine.dispose()


@contextmanager
def _beginning() -> Iterator[None]:
    """Whatever fails here fails before the handler is called."""
    try:
        yield
    except Exception as error:
        raise NotBegun("the handler's transaction could not be opened") from error


class _CommitGuard:
    """Refuses a handler's own commits, which would part its effects from the settlement."""

    def __init__(self, session: orm.Session) -> None:
        self.lifted = False
        event.listen(session, "before_commit", self._refuse)

    def _refuse(self, session: orm.Session) -> None:
        if not self.lifted:
            raise HandlerTransactionError("the handler must not commit its session: the worker does, when it returns")


def _refuse_failed(driver_connection: Any) -> None:
    """COMMIT in a transaction that failed is a silent ROLLBACK: the message would be done, and its effects gone."""
    info = getattr(driver_connection, "info", None)
    if getattr(info, "transaction_status", None) == TransactionStatus.INERROR:
        raise HandlerTransactionError(
            "a statement failed and the handler went on: its transaction can only roll back. "
            "Put such a statement into a savepoint (begin_nested, or connection.transaction())"
        )
