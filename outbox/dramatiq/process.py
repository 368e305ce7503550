"""This process as a worker: an event loop in a thread, that pulls, settles, shows life and publishes what is due.

start:  register ─► pull for each queue that dramatiq consumes
stop:   pull no more ─► settle ─► give the rest back
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

from outbox import housekeeping, logs, operations
from outbox.alarm import Alarm
from outbox.database import Database
from outbox.dramatiq import keeping, kin
from outbox.dramatiq.intake import Intake
from outbox.dramatiq.settler import Settler
from outbox.logs import log
from outbox.scheduler import Scheduler

#: Seconds between heartbeats, at most; and between looks for processes of this machine that are gone.
_LONGEST_PAUSE, _LOOK = 5.0, 1.0
#: Seconds after which a loop that failed begins anew.
_AGAIN = 1.0
#: Seconds that the last settlements, and the farewell, may take.
_LAST_WORDS = 5.0
#: Connections beside those of the intakes: settlements, heartbeats, what is due.
_CONNECTIONS = 4


class WorkerProcess:
    """Starts at once, whether or not the database answers; what needs it waits for it.

    Args:
        url: a libpq URL.
        timeout: without a heartbeat for this long, others take over.
    """

    def __init__(self, url: str, timeout: timedelta) -> None:
        logs.show_fields()
        self.id, self.pid = 0, os.getpid()
        self._url, self._timeout = url, timeout
        self._intakes: dict[str, Intake] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()
        self._ready.wait()

    def intake(self, subscription: str) -> Intake:
        """That of a queue; it is made at the first call. For dramatiq's threads."""
        with self._lock:
            if subscription not in self._intakes:
                made = asyncio.run_coroutine_threadsafe(self._admit(subscription), self._loop)
                self._intakes[subscription] = made.result()
            return self._intakes[subscription]

    def look_for_due(self) -> None:
        """This process has sent something for later: maybe very soon. For any thread."""
        with suppress(RuntimeError):  # it has just stopped
            self._loop.call_soon_threadsafe(self._scheduler.rung.set)

    def stop(self) -> None:
        """Settle what is done, give back the rest, uncharged, and end. Messages that actors are still at come again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(2 * _LAST_WORDS)

    def _run(self) -> None:
        asyncio.run(self._work_until_stopped())

    async def _work_until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._lost, self._registered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._database, self._alarm = Database(self._url, size=_CONNECTIONS), Alarm(self._url)
        self._scheduler = Scheduler(self._database, self._alarm)
        self._settler = Settler(self._database, lambda: self.id, self._ring)
        self._ready.set()
        await self._database.open()
        try:
            settling = self._start(self._settler.run)
            for loop in (self._beat, self._alarm.run, self._keep, self._scheduler.run):
                self._start(loop)
            await self._stopping.wait()
            await self._end(settling)
        finally:
            await self._alarm.close()
            await self._database.close()

    def _start(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._again_and_again(loop))
        self._tasks.add(task)
        return task

    async def _again_and_again(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """A loop that ends is done; one that fails in a way that nobody foresaw begins anew."""
        await self._registered.wait() if loop != self._beat else None
        while True:
            try:
                await loop()
                return
            except Exception as error:
                log(
                    logging.ERROR,
                    "failed, and begins anew",
                    what=getattr(loop, "__qualname__", loop),
                    reason=repr(error),
                )
                logging.getLogger("outbox").debug("failed", exc_info=True)
            await asyncio.sleep(_AGAIN)

    async def _admit(self, subscription: str) -> Intake:
        intake = Intake(subscription, self._database, self._alarm, self._settler, lambda: self.id, self._lost.set)
        self._start(intake.run)
        self._start(partial(self._enlist, subscription))
        return intake

    async def _enlist(self, subscription: str) -> None:
        await self._database.persist(partial(keeping.enlist, self.id, subscription))

    def _ring(self) -> None:
        """Something of ours was settled: a suspect, or a retry's time, may be next."""
        self._scheduler.rung.set()
        for intake in [*self._intakes.values()]:  # other threads add to them
            intake.rung.set()

    async def _beat(self) -> None:
        """Register, then heartbeat, hand on what dead workers held, and adopt partitions that nobody told us of."""
        await self._database.persist(operations.check_schema)
        await self._register()
        last = -self._timeout.total_seconds()
        while True:
            if self._loop.time() - last >= min(self._timeout.total_seconds() / 6, _LONGEST_PAUSE):
                last = self._loop.time()
                await self._give_sign_of_life()
            await self._recover_kin()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._lost.wait()
                    last = -self._timeout.total_seconds()

    async def _give_sign_of_life(self) -> None:
        if not await self._database.persist(lambda: operations.heartbeat(self.id, self._timeout)):
            await self._register_anew()
        recovered = await self._database.persist(operations.recover)
        for name in [*self._intakes]:
            await self._database.persist(partial(operations.adopt, name))
        if recovered:
            log(logging.WARNING, "a worker died, its messages go to others", messages=recovered)

    async def _recover_kin(self) -> None:
        """Processes of this machine that are gone need no proof by silence."""
        for worker, name in await self._database.persist(keeping.kin):
            if worker != self.id and kin.is_gone(name):
                messages = await self._database.persist(partial(keeping.recover, worker))
                log(logging.WARNING, "a process died, its messages go to others", worker=worker, messages=messages)

    async def _register(self) -> None:
        names = [*self._intakes]
        self.id = await self._database.persist(lambda: operations.register(kin.name(), names, self._timeout))
        self._registered.set()
        log(logging.INFO, "worker started", worker=self.id)

    async def _register_anew(self) -> None:
        log(logging.WARNING, "worker was found dead: its leases are in other hands, it begins anew", worker=self.id)
        self._settler.forget()
        await self._register()
        self._lost.clear()
        for intake in [*self._intakes.values()]:
            intake.abandon()

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(housekeeping.keep_house(self._database))
            group.create_task(keeping.keep_results(self._database))

    async def _end(self, settling: asyncio.Task[None]) -> None:
        """The order matters: nothing new, then the settlement of what is done, then the rest goes to others."""
        others = self._tasks - {settling}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._settler.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                if self._registered.is_set():
                    await settling
                    await self._database.persist(lambda: operations.retire(self.id))
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
