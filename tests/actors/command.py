"""The real `dramatiq` command line over an application of a test, and what its processes are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.shop_floor import PATIENCE, ROOT, Database, wait_for

READY = "Worker process is ready for action."


class Command:
    """`dramatiq MODULE --processes N --threads M`, in a process group of its own."""

    def __init__(self, database: Database, folder: Path, module: str, processes: int, threads: int, *more: str) -> None:
        self._path = folder / f"{module}-{len(list(folder.glob('*.log')))}.log"
        self.processes = processes
        environment = {**os.environ, "OUTBOX_DATABASE_URL": database.url, "PYTHONPATH": f"{folder}:{ROOT}"}
        arguments = ["--processes", str(processes), "--threads", str(threads), *more]
        with open(self._path, "w") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "dramatiq"), module, *arguments],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._path.read_text()

    def wait_until_ready(self, times: int = 1) -> None:
        """Until all of its processes have said so, so many times: once, and after each restart again."""
        wait_for(lambda: self.log.count(READY) >= times * self.processes or self.process.poll() is not None, "workers")
        assert self.process.poll() is None, self.log

    def workers(self) -> list[int]:
        """The pids of its worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill(self, count: int | None = None) -> int:
        """SIGKILL so many of its worker processes; returns how many."""
        victims = self.workers()[:count]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return len(victims)

    def stop(self) -> int:
        """SIGTERM, and wait for its end; returns its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Whatever is left of it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


@contextmanager
def command(
    database: Database, folder: Path, module: str, processes: int = 2, threads: int = 4, *more: str
) -> Iterator[Command]:
    started = Command(database, folder, module, processes, threads, *more)
    try:
        yield started
    finally:
        started.end()
