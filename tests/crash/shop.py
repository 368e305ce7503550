"""The shop that is struck: a cluster, maybe PgBouncer, two proxies, publisher processes and worker processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy

from outbox import Outbox, schema
from outbox.database import sqlalchemy_url
from tests import servers
from tests.crash import ledger
from tests.crash.ledger import TABLES, Left, Verdict
from tests.crash.proxy import Proxy
from tests.servers import PgBouncer, Postgres
from tests.shop_floor import PATIENCE, ROOT, WorkerProcess, environment, outbox, wait_for

NAME = "shop"
#: Seconds without a heartbeat after which others take over.
TIMEOUT = 3
#: How a publisher may end: in good order, before it began, or killed.
_ENDS = (0, -signal.SIGTERM, -signal.SIGKILL)
#: Seconds without any progress after which what is left is stuck, when nothing strikes any more; and in all.
STUCK, ENDLESS = 60.0, 1800.0
#: Connections of PgBouncer: more than the transactions that a worker which is frozen keeps open.
POOL = 60


class Publisher:
    """A publisher as a process of its own; its output says which outcomes it never learnt."""

    def __init__(self, url: str, folder: Path, name: str, seed: int, messages: int = 0) -> None:
        self.messages, self.log_path = messages, folder / f"publisher-{name}.log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.publisher", url, name, str(seed), str(messages)],
                env=environment(url),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def unknown_outcomes(self) -> list[str]:
        """The last id of each transaction of which it does not know whether it committed."""
        return [line.split()[-1] for line in self.log.splitlines() if line.startswith("unknown outcome")]


class Shop:
    """Publishers and workers around one database, each kind behind a proxy of its own.

    Args:
        folder: for logs.
        seed: of all that is left to chance here.
        binaries: of Postgres; the embedded ones by default.
        pooled: through PgBouncer in transaction pooling.
        hugely: messages of a huge transaction.
    """

    def __init__(
        self, folder: Path, seed: int, binaries: Path | None = None, pooled: bool = False, hugely: int = 2_000
    ) -> None:
        self.folder, self.chance, self.hugely = folder, random.Random(seed), hugely
        self.binaries = binaries or servers.embedded_binaries()
        self.publishers: list[Publisher] = []
        self.workers: list[WorkerProcess] = []
        #: Held by whoever takes the cluster away, or must not lose it.
        self.cluster_lock = threading.RLock()
        #: Held by whoever freezes a worker: another must be awake, to find it dead.
        self.freeze_lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._orphans: set[int] = set()
        self._began = time.monotonic()
        self.cluster = Postgres(self.binaries)
        self.bouncer = PgBouncer(self.cluster, POOL) if pooled else None
        self.to_publishers, self.to_workers = (Proxy(self._port, seed + n) for n in range(2))
        with ExitStack() as stack:
            stack.callback(self.close)
            self._prepare()
            stack.pop_all()

    def _prepare(self) -> None:
        self.cluster.execute(f"CREATE DATABASE {NAME}")
        engine = sqlalchemy.create_engine(sqlalchemy_url(self.url), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            schema.migrate(connection)
        with psycopg.connect(self.url) as db:
            db.execute(TABLES)
            Outbox().declare_topic(db, "orders", partitions=3, max_priority=1)

    @property
    def url(self) -> str:
        """The database itself, past the proxies."""
        return self.cluster.url(NAME)

    @property
    def _port(self) -> int:
        return self.bouncer.port if self.bouncer else self.cluster.port

    def start_publisher(self, messages: int = 0) -> Publisher:
        name, seed = f"p{next(self._numbers)}", self.chance.randrange(1_000_000)
        publisher = Publisher(self.to_publishers.url(NAME), self.folder, name, seed, messages)
        self.publishers.append(publisher)
        return publisher

    def start_worker(self, *arguments: str) -> WorkerProcess:
        app = "from tests.crash.handlers import app\n"
        url = self.to_workers.url(NAME)
        worker = WorkerProcess(url, self.folder, app, "--timeout", str(TIMEOUT), "--grace", "5", *arguments)
        self.workers.append(worker)
        return worker

    def running(self, processes: list[Any]) -> list[Any]:
        """Those that were not killed."""
        return [one for one in processes if one.process.poll() is None]

    def worker_pids(self) -> list[int]:
        """Of the processes that handle messages: not of supervisors."""
        children = {pid: _children(pid) for pid in self.parent_pids()}
        self._orphans.update(*children.values())
        return [pid for parent, found in children.items() for pid in found or [parent]]

    def registered_pids(self) -> list[int]:
        """Of the worker processes that the database believes to be alive."""
        query = "SELECT name FROM outbox.worker WHERE retired_at IS NULL AND alive_until > clock_timestamp()"
        with suppress(psycopg.OperationalError), self.connect() as db:
            names = {name for (name,) in db.execute(query).fetchall()}
            return [pid for pid in self.worker_pids() if _name(pid) in names]
        return []

    def parent_pids(self) -> list[int]:
        """Of supervisors, and of workers that have none."""
        return [worker.process.pid for worker in self.running(self.workers)]

    def reap(self, pid: int) -> None:
        """Wait for the end of a process that was killed, if it is a child of ours."""
        for worker in self.workers:
            if worker.process.pid == pid:
                worker.process.wait()

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def value(self, statement: str) -> int | None:
        """A number from the database; None while it is away."""
        with suppress(psycopg.OperationalError), self.connect() as db:
            row = db.execute(statement).fetchone()
            return int(row[0]) if row else None
        return None

    def effects(self) -> int:
        return self.value("SELECT coalesce(max(serial), 0) FROM effect") or 0

    def wait_for_effects(self, more: int, seconds: float = 60) -> None:
        """Wait until handlers have done some more."""
        before = wait_for(lambda: self.value("SELECT coalesce(max(serial), 0) + 1 FROM effect"), "the database")
        wait_for(lambda: self.effects() > before + more, f"{more} effects more\n{self.tails()}", seconds)

    def unknown_outcomes(self) -> list[str]:
        return [id for publisher in self.publishers for id in publisher.unknown_outcomes]

    def note(self, what: str) -> None:
        """Say what is being done to the shop, and when."""
        with open(self.folder / "strikes.log", "a") as log:
            log.write(f"{datetime.now():%H:%M:%S} {time.monotonic() - self._began:6.1f} s  {what}\n")

    def strikes(self) -> str:
        path = self.folder / "strikes.log"
        return path.read_text() if path.exists() else ""

    def move(self, to: Postgres) -> None:
        """Go on with the database of another cluster; the old one is removed."""
        old, old_bouncer = self.cluster, self.bouncer
        self.cluster = to
        if old_bouncer:
            self.bouncer = PgBouncer(to, POOL)
            old_bouncer.remove()
        self.to_publishers.target = self.to_workers.target = self._port
        old.remove()

    def close_books(self) -> Verdict:
        """Stop the publishers, let everything come to rest, and read the books. What does not come to rest shows."""
        self.to_publishers.losing = self.to_workers.losing = 0
        for publisher in self.running(self.publishers):
            publisher.process.terminate()
        for publisher in self.publishers:
            assert publisher.process.wait(60) in _ENDS, publisher.log
        self._wait_for_rest()
        with self.connect() as db:
            verdict = dataclasses.replace(ledger.read(db, ("ordered",)), ills=self._ills())
            self.note(f"the books: {verdict}\n{ledger.story(db, verdict.findings)}")
        return verdict

    def _ills(self) -> tuple[str, ...]:
        """What `outbox doctor` finds, but that these clusters don't wait for the disk."""
        result = outbox(self.url, "doctor", "--json", "--ignore", "fsync")
        return tuple(found["what"] for found in json.loads(result.stdout) if found["severity"] != "ok")

    def _wait_for_rest(self) -> None:
        """Until nothing is left to do, or nothing is being done."""
        began = last = time.monotonic()
        effects = self.effects()
        while self._left() != Left(0, 0, 0, 0) and time.monotonic() < min(last + STUCK, began + ENDLESS):
            time.sleep(0.1)
            if (now := self.effects()) > effects:
                effects, last = now, time.monotonic()

    def _left(self) -> Left | None:
        with suppress(psycopg.OperationalError), self.connect() as db:
            return ledger.what_is_left(db)
        return None

    def stop_workers(self) -> list[int]:
        """Ask all to stop; the exit codes of those that were not killed."""
        running = self.running(self.workers)
        for worker in running:
            worker.process.send_signal(signal.SIGTERM)
        return [worker.process.wait(PATIENCE) for worker in running]

    def tails(self) -> str:
        """The ends of the logs of whoever runs, to see why it does not go on."""
        lines = [f"{one.log_path.name}: {one.log[-1_000:]}" for one in self.running([*self.workers, *self.publishers])]
        return "\n".join([self.strikes(), *lines])

    def close(self) -> None:
        self.worker_pids()  # notes them, before they lose their parents
        for one in self.running([*self.workers, *self.publishers]):
            one.process.kill()
            one.process.wait()
        for pid in self._orphans:
            if _is_ours(pid):
                os.kill(pid, signal.SIGKILL)
        for proxy in (self.to_publishers, self.to_workers):
            proxy.close()
        if self.bouncer:
            self.bouncer.remove()
        self.cluster.remove()


@contextmanager
def open_shop(folder: Path, seed: int, publishers: int = 2, **settings: Any) -> Iterator[Shop]:
    """A shop with publishers and two workers, one of two processes, all of them at work."""
    shop = Shop(folder, seed, **settings)
    with contextlib.closing(shop):
        for worker in [shop.start_worker(), shop.start_worker("--processes", "2")]:
            worker.wait_for_line("worker started")
        for _ in range(publishers):
            shop.start_publisher()
        shop.wait_for_effects(20)
        yield shop


def _children(parent: int) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return []


def _name(pid: int) -> str:
    """What a worker process is called in the database: a supervisor gives names, others call themselves."""
    arguments = _arguments(pid)
    return arguments[arguments.index("--name") + 1] if "--name" in arguments else f"{socket.gethostname()}:{pid}"


def _is_ours(pid: int) -> bool:
    return "app_under_test:app" in _arguments(pid)


def _arguments(pid: int) -> list[str]:
    """Of a process; none if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []
