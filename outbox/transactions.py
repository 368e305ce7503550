"""The transactions that handlers ask for: sessions and connections on the outbox's database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any

import psycopg
import psycopg_pool
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox.database import options, sqlalchemy_url, without_prepared_statements, without_prepared_statements_async
from outbox.pipelining import AsyncPipelinedSeries, PipelinedSeries
from outbox.series import (
    AsyncConnectionSeries,
    AsyncSeries,
    AsyncSessionSeries,
    ConnectionSeries,
    Series,
    SessionSeries,
)
from outbox.subscription import Subscription


class Transactions:
    """The pools, engines and factories of what handlers ask for.

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

    def series(self, subscription: Subscription) -> AbstractContextManager[Series | None]:
        """The transactions of a chunk of calls, of the kind that the handler asks for; None if it asks for none."""
        if subscription.wants is None:
            return nullcontext()
        if subscription.wants[0] is orm.Session:
            assert self._session_factory is not None
            return SessionSeries(self._session_factory)
        assert self._pool is not None
        return PipelinedSeries(self._pool) if subscription.pipeline else ConnectionSeries(self._pool)

    def async_series(self, subscription: Subscription) -> AbstractAsyncContextManager[AsyncSeries | None]:
        """The transactions of a chunk, for a handler that is a coroutine; None if it asks for none."""
        if subscription.wants is None:
            return nullcontext()
        if subscription.wants[0] is sqlalchemy_async.AsyncSession:
            assert self._async_session_factory is not None
            return AsyncSessionSeries(self._async_session_factory)
        assert self._async_pool is not None
        return (AsyncPipelinedSeries if subscription.pipeline else AsyncConnectionSeries)(self._async_pool)

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
