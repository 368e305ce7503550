"""One run: a fresh database with one competitor in it, and the processes that publish and consume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.benchmark import machine
from tests.benchmark.competitors import named
from tests.benchmark.competitors.competitor import Competitor, Kind
from tests.benchmark.notes import Notes
from tests.benchmark.server import Server
from tests.servers import PgBouncer

ROOT = Path(__file__).parent.parent.parent
#: Seconds in which a process must have started, and without progress after which a run has failed.
_STARTING, _STALLED = 60.0, 60.0
_POLL = 0.001


class RunFailed(Exception):
    """Raised when a competitor does not do what it should: its process died, or nothing moves any more."""


class Role:
    """A process of ours that runs a function of `roles`."""

    def __init__(self, folder: Path, role: str, notes: Notes | None, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self._notes = notes
        self._name, self._log = role, folder / f"{role}-{time.monotonic_ns()}.log"
        self._result = self._log.with_suffix(".json")
        with open(self._log, "w") as log, open(self._result, "w") as result:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmark.roles", role, json.dumps(arguments)],
                env={**os.environ, "PYTHONPATH": _path()},
                cwd=ROOT,
                stdout=result,
                stderr=log,
                start_new_session=True,
            )

    @property
    def notes(self) -> Notes:
        assert self._notes is not None, f"{self._name} notes nothing"
        return self._notes

    def wait_until_ready(self) -> None:
        until = time.monotonic() + _STARTING
        while not self.notes.is_ready:
            self.check()
            if time.monotonic() > until:
                raise RunFailed(f"{self._name} was not ready in time:\n{self.log}")
            time.sleep(_POLL)

    def result(self) -> Any:
        """Wait for its end; what it measured."""
        self.process.wait()
        self.check()
        return json.loads(self._result.read_text().splitlines()[-1])

    def check(self) -> None:
        """Raise RunFailed if it died."""
        if self.process.poll() not in (None, 0):
            raise RunFailed(f"{self._name} ended with {self.process.returncode}:\n{self.log}")

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(self.process.pid)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _path() -> str:
    """This checkout before whatever else the caller has."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@dataclass
class Cost:
    """What a stretch of time took of processors, in seconds."""

    wall: float
    consumers: float
    postgres: float | None


class Rig:
    """What a workload works with; see `prepared`.

    Args:
        url: the fresh database.
        numbers: messages have numbers from 0 to below this.
    """

    def __init__(self, server: Server, competitor: Competitor, url: str, folder: Path, numbers: int) -> None:
        self.server, self.competitor, self.url = server, competitor, url
        #: Where consumers connect to.
        self.consumer_url = url
        self._folder, self._numbers = folder, numbers
        self._roles: list[Role] = []

    def run(self, role: str, **arguments: Any) -> Any:
        """Run a publisher's role to its end; what it measured."""
        return self._start(role, None, self.url, arguments).result()

    def fill(self, messages: int, size: int = 1_000) -> list[float]:
        """Publish messages 0 to below `messages`, `size` a call; the seconds of each call."""
        times: list[float] = self.run("publish_in_bulk", messages=messages, size=size)["seconds"]
        self.server.checkpoint()
        return times

    def publisher(self, role: str, **arguments: Any) -> Role:
        """Start a publisher that notes what it committed; it waits for `begin`."""
        notes = self._notes()
        return self._start(role, notes, self.url, {"notes": notes.path, **arguments})

    def consumers(self, kind: Kind, processes: int = 1, **work: Any) -> Consumers:
        """Start consumers, ready to connect; they wait for `begin`."""
        started = []
        for _ in range(processes):
            notes = self._notes()
            asked = {"kind": kind, "notes": notes.path, **work}
            started.append(self._start("consume", notes, self.consumer_url, {"work": asked}))
        for consumer in started:
            consumer.wait_until_ready()
        self.competitor.remaining(self.url)  # the connection that it keeps is not made while something is measured
        return Consumers(self, started)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def check(self) -> None:
        """Raise RunFailed if one of its processes died."""
        for role in self._roles:
            role.check()

    def close(self) -> None:
        for role in self._roles:
            role.stop()

    def _notes(self) -> Notes:
        return Notes.create(self._folder / f"notes-{time.monotonic_ns()}", self._numbers)

    def _start(self, role: str, notes: Notes | None, url: str, arguments: dict[str, Any]) -> Role:
        named_so = {"competitor": self.competitor.name, "url": url, **arguments}
        self._roles.append(Role(self._folder, role, notes, named_so))
        return self._roles[-1]


