"""The Postgres that everybody is measured on: started for the whole benchmark, with durable settings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.benchmark import machine
from tests.servers import Postgres, embedded_binaries

#: Postgres's defaults, which are durable; and of a port and a folder of its own.
_SETTINGS = "listen_addresses = '127.0.0.1'\ntimezone = 'UTC'\n"
_SHOWN = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "wal_sync_method",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "autovacuum",
)


@contextmanager
def start(url: str | None) -> Iterator[Server]:
    """Give the server of a URL, or start one of our own."""
    if url is not None:
        yield Server(url, None)
        return
    cluster = Postgres(embedded_binaries(), _SETTINGS)
    try:
        yield Server(cluster.url(), cluster)
    finally:
        cluster.remove()


class Server:
    """A Postgres server, and what running on it costs.

    Args:
        url: a database of it, of a user that may create databases.
        cluster: None: it is somebody else's, maybe on another machine.
    """

    def __init__(self, url: str, cluster: Postgres | None) -> None:
        self.cluster = cluster
        self._url = url
        self._numbers = itertools.count(1)
        self._db = psycopg.connect(url, autocommit=True)
        self._postmaster = _postmaster(self._db)

    @property
    def folder(self) -> Path | None:
        """On the disk of its data."""
        return self.cluster.folder if self.cluster else None

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """A new database for one run: its URL."""
        name = f"benchmark_{os.getpid()}_{next(self._numbers)}"
        self._execute("CREATE DATABASE {} TEMPLATE template0", name)
        try:
            yield self._url_of(name)
        finally:
            self._execute("DROP DATABASE {} WITH (FORCE)", name)

    def checkpoint(self) -> None:
        """So that pages of what was prepared are not written while something is measured."""
        self._db.execute("CHECKPOINT")

    def value(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        row = self._db.execute(statement, arguments).fetchone()
        assert row is not None
        return row[0]

    def cpu_seconds(self) -> float | None:
        """Of all its processes since it was started, those that have ended included; None: it is elsewhere."""
        if self._postmaster is None:
            return None
        return machine.cpu_seconds_of_family(self._postmaster)

    def settings(self) -> dict[str, str]:
        return {name: str(self.value("SELECT current_setting(%s)", name)) for name in _SHOWN}

    def _execute(self, statement: str, name: str) -> None:
        self._db.execute(sql.SQL(statement).format(sql.Identifier(name)))

    def _url_of(self, database: str) -> str:
        """A URL as the server's own, for another database."""
        parts = conninfo_to_dict(self._url)
        if "://" not in self._url:
            return make_conninfo(self._url, dbname=database)
        user = f"{parts['user']}:{parts['password']}" if "password" in parts else parts.get("user", "postgres")
        return f"postgresql://{user}@{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{database}"


def _postmaster(db: psycopg.Connection[Any]) -> int | None:
    """The pid of the server, if it runs on this machine."""
    try:
        parent = machine.parent_of(db.info.backend_pid)
    except OSError:
        return None
    return parent if machine.command_of(parent).startswith("postgres") else None
