"""A worker's connections: whoever is cancelled ends, whatever comes at the same moment."""

from __future__ import annotations

import asyncio

import pytest
from psycopg_pool import pool_async

from outbox import operations
from outbox.database import Database
from tests import shop_floor


def test_who_is_cancelled_when_a_connection_comes_ends_all_the_same(
    one_database: shop_floor.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg's pool hands out the connection, and forgets the cancellation."""

    async def play() -> asyncio.Task[object]:
        database = Database(one_database.url, size=1)
        await database.open()
        async with database._pool.connection():
            task = asyncio.create_task(database.persist(operations.clock))
            while not database._pool._waiting:  # until it waits
                await asyncio.sleep(0)
            give = pool_async.WaitingClient.set

            async def give_and_cancel(self: object, connection: object) -> bool:
                given = await give(self, connection)  # type: ignore[arg-type]  # a client's
                task.cancel()
                return given

            monkeypatch.setattr(pool_async.WaitingClient, "set", give_and_cancel)
        await asyncio.wait([task], timeout=60)
        await database.close()
        return task

    assert asyncio.run(play()).cancelled()
