"""Several worker processes under one: started together, replaced when they die, stopped together."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import suppress

from outbox import operations
from outbox.database import AWAY, Database, libpq_url
from outbox.logs import log
from outbox.worker import worker_name

#: Seconds before a process that died is replaced: the first time, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


class Supervisor:
    """Keeps `processes` copies of a worker command running until it is asked to stop.

    Args:
        arguments: of `python -m outbox`, for one worker process.
        url: the database, to hand on at once what a process held that died.
    """

    def __init__(self, arguments: list[str], processes: int, url: str) -> None:
        self._arguments, self._size = arguments, processes
        self._url = libpq_url(url)
        self._running: set[asyncio.subprocess.Process] = set()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; returns the exit code: 0, or that of a process that could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._forward)
        codes = await asyncio.gather(*(self._keep_running() for _ in range(self._size)))
        return max(codes)

    async def _keep_running(self) -> int:
        wait = _FIRST_WAIT
        while True:
            code = await self._run_one()
            if self._stop.is_set() or code in (1, 2):  # 1, 2: it said why it can't run; another would say the same
                self._forward()
                return max(code, 0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _run_one(self) -> int:
        # its own session: a Ctrl-C reaches it through us, once
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "outbox", *self._arguments, start_new_session=True
        )
        self._running.add(process)
        code = await process.wait()
        self._running.discard(process)
        if code < 0 or code > 2:
            log(logging.ERROR, "worker process died", pid=process.pid, code=code)
            await self._recover(process.pid)
        return code

    async def _recover(self, pid: int) -> None:
        """Hand on what it held, without waiting for its heartbeat to run out."""
        database = Database(self._url, size=1)
        await database.open()
        try:
            async with asyncio.timeout(5):
                messages = await database.run(operations.recover_named(worker_name(pid)))
            log(logging.INFO, "recovered", pid=pid, messages=messages)
        except (*AWAY, TimeoutError):
            log(logging.WARNING, "not recovered yet: the database is away", pid=pid)
        finally:
            await database.close()

    def _forward(self) -> None:
        self._stop.set()
        for process in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
