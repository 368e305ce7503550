"""The transactions that handlers ask for: sessions and connections on the outbox's database."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox.database import options, sqlalchemy_url


class Transactions:
    """Opens a transaction of the kind a handler asks for; it commits if the handler returns, else rolls back.

    Args:
        url: where the outbox's tables are.
        size: how many may be open at once.
        session_factory: the application's own, if it has one.
        async_session_factory: the same for coroutines.
    """

    def __init__(
        self,
        url: str,
        size: int,
        session_factory: Callable[[], orm.Session] | None = None,
        async_session_factory: Callable[[], sqlalchemy_async.AsyncSession] | None = None,
    ) -> None:
        self._url = url
        self._size = size
        self._own_session_factory = session_factory
        self._own_async_session_factory = async_session_factory

    @contextmanager
    def open(self, kind: Any) -> Iterator[Any]:
        """Open an `orm.Session` or a `psycopg.Connection` with its transaction begun."""
        if kind is orm.Session:
            with self._session_factory() as session, session.begin():
                yield session
        else:
            with self._pool.connection() as connection, connection.transaction():
                yield connection

    @asynccontextmanager
    async def open_async(self, kind: Any) -> AsyncIterator[Any]:
        """Open an `AsyncSession` or a `psycopg.AsyncConnection` with its transaction begun."""
        if kind is sqlalchemy_async.AsyncSession:
            async with self._async_session_factory() as session, session.begin():
                yield session
        else:
            await self._async_pool.open()
            async with self._async_pool.connection() as connection, connection.transaction():
                yield connection

    async def close(self) -> None:
        """Close what was opened; what is still in use is closed when it comes back."""
        opened = self.__dict__
        if "_pool" in opened:
            self._pool.close(timeout=0)
        if "_async_pool" in opened:
            await self._async_pool.close(timeout=0)

    @functools.cached_property
    def _session_factory(self) -> Callable[[], orm.Session]:
        if self._own_session_factory:
            return self._own_session_factory
        engine = sqlalchemy.create_engine(sqlalchemy_url(self._url), pool_size=self._size, max_overflow=0)
        return orm.sessionmaker(engine)

    @functools.cached_property
    def _async_session_factory(self) -> Callable[[], sqlalchemy_async.AsyncSession]:
        if self._own_async_session_factory:
            return self._own_async_session_factory
        engine = sqlalchemy_async.create_async_engine(sqlalchemy_url(self._url), pool_size=self._size, max_overflow=0)
        return sqlalchemy_async.async_sessionmaker(engine)

    @functools.cached_property
    def _pool(self) -> psycopg_pool.ConnectionPool[psycopg.Connection[Any]]:
        return psycopg_pool.ConnectionPool(self._url, min_size=1, max_size=self._size, kwargs=options(), open=True)

    @functools.cached_property
    def _async_pool(self) -> psycopg_pool.AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
        return psycopg_pool.AsyncConnectionPool(
            self._url, min_size=1, max_size=self._size, kwargs=options(), open=False
        )
