"""Several worker processes under one: started together, replaced when they die, stopped together."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from outbox import operations, sd_notify
from outbox.database import Database, libpq_url
from outbox.logs import log

#: Seconds before a process that died is replaced: the first time, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
#: A process that ends by itself within so many seconds could not start, and another could not either.
_START = 10.0
#: A process that lived for so many seconds was well: the next one is replaced quickly again.
_WELL = 60.0


class Supervisor:
    """Keeps `processes` copies of a worker command running until it is asked to stop.

    Args:
        arguments: of `python -m outbox`, for one worker process.
        url: the database; processes get it by their environment, since it may hold a password.
        more: further arguments of the process at a place, 0 to processes - 1.
        passed_on: signals that the processes are sent, too.
    """

    def __init__(
        self,
        arguments: list[str],
        processes: int,
        url: str,
        more: Callable[[int], list[str]] = lambda place: [],
        passed_on: tuple[signal.Signals, ...] = (),
    ) -> None:
        self._arguments, self._size, self._url, self._more = arguments, processes, url, more
        self._passed_on = passed_on
        self._running: set[asyncio.subprocess.Process] = set()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code: 0, or that of a process that could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._forward)
        for number in self._passed_on:
            loop.add_signal_handler(number, self._send, number)
        sd_notify.notify("READY=1")
        living = asyncio.create_task(sd_notify.keep_alive())
        try:
            return max(await asyncio.gather(*(self._keep_running(place) for place in range(self._size))))
        finally:
            living.cancel()

    async def _keep_running(self, place: int) -> int:
        wait = _FIRST_WAIT
        while not self._stop.is_set():
            began = time.monotonic()
            code = await self._run_one(place)
            age = time.monotonic() - began
            if code in (1, 2) and age < _START and not self._stop.is_set():  # it has said why
                self._forward()
                return code
            wait = _FIRST_WAIT if age > _WELL else wait
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stop.wait()
            wait = min(2 * wait, _LONGEST_WAIT)
        return 0

    async def _run_one(self, place: int) -> int:
        name = f"{socket.gethostname()}:{uuid.uuid4().hex[:8]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "outbox",
            *self._arguments,
            *self._more(place),
            "--name",
            name,
            env={**sd_notify.environment_of_others(), "OUTBOX_DATABASE_URL": self._url},
            start_new_session=True,  # a Ctrl-C reaches it through us, once
        )
        self._running.add(process)
        if self._stop.is_set():
            process.terminate()
        code = await process.wait()
        self._running.discard(process)
        if code != 0 and not self._stop.is_set():
            log(logging.ERROR, "worker process died", name=name, pid=process.pid, code=code)
            await self._recover(name)
        return code

    async def _recover(self, name: str) -> None:
        """Hand on what it held, without waiting for its heartbeat to run out."""
        database = Database(libpq_url(self._url), size=1)
        await database.open()
        try:
            async with asyncio.timeout(5):
                messages = await database.run(operations.recover_named(name))
            log(logging.INFO, "recovered", name=name, messages=messages)
        except Exception as error:  # it is only sooner than by itself
            log(logging.WARNING, "not recovered at once", name=name, reason=str(error) or type(error).__name__)
        finally:
            await database.close()

    def _forward(self) -> None:
        """Ask all to stop; asked again, they do not wait for their handlers."""
        self._stop.set()
        sd_notify.notify("STOPPING=1")
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(number)
