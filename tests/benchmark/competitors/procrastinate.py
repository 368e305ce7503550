"""procrastinate: asyncio workers that fetch a job at a time and are woken by NOTIFY; on psycopg."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from tests.benchmark.competitors.competitor import Kind, Publisher, Work, insert_order
from tests.benchmark.competitors.peer import INSERT_EFFECT, Peer

if TYPE_CHECKING:
    from procrastinate import App

_TASK = "bench"
#: Jobs that a worker has at once, so that it fetches and settles others while one is handled.
_JOBS = 10


class Procrastinate(Peer):
    """Deletes jobs that are done. Handlers are coroutines.

    A job is settled after its handler, by a call of its own: an effect and the settlement are two transactions.
    """

    name = "procrastinate"
    share = 0.1
    kinds: frozenset[Kind] = frozenset({"nothing", "effect", "wait"})
    packages = ("procrastinate",)
    unsettled = "SELECT count(*) FROM (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1) AS one"

    def install(self, url: str) -> None:
        from procrastinate import App, SyncPsycopgConnector

        with App(connector=SyncPsycopgConnector(conninfo=url)).open() as app:
            app.schema_manager.apply_schema()

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        from procrastinate import App, SyncPsycopgConnector

        with (
            App(connector=SyncPsycopgConnector(conninfo=url, min_size=1, max_size=1)).open() as app,
            psycopg.connect(url) as connection,
        ):
            yield _Publisher(app, connection)

    def consume(self, url: str, work: Work) -> None:
        asyncio.run(_work(url, work))


class _Publisher(Publisher):
    def __init__(self, app: App, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._job = app.configure_task(_TASK, connection=connection)

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        insert_order(self._connection, payload)
        self._job.defer(payload=payload)
        if commit:
            self._connection.commit()
        else:
            self._connection.rollback()

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        self._job.batch_defer(*({"payload": payload} for payload in payloads))
        self._connection.commit()


async def _work(url: str, work: Work) -> None:
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url))
    work.wait_for_start()
    connections = work.concurrency if work.kind == "effect" else 0
    async with AsyncConnectionPool(
        url, min_size=connections, max_size=max(1, connections), kwargs={"autocommit": True}
    ) as effects:
        app.task(name=_TASK)(_handler(work, effects))
        async with app.open_async():
            jobs = work.concurrency if work.kind == "wait" else max(_JOBS, work.concurrency)
            await app.run_worker_async(concurrency=jobs, delete_jobs="always")


def _handler(work: Work, effects: AsyncConnectionPool) -> Callable[[dict[str, Any]], Awaitable[None]]:
    async def nothing(payload: dict[str, Any]) -> None:
        work.handle(payload)

    async def effect(payload: dict[str, Any]) -> None:
        async with effects.connection() as connection:
            await connection.execute(INSERT_EFFECT, (payload["id"],))
        work.handle(payload)

    async def wait(payload: dict[str, Any]) -> None:
        await asyncio.sleep(work.seconds)
        work.handle(payload)

    return {"nothing": nothing, "effect": effect, "wait": wait}[work.kind]
