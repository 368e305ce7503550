"""What tests do again and again: connect, publish, pull, settle, wait for a condition, run a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.servers import Postgres

ROOT = Path(__file__).parent.parent
#: Seconds after which what does not come hangs: no promise about how fast anything is, on a machine that may stall.
PATIENCE = 120.0
#: Is anything still to be pulled: beyond a cursor, or of a transaction that was open when the cursor went past it?
UNREAD = """(EXISTS (SELECT FROM outbox.lag WHERE lag > 0) OR EXISTS (
    SELECT FROM outbox.cursor c CROSS JOIN LATERAL (
        SELECT p.open FROM outbox.position p
        WHERE p.subscription_id = c.subscription_id AND p.partition_id = c.partition_id
        ORDER BY p."offset" DESC LIMIT 1
    ) AS at
    WHERE NOT at.open <@ ARRAY(SELECT pg_snapshot_xip(pg_current_snapshot()))
))"""


class Pulled(NamedTuple):
    lease: int
    attempt: int
    topic: str
    partition: int
    priority: int
    partition_id: int
    offset: int
    payload: Any
    key: str | None
    redelivered: bool


class Database:
    """A database of a test: opens connections and closes them in the end."""

    def __init__(self, postgres: Postgres, name: str) -> None:
        self.postgres, self.name = postgres, name
        self._connections: list[psycopg.Connection[Any]] = []

    @property
    def url(self) -> str:
        return self.postgres.url(self.name)

    def connect(self, autocommit: bool = False, **settings: Any) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.url, autocommit=autocommit, **settings)
        self._connections.append(connection)
        return connection

    def value(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row, in a transaction of its own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return value(connection, statement, *arguments)

    def execute(self, statements: str) -> None:
        """Run statements without parameters, in a transaction of their own."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statements)

    def switch_off_declaring(self) -> None:
        """For all connections that are opened from now on."""
        self.postgres.execute(f"ALTER DATABASE {self.name} SET outbox.declare_topics = off")

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def value(db: psycopg.Connection[Any], statement: str, *arguments: Any) -> Any:
    """The first column of the first row."""
    row = db.execute(statement, arguments).fetchone()
    assert row is not None
    return row[0]


def publish(db: psycopg.Connection[Any], topic: str, *payloads: str, key: str | None = None, priority: int = 0) -> None:
    """Publish JSON strings, one by one, in the connection's transaction."""
    for payload in payloads:
        db.execute(
            "SELECT outbox.publish(%s, to_json(%s::text), key => %s, priority => %s)", (topic, payload, key, priority)
        )


def subscribe(db: psycopg.Connection[Any], name: str, *patterns: str, start: str = "first", **settings: Any) -> None:
    """Create a subscription and bind it; the connection is in autocommit mode."""
    named = "".join(f", {setting} => %s" for setting in settings)
    db.execute(f"SELECT outbox.subscribe(%s{named})", (name, *settings.values()))
    for pattern in patterns:
        db.execute("SELECT outbox.bind(%s, %s, %s)", (name, pattern, start))


def register(db: psycopg.Connection[Any], timeout: str = "1 hour") -> int:
    return int(value(db, "SELECT outbox.register('test', '{}', %s::interval)", timeout))


def pull(db: psycopg.Connection[Any], subscription: str, worker: int, limit: int = 100, **more: Any) -> list[Pulled]:
    """Pull, in a transaction of its own if the connection is in autocommit mode."""
    named = "".join(f", {name} => %s" for name in more)
    rows = db.execute(
        'SELECT lease_id, attempt, topic, partition, priority, partition_id, "offset", payload, key, redelivered '
        f"FROM outbox.pull(%s, %s, %s{named})",
        (subscription, worker, limit, *more.values()),
    )
    return [Pulled(*row) for row in rows]


def payloads(pulled: list[Pulled]) -> list[Any]:
    return [message.payload for message in pulled]


def settle(db: psycopg.Connection[Any], worker: int, pulled: list[Pulled]) -> None:
    """Settle all leases of what was pulled, whole."""
    db.execute("SELECT outbox.settle(%s, %s)", (worker, sorted({message.lease for message in pulled})))


