"""dramatiq's worker in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dramatiq import Worker

from outbox.dramatiq import PostgresBroker


@contextmanager
def working(broker: PostgresBroker, threads: int = 8, prefetch: int | None = None) -> Iterator[Worker]:
    worker = Worker(broker, worker_threads=threads, worker_timeout=50)
    worker.queue_prefetch = prefetch or worker.queue_prefetch
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
