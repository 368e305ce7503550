"""How a database stands, read when Prometheus asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from outbox import __version__
from outbox.database import libpq_url
from outbox.metrics.readings import OWN, READINGS, Metric, Reading
from outbox.version import SCHEMA_VERSION

Row = tuple[Any, ...]


class DatabaseCollector(Collector):
    """Read all metrics with a statement a group; a database that does not answer is `outbox_up 0`.

    Args:
        url: of the database.
        topics: how many topics are shown by name, those with the most offsets; 0 or more.
        timeout: seconds that connecting, and each statement, may take; more than 0.
    """

    def __init__(self, url: str, topics: int = 100, timeout: float = 5.0) -> None:
        self._url, self._topics, self._timeout = libpq_url(url), topics, timeout
        self._connection: psycopg.Connection[Row] | None = None
        self._lock = threading.Lock()

    def describe(self) -> list[Family]:
        """Nothing: registering must not need a database."""
        return []

    def collect(self) -> Iterator[Family]:
        with self._lock:
            yield from self._collected()

    def is_ready(self) -> bool:
        """Does the database answer, with our schema in it?"""
        with self._lock:
            return self._installed() is not None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _collected(self) -> list[Family]:
        installed = self._installed()
        up, reading_up, schema, build = (
            _family(metric, labels) for metric, labels in zip(OWN, _OWN_LABELS, strict=True)
        )
        build.add_metric([__version__], 1)
        found: list[Family] = []
        for reading in READINGS if installed is not None else ():
            rows = self._read(reading)
            reading_up.add_metric([reading.name], rows is not None)
            found += _families(reading, rows or [])
        up.add_metric([], installed is not None and self._connection is not None)
        if installed is not None:
            schema.add_metric([installed, SCHEMA_VERSION], 1)
        return [up, reading_up, schema, build, *found]

    def _installed(self) -> str | None:
        """The schema's version, over a new connection if the old one broke."""
        for _ in range(2):
            try:
                rows = self._connected().execute("SELECT outbox.schema_version()").fetchall()
                return str(rows[0][0])
            except psycopg.Error:
                self.close()
        return None

    def _read(self, reading: Reading) -> list[Row] | None:
        try:
            parameters = {"topics": self._topics} if reading.limited else None
            return self._connected().execute(reading.statement.encode(), parameters).fetchall()
        except psycopg.Error:
            if self._connection is not None and self._connection.closed:
                self.close()
            return None

    def _connected(self) -> psycopg.Connection[Row]:
        if self._connection is None:
            limit = max(2, round(self._timeout))
            connection = psycopg.connect(
                self._url, autocommit=True, application_name="outbox exporter", connect_timeout=limit
            )
            self._connection = connection
            connection.execute(
                "SELECT set_config('statement_timeout', %s, false)", (f"{max(1, round(self._timeout * 1000))}ms",)
            )
        return self._connection


_OWN_LABELS: tuple[tuple[str, ...], ...] = ((), ("reading",), ("installed", "wanted"), ("version",))


def _family(metric: Metric, labels: tuple[str, ...]) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.help, labels=labels)


def _families(reading: Reading, rows: list[Row]) -> list[Family]:
    families = [_family(metric, reading.labels) for metric in reading.metrics]
    width = len(reading.labels)
    for row in rows:
        for family, value in zip(families, row[width:], strict=True):
            if value is not None:
                family.add_metric(list(row[:width]), float(value))
    return list(families)
