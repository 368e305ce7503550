"""The transactions that a runner's handlers are given, one after the other; each commits if its handler returns.

On a psycopg connection a settlement, the commit and the beginning of the next transaction take one round trip.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import psycopg_pool
from psycopg.pq import TransactionStatus
from sqlalchemy import event, orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import connection as connections
from outbox.errors import OutboxError
from outbox.operations import Operation

COMMIT_AND_GO_ON = "COMMIT AND CHAIN"
WENT_ON = (
    "a statement failed and the handler went on: its transaction can only roll back. "
    "Put such a statement into a savepoint (begin_nested, or connection.transaction())"
)


class NotBegun(OutboxError):
    """Raised when a handler's transaction can't be opened: the handler was not called. The cause says why."""


class HandlerTransactionError(OutboxError):
    """Raised when a handler did to its transaction what is the worker's to do, or went on in one that had failed."""


@dataclass(slots=True)
class Begun:
    """A transaction that has begun."""

    #: What the handler gets: a session or a connection.
    given: Any
    #: Its connection, if its query can be cancelled from another thread.
    connection: psycopg.Connection[Any] | None = None
    #: What is said to the database last, right before the commit.
    last: Operation[None] | None = None


class Series(Protocol):
    """Enter it for the calls of a chunk; then `begin` a transaction for each."""

    def begin(self, more: bool) -> AbstractContextManager[Begun]:
        """Begin a transaction, which commits if the block ends, and rolls back if it raises.

        Args:
            more: will another one follow at once?

        Raises:
            NotBegun: it could not be opened.
            HandlerTransactionError: the handler committed, or swallowed the error of a statement.
        """
        ...


class AsyncSeries(Protocol):
    """A Series for coroutines."""

    def begin(self, more: bool) -> AbstractAsyncContextManager[Begun]:
        """Begin a transaction, as `Series.begin` does."""
        ...


class SessionSeries(AbstractContextManager["SessionSeries"]):
    """Sessions of a factory, one a transaction."""

    def __init__(self, factory: Callable[[], orm.Session]) -> None:
        self._factory = factory

    def __exit__(self, *error: object) -> None: ...

    @contextmanager
    def begin(self, more: bool) -> Iterator[Begun]:
        with self._factory() as session:
            with beginning():
                driver = session.connection().connection.driver_connection
            guard = _CommitGuard(session)
            begun = Begun(session, driver if isinstance(driver, psycopg.Connection) else None)
            yield begun
            if begun.last:
                connections.run(begun.last, session)
            refuse_failed(session.connection().connection.driver_connection)
            guard.lifted = True
            session.commit()


class AsyncSessionSeries(AbstractAsyncContextManager["AsyncSessionSeries"]):
    """Async sessions of a factory, one a transaction."""

    def __init__(self, factory: Callable[[], sqlalchemy_async.AsyncSession]) -> None:
        self._factory = factory

    async def __aexit__(self, *error: object) -> None: ...

    @asynccontextmanager
    async def begin(self, more: bool) -> AsyncIterator[Begun]:
        async with self._factory() as session:
            with beginning():
                await session.connection()
            guard = _CommitGuard(session.sync_session)
            begun = Begun(session)
            yield begun
            if begun.last:
                await connections.run_async(begun.last, session)
            raw = await (await session.connection()).get_raw_connection()
            refuse_failed(raw.driver_connection)
            guard.lifted = True
            await session.commit()


