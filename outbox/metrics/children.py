"""One page of metrics for several worker processes: each keeps its own, and gives them over a socket.

Sums would fall when a process is replaced, and Prometheus would take that for a restart of all. So each process is a
series of its own, by its place among them: a process that is replaced starts at 0 in its place, as any that restarts.
"""

from __future__ import annotations

import http.client
import os
import socket
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from outbox.metrics.catalog import Metric

#: Seconds that a process may take to answer.
_PATIENCE = 2.0

PROCESS_UP = Metric(
    "outbox_worker_process_up",
    "1: the process at this place under its supervisor gave its metrics.",
    labels=("process",),
)


class Children:
    """The worker processes of a supervisor.

    Args:
        folder: where their sockets are.
        size: how many there are.
    """

    def __init__(self, folder: str, size: int) -> None:
        self._paths = [os.path.join(folder, str(place)) for place in range(size)]
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="scrape")

    def path(self, place: int) -> str:
        """Where the process at a place listens."""
        return self._paths[place]

    def metrics(self) -> bytes:
        """Those of all that answer, each with the label `process`."""
        pages = list(self._pool.map(lambda path: _get(path, "/metrics"), self._paths))
        return generate_latest(_merged(pages))

    def are_ready(self) -> bool:
        return all(status == 200 for status, _ in self._pool.map(lambda path: _get(path, "/readyz"), self._paths))

    def are_alive(self) -> bool:
        """None of them says that it stands still; one that is being replaced says nothing."""
        return all(status != 503 for status, _ in self._pool.map(lambda path: _get(path, "/healthz"), self._paths))


def _get(path: str, what: str) -> tuple[int, str]:
    """0: nobody answers."""
    connection = _Connection(path)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def _merged(pages: list[tuple[int, str]]) -> CollectorRegistry:
    families: dict[str, Family] = {}
    up = PROCESS_UP.family(([str(place)], status == 200) for place, (status, _) in enumerate(pages))
    for place, (status, page) in enumerate(pages):
        for found in text_string_to_metric_families(page if status == 200 else ""):
            merged = families.setdefault(found.name, Family(found.name, found.documentation, found.type))
            for sample in found.samples:
                labels = {**sample.labels, "process": str(place)}
                merged.samples.append(sample._replace(labels=labels))
    registry = CollectorRegistry()
    registry.register(_Fixed([up, *families.values()]))
    return registry


class _Fixed(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families
