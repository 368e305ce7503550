"""Transactions of a chunk that wait for nothing: each is sent behind the one before, whose commit nobody knows of yet.

    handler 1 | handler 2 | handler 3 | wait until all are known
    ──► BEGIN, effects 1, settlement 1, COMMIT; effects 2, settlement 2, COMMIT; …

If one fails, the server passes over all that was sent after it: what is behind it has no effect, and is made again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
import psycopg_pool
from psycopg.errors import PipelineAborted

from outbox import connection as connections
from outbox.operations import Operation
from outbox.series import (
    COMMIT_AND_GO_ON,
    WENT_ON,
    AsyncConnectionSeries,
    ConnectionSeries,
    HandlerTransactionError,
    beginning,
    refuse_failed,
)

#: Transactions on their way at most: what is behind one that fails is made again.
_MOST = 32


class Flight:
    """Transactions that are on their way, on one connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        #: What handlers get. They may meet the error of a transaction before theirs, which then fails, too.
        self.connection = connection
        self._commits: list[psycopg.Cursor[Any]] = []

    @property
    def committed(self) -> int:
        """How many are known to have committed: the first ones."""
        return _known(self._commits)

    def commit(self, last: Operation[None] | None) -> None:
        """Send the transaction's last word and its commit, and begin the next. Raises what is known to have failed."""
        refuse_failed(self.connection)
        with _our_errors():
            if last:
                connections.send(last, self.connection)
            self._commits.append(self.connection.execute(COMMIT_AND_GO_ON))

    def land(self, line: psycopg.Pipeline) -> None:
        """Wait until all are known. Raises why the first that failed did."""
        with _our_errors():
            line.sync()
        _refuse_rolled_back(self._commits)


class AsyncFlight:
    """A Flight on an async connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.connection = connection
        self._commits: list[psycopg.AsyncCursor[Any]] = []

    @property
    def committed(self) -> int:
        """How many are known to have committed: the first ones."""
        return _known(self._commits)

    async def commit(self, last: Operation[None] | None) -> None:
        """Send the transaction's last word and its commit, as `Flight.commit` does."""
        refuse_failed(self.connection)
        with _our_errors():
            if last:
                await connections.send_async(last, self.connection)
            self._commits.append(await self.connection.execute(COMMIT_AND_GO_ON))

    async def land(self, line: psycopg.AsyncPipeline) -> None:
        """Wait until all are known. Raises why the first that failed did."""
        with _our_errors():
            await line.sync()
        _refuse_rolled_back(self._commits)


class PipelinedSeries(ConnectionSeries):
    """Transactions on a connection in pipeline mode: one by one, or many in a flight."""

    def __init__(self, pool: psycopg_pool.ConnectionPool[Any]) -> None:
        super().__init__(pool)
        self._line: psycopg.Pipeline | None = None
        self.window = Window()

    @contextmanager
    def flight(self) -> Iterator[Flight]:
        """Transactions that are sent in the block; leaving it waits for them.

        Raises:
            NotBegun: the first could not be opened.
            Exception: of the block, or of the first that did not commit: see `Flight.committed`.
        """
        if self._connection is None:
            with beginning():
                self._take()
        connection, line = self._connection, self._line
        assert connection is not None
        assert line is not None
        flight = Flight(connection)
        with self._kept.pop_all() as kept, self._transaction.pop_all() as transaction:
            self._connection = None
            try:
                yield flight
            except BaseException:
                with suppress(Exception):  # a pipeline in which something failed passes over a ROLLBACK, too
                    flight.land(line)
                raise
            flight.land(line)
            self._connection, self._kept, self._transaction = connection, kept.pop_all(), transaction.pop_all()

    def _prepare(self, connection: psycopg.Connection[Any], kept: ExitStack) -> None:
        self._line = kept.enter_context(connection.pipeline())
        self.window.is_open = connection.prepare_threshold is not None


class AsyncPipelinedSeries(AsyncConnectionSeries):
    """Transactions on an async connection in pipeline mode, as `PipelinedSeries` has them."""

    def __init__(self, pool: psycopg_pool.AsyncConnectionPool[Any]) -> None:
        super().__init__(pool)
        self._line: psycopg.AsyncPipeline | None = None
        self.window = Window()

    @asynccontextmanager
    async def flight(self) -> AsyncIterator[AsyncFlight]:
        """Transactions that are sent in the block, as `PipelinedSeries.flight` has them."""
        if self._connection is None:
            with beginning():
                await self._take()
        connection, line = self._connection, self._line
        assert connection is not None
        assert line is not None
        flight = AsyncFlight(connection)
        async with self._kept.pop_all() as kept, self._transaction.pop_all() as transaction:
            self._connection = None
            try:
                yield flight
            except BaseException:
                with suppress(Exception):
                    await flight.land(line)
                raise
            await flight.land(line)
            self._connection, self._kept, self._transaction = connection, kept.pop_all(), transaction.pop_all()

    async def _prepare(self, connection: psycopg.AsyncConnection[Any], kept: AsyncExitStack) -> None:
        self._line = await kept.enter_async_context(connection.pipeline())
        self.window.is_open = connection.prepare_threshold is not None


class Window:
    """How many transactions may be on their way: one after a failure, twice as many after each success."""

    def __init__(self) -> None:
        self._size = _MOST
        #: Not behind a pooler, which may mix up the answers.
        self.is_open = True

    def __int__(self) -> int:
        return self._size if self.is_open else 1

    def note(self, failed: bool) -> None:
        self._size = 1 if failed else min(2 * self._size, _MOST)


def _known(commits: Sequence[psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]]) -> int:
    return next((n for n, one in enumerate(commits) if one.statusmessage != "COMMIT"), len(commits))


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        with connections.our_errors():
            yield
    except PipelineAborted as error:  # and the error before it? A handler met that
        raise HandlerTransactionError(WENT_ON) from error


def _refuse_rolled_back(commits: Sequence[psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]]) -> None:
    """COMMIT in a transaction that failed is a silent ROLLBACK."""
    if _known(commits) < len(commits):
        raise HandlerTransactionError(WENT_ON)
