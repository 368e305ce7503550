"""dramatiq, whatever its broker is: an actor, publishing by it, and the worker that calls it in threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool import ConnectionPool

from tests.benchmark.competitors.competitor import Kind, Publisher, Work, insert_order
from tests.benchmark.competitors.peer import INSERT_EFFECT, set_at_sigterm

if TYPE_CHECKING:
    from dramatiq import Actor, Broker

#: A handler gets one message, and it is acknowledged after it.
KINDS: frozenset[Kind] = frozenset({"nothing", "effect", "wait"})
#: Threads of a worker, its default; the effects keep to `Work.concurrency` by their connections.
_THREADS = 8
#: Messages that a worker has taken and not acknowledged.
_PREFETCH = 1_000

_Handler = Callable[[dict[str, Any]], None]


class ActorPublisher(Publisher):
    """Commits the order, then sends the message: two steps, and a crash between them loses the message."""

    def __init__(self, connection: psycopg.Connection[Any], broker: Broker) -> None:
        self._connection = connection
        self._actor = _declare(broker, lambda payload: None)

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        insert_order(self._connection, payload)
        if commit:
            self._connection.commit()
            self._actor.send(payload)
        else:
            self._connection.rollback()

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        for payload in payloads:
            self._actor.send(payload)


def work_until_sigterm(url: str, work: Work, make_broker: Callable[[], Broker]) -> None:
    """Run dramatiq's worker in this process, and stop it in order."""
    os.environ["dramatiq_queue_prefetch"] = str(_PREFETCH)  # noqa: SIM112  # read at import
    from dramatiq import Worker

    stopped = set_at_sigterm()
    connections = work.concurrency if work.kind == "effect" else 0
    broker = make_broker()
    work.wait_for_start()
    with ConnectionPool(
        url, min_size=connections, max_size=max(1, connections), kwargs={"autocommit": True}, open=True
    ) as effects:
        _declare(broker, _handler(work, effects))
        threads = work.concurrency if work.kind == "wait" else max(_THREADS, work.concurrency)
        worker = Worker(broker, worker_threads=threads)
        worker.start()
        stopped.wait()
        worker.stop()
    broker.close()


def _declare(broker: Broker, handler: _Handler) -> Actor[[dict[str, Any]], None]:
    import dramatiq

    return dramatiq.actor(handler, actor_name="bench", broker=broker)


def _handler(work: Work, effects: ConnectionPool) -> _Handler:
    def nothing(payload: dict[str, Any]) -> None:
        work.handle(payload)

    def effect(payload: dict[str, Any]) -> None:
        with effects.connection() as connection:
            connection.execute(INSERT_EFFECT, (payload["id"],))
        work.handle(payload)

    def wait(payload: dict[str, Any]) -> None:
        time.sleep(work.seconds)
        work.handle(payload)

    return {"nothing": nothing, "effect": effect, "wait": wait}[work.kind]
