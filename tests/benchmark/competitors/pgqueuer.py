"""pgqueuer: asyncio workers that claim rows by SKIP LOCKED and are woken by NOTIFY; on asyncpg and uvloop."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.benchmark.competitors.competitor import Kind, Publisher, Work
from tests.benchmark.competitors.peer import Peer

if TYPE_CHECKING:
    import asyncpg
    from pgqueuer.models import Job
    from pgqueuer.queries import Queries

_QUEUE = "bench"
_BATCH = 1_000


class PgQueuer(Peer):
    """All its tables are logged, its default. Handlers are coroutines; jobs are claimed and settled by 1,000.

    A job is settled after its handler, in a batch of its own: an effect and the settlement are two transactions.
    """

    name = "pgqueuer"
    kinds: frozenset[Kind] = frozenset({"nothing", "effect", "wait"})
    packages = ("pgqueuer", "asyncpg", "uvloop")
    unsettled = "SELECT count(*) FROM (SELECT FROM pgqueuer LIMIT 1) AS one"

    def install(self, url: str) -> None:
        import asyncpg
        import uvloop
        from pgqueuer.queries import Queries

        async def create() -> None:
            connection = await asyncpg.connect(url)
            await Queries.from_asyncpg_connection(connection).install()
            await connection.close()

        uvloop.run(create())

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        import asyncpg
        import uvloop
        from pgqueuer.queries import Queries

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            connection = runner.run(asyncpg.connect(url))
            yield _Publisher(runner, connection, Queries.from_asyncpg_connection(connection))
            runner.run(connection.close())

    def consume(self, url: str, work: Work) -> None:
        import uvloop

        uvloop.run(_work(url, work))


class _Publisher(Publisher):
    def __init__(self, runner: asyncio.Runner, connection: asyncpg.Connection, queries: Queries) -> None:
        self._runner, self._connection, self._queries = runner, connection, queries

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        self._runner.run(self._order(payload, commit))

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        count = len(payloads)
        bodies = [json.dumps(payload).encode() for payload in payloads]
        self._runner.run(self._queries.enqueue([_QUEUE] * count, bodies, [0] * count))

    async def _order(self, payload: dict[str, Any], commit: bool) -> None:
        transaction = self._connection.transaction()
        await transaction.start()
        body = json.dumps(payload)
        await self._connection.execute("INSERT INTO orders VALUES ($1, $2)", payload["id"], body)
        await self._queries.enqueue(_QUEUE, body.encode())
        await (transaction.commit() if commit else transaction.rollback())


async def _work(url: str, work: Work) -> None:
    import asyncpg
    from pgqueuer import PgQueuer as Application

    work.wait_for_start()
    connections = work.concurrency if work.kind == "effect" else 0
    async with asyncpg.create_pool(url, min_size=connections, max_size=max(1, connections)) as effects:
        connection = await asyncpg.connect(url)
        application = Application.from_asyncpg_connection(connection)
        application.entrypoint(_QUEUE)(_handler(work, effects))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, application.shutdown.set)
        await application.run(batch_size=_BATCH)
        await connection.close()


def _handler(work: Work, effects: asyncpg.Pool) -> Callable[[Job], Awaitable[None]]:
    """A handler; a worker starts one for each claimed job, so those that wait keep to the concurrency by themselves."""
    waiting = asyncio.Semaphore(work.concurrency)

    async def nothing(job: Job) -> None:
        work.handle(json.loads(job.payload or b""))

    async def effect(job: Job) -> None:
        payload = json.loads(job.payload or b"")
        await effects.execute("INSERT INTO effect VALUES ($1)", payload["id"])
        work.handle(payload)

    async def wait(job: Job) -> None:
        async with waiting:
            await asyncio.sleep(work.seconds)
        work.handle(json.loads(job.payload or b""))

    return {"nothing": nothing, "effect": effect, "wait": wait}[work.kind]
