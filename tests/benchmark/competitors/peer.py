"""What the peers that keep their queue in Postgres have in common."""

from __future__ import annotations

import importlib.metadata
import json
import signal
import threading
from collections.abc import Sequence
from typing import Any

import psycopg

from tests.benchmark.competitors.competitor import Competitor, Publisher, insert_order

INSERT_EFFECT = "INSERT INTO effect VALUES (%s)"


class Peer(Competitor):
    """A peer from PyPI whose messages are rows of a table."""

    #: Its distributions on PyPI.
    packages: tuple[str, ...]
    #: Says how many messages are not settled, or at least whether any is.
    unsettled: str

    def __init__(self) -> None:
        self._connection: psycopg.Connection[Any] | None = None

    def missing(self) -> str | None:
        return missing_packages(*self.packages)

    def remaining(self, url: str) -> int:
        if self._connection is None:
            self._connection = psycopg.connect(url, autocommit=True)
        row = self._connection.execute(self.unsettled).fetchone()
        return int(row[0]) if row else 0

    def remove(self, url: str) -> None:
        if self._connection is not None:
            self._connection.close()


class SqlPublisher(Publisher):
    """Publishes by the SQL functions of a peer, in the caller's transaction.

    Args:
        send: takes a message as JSON text.
        send_batch: takes an array of them, in binary.
    """

    def __init__(self, connection: psycopg.Connection[Any], send: str, send_batch: str) -> None:
        self._connection, self._send, self._send_batch = connection, send, send_batch

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        insert_order(self._connection, payload)
        self._connection.execute(self._send, (json.dumps(payload),))
        if commit:
            self._connection.commit()
        else:
            self._connection.rollback()

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        self._connection.execute(self._send_batch, ([json.dumps(payload) for payload in payloads],))
        self._connection.commit()


def missing_packages(*names: str) -> str | None:
    """Name the distributions that are not installed, by the line that installs them."""
    absent = [name for name in names if not _is_installed(name)]
    return f"pip install {' '.join(absent)}" if absent else None


def set_at_sigterm() -> threading.Event:
    """An event that SIGTERM sets, instead of ending the process."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    return stopped


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