def drain(db: psycopg.Connection[Any], subscription: str, worker: int, limit: int = 100) -> list[Any]:
    """Pull and settle until nothing comes; the payloads in order. Fails if there is no end."""
    found: list[Any] = []
    for _ in range(1_000):
        if not (pulled := pull(db, subscription, worker, limit)):
            return found
        settle(db, worker, pulled)
        found += payloads(pulled)
    raise AssertionError(f"no end of messages, the last: {found[-3:]}")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until a condition holds and return its value; fail with what was waited for."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s in vain for: {what}")
        time.sleep(0.02)
    return found


def at_rest(database: Database) -> bool:
    """Nothing to deliver, nothing in hand, nothing waiting for another try.

    In one snapshot: between two looks a message may go from where it is looked for next to where it was looked for.
    What at-most-once has handed out shows nowhere, though its handler may still be at work.
    """
    in_hand = "EXISTS (SELECT FROM outbox.lease) OR EXISTS (SELECT FROM outbox.redelivery)"
    return not database.value(f"SELECT {UNREAD} OR {in_hand}")


class Later:
    """A statement that runs in a thread of its own, since it may have to wait."""

    def __init__(self, connection: psycopg.Connection[Any], statement: str, *arguments: object) -> None:
        self.result: Any = None
        self._connection = connection
        self._thread = threading.Thread(target=self._run, args=(statement, arguments))
        self._thread.start()

    def _run(self, statement: str, arguments: tuple[object, ...]) -> None:
        try:
            self.result = value(self._connection, statement, *arguments)
        except psycopg.Error as error:
            self.result = error

    def wait_until_it_waits(self, database: Database) -> Later:
        pid = self._connection.info.backend_pid
        blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        wait_for(lambda: database.value(blocked, pid) or not self._thread.is_alive(), "it waits")
        assert self._thread.is_alive(), f"it did not wait: {self.result}"
        return self

    def join(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "it waits for ever"
        return self.result


def environment(database_url: str, *paths: Path) -> dict[str, str]:
    """For a child process that runs this checkout, with modules of a test on its path."""
    path = os.pathsep.join([str(ROOT), *map(str, paths)])
    return {**os.environ, "OUTBOX_DATABASE_URL": database_url, "PYTHONPATH": path, "COLUMNS": "200", "NO_COLOR": "1"}


def outbox(
    database_url: str, *arguments: str, folder: Path = ROOT, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the `outbox` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "outbox", *arguments],
        env=environment(database_url),
        cwd=folder,
        input=input,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class CommandProcess:
    """An `outbox` command as a process of its own, whose log is a file."""

    module = "outbox"

    def __init__(
        self,
        database_url: str,
        folder: Path,
        *arguments: str,
        more: dict[str, str] | None = None,
        module: str = "outbox",
    ) -> None:
        self.log_path = folder / f"{arguments[0] if arguments else module}-{time.monotonic_ns()}.log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *arguments],
                env={**environment(database_url, folder), **(more or {})},
                cwd=folder,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def peak_megabytes(self) -> float:
        """The most memory that it ever had in use."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def wait_for_line(self, text: str, times: int = 1, seconds: float = PATIENCE) -> None:
        def there() -> bool:
            assert self.log.count(text) >= times or self.process.poll() is None, f"it ended:\n{self.log}"
            return self.log.count(text) >= times

        wait_for(there, f"{text!r} in {self.log_path}", seconds)

    def stop(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class WorkerProcess(CommandProcess):
    """`outbox worker MODULE:app`; the module's text is the test's."""

    def __init__(
        self, database_url: str, folder: Path, app: str, *arguments: str, more: dict[str, str] | None = None
    ) -> None:
        (folder / "app_under_test.py").write_text(app)
        super().__init__(database_url, folder, "worker", "app_under_test:app", *arguments, more=more)


@contextmanager
def worker(
    database_url: str, folder: Path, app: str, *arguments: str, more: dict[str, str] | None = None
) -> Iterator[WorkerProcess]:
    """A started worker, killed in the end if it still runs. A test that fails tells what it had logged."""
    process = WorkerProcess(database_url, folder, app, *arguments, more=more)
    try:
        process.wait_for_line("worker started")
        yield process
    except BaseException as error:
        error.add_note(f"The worker's log:\n{process.log}")
        raise
    finally:
        process.kill()
