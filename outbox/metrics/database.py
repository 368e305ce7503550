"""How a database stands, read when Prometheus asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from outbox import __version__
from outbox.database import libpq_url, without_prepared_statements
from outbox.metrics.readings import BUILD, OUTDATED, READING_AGE, READING_UP, READINGS, SCHEMA, UP, Reading
from outbox.version import SCHEMA_VERSION, problem

Row = tuple[Any, ...]

#: Seconds after which a statement that failed is tried again, at the latest.
_AGAIN = 300.0


@dataclass(frozen=True)
class _Kept:
    """What a reading found (None: it failed), when it began, and how long it took."""

    rows: list[Row] | None
    at: float
    seconds: float

    def rests(self, now: float, share: float) -> bool:
        """Is it too early to read again? One that fails by its time limit costs as much as one that does not."""
        pause = self.seconds / share
        return now - self.at < (pause if self.rows is not None else min(pause, _AGAIN))


class DatabaseCollector(Collector):
    """Read all metrics with a statement a group; a database that does not answer is `outbox_up 0`.

    Args:
        url: of the database.
        topics: how many topics are shown by name, those with the most offsets; 0 or more.
        share: the part of the time that each statement may take; what is slow is read more seldom.
        timeout: seconds that connecting, and each statement, may take; more than 0.
    """

    def __init__(self, url: str, topics: int = 100, timeout: float = 5.0, share: float = 0.001) -> None:
        self._url, self._topics, self._timeout = libpq_url(url), topics, timeout
        self._limit = f"{max(1, round(timeout * 1000))}ms"
        self._connection: psycopg.Connection[Row] | None = None
        self._lock, self._share = threading.Lock(), share
        self._kept: dict[str, _Kept] = {}

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
        if installed is None:
            self._kept.clear()
            return [UP.family([([], 0)]), BUILD.family([([__version__], 1)])]
        found = [family for reading in READINGS for family in _families(reading, self._fresh(reading))]
        now = time.monotonic()
        return [
            UP.family([([], self._connection is not None)]),
            BUILD.family([([__version__], 1)]),
            SCHEMA.family([([installed, SCHEMA_VERSION], 1)]),
            OUTDATED.family([([], problem(installed) is not None)]),
            READING_UP.family(([name], kept.rows is not None) for name, kept in self._kept.items()),
            READING_AGE.family(([name], now - kept.at) for name, kept in self._kept.items() if kept.rows is not None),
            *found,
        ]

    def _fresh(self, reading: Reading) -> list[Row]:
        """What it read last, unless that is old enough; nothing if it fails."""
        kept, now = self._kept.get(reading.name), time.monotonic()
        if kept is None or not kept.rests(now, self._share):
            rows = self._read(reading)
            took = 0.0 if self._connection is None else time.monotonic() - now  # broken: nothing was learnt of its cost
            kept = self._kept[reading.name] = _Kept(rows, now, took)
        return kept.rows or []

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
            connection = self._connected()
            with connection.transaction():  # behind a pooler the next transaction is another session's
                connection.execute("SELECT set_config('statement_timeout', %s, true)", (self._limit,))
                return connection.execute(reading.statement.encode(), parameters).fetchall()
        except psycopg.Error:
            if self._connection is not None and self._connection.closed:
                self.close()
            return None

    def _connected(self) -> psycopg.Connection[Row]:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                application_name="outbox exporter",
                connect_timeout=max(2, round(self._timeout)),
            )
            without_prepared_statements(self._connection)
        return self._connection


def _families(reading: Reading, rows: list[Row]) -> list[Family]:
    width = len(reading.labels)
    return [
        metric.family((row[:width], float(row[width + place])) for row in rows if row[width + place] is not None)
        for place, metric in enumerate(reading.metrics)
    ]