class Consumers:
    """The consumer processes of a run."""

    def __init__(self, rig: Rig, roles: list[Role]) -> None:
        self._rig, self.roles = rig, roles

    @property
    def notes(self) -> list[Notes]:
        return [role.notes for role in self.roles]

    @property
    def handled(self) -> int:
        return sum(notes.done for notes in self.notes)

    @property
    def first(self) -> int:
        """When the first message was handled (monotonic ns)."""
        return min(notes.first for notes in self.notes if notes.first)

    @property
    def cpu_seconds(self) -> float:
        return sum(role.cpu_seconds for role in self.roles)

    def begin(self) -> None:
        for notes in self.notes:
            notes.begin()

    def wait_until_handled(self, messages: int) -> None:
        self._wait(lambda: self.handled >= messages)

    def wait_until_settled(self, messages: int = 0) -> float:
        """Wait until so many were handled and nothing remains; when that was (monotonic seconds)."""
        self.wait_until_handled(messages)
        self._wait(self._nothing_remains)
        return time.monotonic()

    def settle_within(self, seconds: float) -> bool:
        """Wait until nothing remains; False: something did, after so many seconds."""
        until = time.monotonic() + seconds
        self._wait(lambda: self._nothing_remains() or time.monotonic() > until)
        return self._nothing_remains()

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """What happens inside; complete at its end."""
        began, consumers, postgres = time.monotonic(), self.cpu_seconds, self._rig.server.cpu_seconds()
        cost = Cost(0, 0, None)
        yield cost
        cost.wall = time.monotonic() - began
        cost.consumers = self.cpu_seconds - consumers
        now = self._rig.server.cpu_seconds()
        cost.postgres = None if now is None or postgres is None else now - postgres

    def _nothing_remains(self) -> bool:
        return self._rig.competitor.remaining(self._rig.url) == 0

    def _wait(self, reached: Callable[[], bool]) -> None:
        handled, moved = self.handled, time.monotonic()
        while True:
            asked = time.monotonic()
            if reached():
                return
            if self.handled > handled:
                handled, moved = self.handled, time.monotonic()
            for role in self.roles:
                role.check()
            if time.monotonic() > moved + _STALLED:
                raise RunFailed(f"nothing moves after {handled} messages:\n{self.roles[0].log}")
            time.sleep(max(_POLL, time.monotonic() - asked))  # a dear question is asked less often


@contextmanager
def prepared(server: Server, competitor: str, numbers: int, also: tuple[str, ...] = ()) -> Iterator[Rig]:
    """A rig with a competitor installed in a fresh database; all that it started is stopped in the end.

    Args:
        also: others that are installed beside it, as baselines.
    """
    with ExitStack() as stack:
        url = stack.enter_context(server.fresh_database())
        with psycopg.connect(url) as db:
            db.execute("CREATE TABLE orders (id int PRIMARY KEY, body json); CREATE TABLE effect (id int)")
        measured, *others = map(named, dict.fromkeys((competitor, *also)))
        for one in (measured, *others):
            one.install(url)
            stack.callback(one.remove, url)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="outbox-benchmark-")))
        rig = Rig(server, measured, url, folder, numbers)
        if measured.is_pooled:
            rig.consumer_url = stack.enter_context(_pgbouncer(server, url))
        stack.callback(rig.close)
        yield rig


@contextmanager
def _pgbouncer(server: Server, url: str) -> Iterator[str]:
    """The same database, through PgBouncer in transaction pooling."""
    if server.cluster is None:
        raise RunFailed("PgBouncer is measured before a server of our own: leave out --database-url")
    bouncer = PgBouncer(server.cluster)
    try:
        yield bouncer.url(conninfo_to_dict(url)["dbname"])
    finally:
        bouncer.remove()