class ConnectionSeries(AbstractContextManager["ConnectionSeries"]):
    """Transactions on one connection of a pool, which it keeps until one fails or the chunk ends."""

    def __init__(self, pool: psycopg_pool.ConnectionPool[Any]) -> None:
        self._pool = pool
        self._connection: psycopg.Connection[Any] | None = None
        #: How the connection goes back to the pool; and how its transaction ends, as psycopg knows it.
        self._kept, self._transaction = ExitStack(), ExitStack()

    def __exit__(self, *error: object) -> None:
        if self._connection is not None:  # the next one had begun
            self._give_back()

    @contextmanager
    def begin(self, more: bool) -> Iterator[Begun]:
        if self._connection is None:
            with beginning():
                self._take()
        connection = self._connection
        assert connection is not None
        begun = Begun(connection, connection)
        with self._kept.pop_all() as kept, self._transaction.pop_all() as transaction:
            self._connection = None
            yield begun
            refuse_failed(connection)
            with connections.our_errors(), _together(connection):
                if begun.last:
                    connections.send(begun.last, connection)
                if more:
                    connection.execute(COMMIT_AND_GO_ON)
                else:
                    transaction.close()
            if more:
                self._connection, self._kept, self._transaction = connection, kept.pop_all(), transaction.pop_all()

    def _take(self) -> None:
        with ExitStack() as kept:
            connection = kept.enter_context(self._pool.connection())
            self._prepare(connection, kept)
            self._transaction.enter_context(connection.transaction())
            self._connection, self._kept = connection, kept.pop_all()

    def _prepare(self, connection: psycopg.Connection[Any], kept: ExitStack) -> None:
        """Before the first transaction; `kept` undoes it before the connection goes back."""

    def _give_back(self) -> None:
        """The transaction that has begun is empty: nothing is lost if the connection broke."""
        self._connection = None
        with suppress(psycopg.Error), self._kept.pop_all(), self._transaction.pop_all():
            pass


class AsyncConnectionSeries(AbstractAsyncContextManager["AsyncConnectionSeries"]):
    """Transactions on one async connection of a pool, as `ConnectionSeries` has them."""

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any]) -> None:
        self._pool = pool
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._kept, self._transaction = AsyncExitStack(), AsyncExitStack()

    async def __aexit__(self, *error: object) -> None:
        if self._connection is not None:
            await self._give_back()

    @asynccontextmanager
    async def begin(self, more: bool) -> AsyncIterator[Begun]:
        if self._connection is None:
            with beginning():
                await self._take()
        connection = self._connection
        assert connection is not None
        begun = Begun(connection)
        async with self._kept.pop_all() as kept, self._transaction.pop_all() as transaction:
            self._connection = None
            yield begun
            refuse_failed(connection)
            with connections.our_errors():
                async with _together_async(connection):
                    if begun.last:
                        await connections.send_async(begun.last, connection)
                    if more:
                        await connection.execute(COMMIT_AND_GO_ON)
                    else:
                        await transaction.aclose()
            if more:
                self._connection, self._kept, self._transaction = connection, kept.pop_all(), transaction.pop_all()

    async def _take(self) -> None:
        async with AsyncExitStack() as kept:
            connection = await kept.enter_async_context(self._pool.connection())
            await self._prepare(connection, kept)
            await self._transaction.enter_async_context(connection.transaction())
            self._connection, self._kept = connection, kept.pop_all()

    async def _prepare(self, connection: psycopg.AsyncConnection[Any], kept: AsyncExitStack) -> None:
        """Before the first transaction; `kept` undoes it before the connection goes back."""

    async def _give_back(self) -> None:
        self._connection = None
        with suppress(psycopg.Error):
            async with self._kept.pop_all(), self._transaction.pop_all():
                pass


def _together(connection: psycopg.Connection[Any]) -> AbstractContextManager[Any]:
    """What is sent in it takes one round trip; not behind a pooler, which may mix up the answers."""
    is_possible = connection.prepare_threshold is not None and psycopg.Pipeline.is_supported()
    return connection.pipeline() if is_possible else nullcontext()


def _together_async(connection: psycopg.AsyncConnection[Any]) -> AbstractAsyncContextManager[Any]:
    is_possible = connection.prepare_threshold is not None and psycopg.AsyncPipeline.is_supported()
    return connection.pipeline() if is_possible else nullcontext()


@contextmanager
def beginning() -> Iterator[None]:
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


def refuse_failed(driver_connection: Any) -> None:
    """COMMIT in a transaction that failed is a silent ROLLBACK: the message would be done, and its effects gone."""
    info = getattr(driver_connection, "info", None)
    if getattr(info, "transaction_status", None) == TransactionStatus.INERROR:
        raise HandlerTransactionError(WENT_ON)
