"""What a worker process shows of itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import Metric as AnyFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from outbox import __version__
from outbox.metrics import publishing
from outbox.metrics.catalog import Metric
from outbox.metrics.publishing import PUBLISHED, REFUSED
from outbox.metrics.server import Answers
from outbox.metrics.tally import TALLIED, Tally, families
from outbox.published import Published
from outbox.worker import Worker

IN_HAND = Metric(
    "outbox_worker_in_hand_messages",
    "Messages that this process has pulled and not finished, by state: handling, waiting.",
    labels=("subscription", "state"),
)
CONCURRENCY = Metric(
    "outbox_worker_concurrency",
    "Handlers that this process may run at once.",
    labels=("subscription",),
)
RINGS = Metric("outbox_notifications_total", "Notifications that woke this process.", "counter")
POOL = Metric(
    "outbox_pool_connections",
    "Connections of a pool, by state: used, free.",
    labels=("pool", "state"),
)
POOL_WAITS = Metric("outbox_pool_waits_total", "Requests that had to wait for a connection.", "counter", ("pool",))
POOL_SECONDS = Metric("outbox_pool_wait_seconds_total", "Time that they waited.", "counter", ("pool",))
READY = Metric("outbox_worker_ready", "1: it consumes, and the database has heard of it within its timeout.")
STARTED = Metric("outbox_worker_start_time_seconds", "When the process started, since 1970.")
BUILD = Metric("outbox_worker_build_info", "The version of the package that works.", labels=("version",))

#: All that a worker shows, in this order.
WORKER = (
    *TALLIED, PUBLISHED, REFUSED, IN_HAND, CONCURRENCY, RINGS, POOL, POOL_WAITS, POOL_SECONDS, READY, STARTED, BUILD,
)  # fmt: skip


class WorkerCollector(Collector):
    """Reads a worker and its tallies when it is asked; the worker waits for nothing."""

    def __init__(self, worker: Worker, tallies: Mapping[str, Tally], published: Published) -> None:
        self._worker, self._tallies, self._published = worker, tallies, published
        self._started = time.time()

    def describe(self) -> list[AnyFamily]:
        """Nothing: registering must not need a started worker."""
        return []

    def collect(self) -> Iterator[AnyFamily]:
        yield from families(self._tallies)
        yield from publishing.families(self._published)
        worker = self._worker
        pools = worker.pools
        yield IN_HAND.family(_in_hand(worker))
        yield CONCURRENCY.family(_concurrency(worker))
        yield RINGS.family([([], worker.rings)])
        yield POOL.family(_connections(pools))
        yield POOL_WAITS.family([([name], pool.get("requests_queued", 0)) for name, pool in pools.items()])
        yield POOL_SECONDS.family([([name], pool.get("requests_wait_ms", 0) / 1000) for name, pool in pools.items()])
        yield READY.family([([], worker.is_ready)])
        yield STARTED.family([([], self._started)])
        yield BUILD.family([([__version__], 1)])


def answers_of(worker: Worker, tallies: Mapping[str, Tally], counts: Published) -> Answers:
    """What a worker's server says."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(worker, tallies, counts))
    return Answers(lambda: generate_latest(registry), lambda: worker.is_ready, lambda: worker.is_alive)


def _in_hand(worker: Worker) -> Iterator[tuple[list[str], float]]:
    """A subscription may have two consumers: of another system's log, and of what took a detour from there."""
    counts: Counter[tuple[str, str]] = Counter()
    for consumer in worker.consumers:
        counts[consumer.name, "handling"] += consumer.running
        counts[consumer.name, "waiting"] += consumer.waiting
    yield from ((list(labels), count) for labels, count in counts.items())


def _concurrency(worker: Worker) -> Iterator[tuple[list[str], float]]:
    counts: Counter[str] = Counter()
    for consumer in worker.consumers:
        counts[consumer.name] += consumer.subscription.concurrency
    yield from (([name], count) for name, count in counts.items())


def _connections(pools: dict[str, dict[str, int]]) -> Iterator[tuple[list[str], float]]:
    for name, pool in pools.items():
        free = pool.get("pool_available", 0)
        yield [name, "used"], pool.get("pool_size", 0) - free
        yield [name, "free"], free
