"""A process that runs relays and sources: all that a definition names, until it is asked to stop or to read it anew.

SIGHUP:  read the definitions ─► end as for SIGTERM: what is under way is confirmed and settled ─► begin anew
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg.conninfo

from outbox import operations
from outbox.client import Outbox
from outbox.database import AWAY, Database, libpq_url
from outbox.definitions import Definitions
from outbox.definitions.relays import Relay
from outbox.errors import InvalidDeclaration
from outbox.logs import log
from outbox.relay import operations as relay_operations
from outbox.relay import target
from outbox.relay.delivery import Delivery
from outbox.relay.importing import Importer
from outbox.relay.producers import Producers
from outbox.relay.tally import Tally
from outbox.retries import Retries
from outbox.signals import Signals
from outbox.worker import GRACE, TIMEOUT, Worker

#: Seconds between looks at what is to be noted in the database; and until what has not changed is noted again.
_LOOK, _AT_LEAST = 1.0, 15.0


class RelayWorker(Worker):
    """A worker whose handlers are relays.

    Args:
        stop: what a signal does.
    """

    def __init__(
        self,
        relays: dict[str, Relay],
        url: str,
        name: str,
        grace: timedelta,
        timeout: timedelta,
        stop: Callable[[], None],
    ) -> None:
        self._told = stop
        self.deliveries = {one: self._delivery(one, relay, database_source(url)) for one, relay in relays.items()}
        super().__init__(application(relays, self.deliveries), url, (), grace, timeout, name=name)

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            for delivery in self.deliveries.values():
                await delivery.close()

    def stop(self) -> None:
        self._told()

    def end(self) -> None:
        """Send nothing more; what is on its way is waited for, for the grace time."""
        for delivery in self.deliveries.values():
            delivery.stop()
        super().stop()

    def _delivery(self, name: str, relay: Relay, source: str) -> Delivery:
        async def disable() -> None:
            await self._database.persist(lambda: operations.pause(name))

        producers = Producers(name, lambda operation: self._database.persist(operation))
        return Delivery(name, relay, target.target(name, relay, relay.source or source, producers), disable)


class Relays:
    """Runs relays and sources in this process.

    Args:
        read: gives the definitions; called again when they are to be read anew.
        url: the database.
        only: names of relays and sources to run; empty: all.
        grace: how long what is on its way is waited for when asked to stop.
        timeout: without a heartbeat for this long, other processes take over.
        name: what the process is called in `outbox.worker` and `outbox status`.
        supervisor: the parent process without which it does not go on; None: it stands alone.
    """

    def __init__(
        self,
        read: Callable[[], Definitions],
        url: str,
        only: tuple[str, ...] = (),
        grace: timedelta = GRACE,
        timeout: timedelta = TIMEOUT,
        name: str | None = None,
        supervisor: int | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._read, self._url, self._only = read, libpq_url(url), only
        self._grace, self._timeout = grace, timeout
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._wanted = self._chosen(read())
        self._worker: RelayWorker | None = None
        self._importers: list[Importer] = []
        self._ended, self._hurry = asyncio.Event(), asyncio.Event()
        self._is_asked = False
        self._noted: dict[str, tuple[object, float]] = {}

    @property
    def tallies(self) -> list[Tally]:
        """Of all that runs now."""
        deliveries = self._worker.deliveries.values() if self._worker else ()
        return [one.tally for one in (*deliveries, *self._importers)]

    @property
    def is_ready(self) -> bool:
        """Does something run, and has the database heard of its worker? May be asked from another thread."""
        return bool(self.tallies) and (self._worker is None or self._worker.is_ready)

    @property
    def is_alive(self) -> bool:
        """Does the event loop turn? May be asked from another thread."""
        return self._worker is None or self._worker.is_alive

    async def run(self) -> None:
        """Run until `stop`, SIGTERM or SIGINT; SIGHUP is `reload`. Raises as `Worker.run`."""
        loop = asyncio.get_running_loop()
        # not by the loop's own handlers: `Signals` takes the socket that wakes them
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self.reload))
        while not self._is_asked:
            await self._run_once()

    def stop(self) -> None:
        """Ask it to stop; ask again to wait for nothing."""
        is_again, self._is_asked = self._is_asked, True
        self._end(at_once=is_again)

    def reload(self) -> None:
        """Read the definitions anew, and begin anew with them; definitions that are none change nothing."""
        try:
            wanted = self._chosen(self._read())
            self._try(wanted)
        except Exception as error:  # a module of definitions may raise anything
            log(logging.ERROR, "definitions are not in order: all goes on as it was", reason=str(error))
            return
        self._wanted = wanted
        log(logging.INFO, "definitions read anew", relays=len(self._wanted.relays), sources=len(self._wanted.sources))
        self._end()

    def _try(self, wanted: Definitions) -> None:
        """Raise what beginning with them would raise; no connection is made."""
        application(wanted.relays, {name: self._trial(name, relay) for name, relay in wanted.relays.items()})
        for name, source in wanted.sources.items():
            Importer(name, source, self._url)

    def _trial(self, name: str, relay: Relay) -> Delivery:
        async def disable() -> None:
            raise NotImplementedError

        return Delivery(name, relay, target.target(name, relay, "/outbox"), disable)

    def _end(self, at_once: bool = False) -> None:
        """End what runs now; being asked twice, by whomever, does not cut the grace time short, `at_once` does."""
        is_news = not self._ended.is_set()
        self._ended.set()
        if at_once:
            self._hurry.set()
        if self._worker is not None and (is_news or at_once):
            self._worker.end()
        for importer in self._importers:
            importer.stop()

    async def _run_once(self) -> None:
        self._ended, self._hurry, wanted = asyncio.Event(), asyncio.Event(), self._wanted
        self._importers = [Importer(name, source, self._url) for name, source in wanted.sources.items()]
        self._worker = None
        if wanted.relays:
            self._worker = RelayWorker(wanted.relays, self._url, self.name, self._grace, self._timeout, self.stop)
        else:
            self._signals = Signals(self.stop)
        database = Database(self._url, size=2)
        await database.open()
        noting = asyncio.create_task(self._note(database))
        ending = asyncio.create_task(self._ended.wait())
        importing = [asyncio.create_task(one.run()) for one in self._importers]
        running = [*([asyncio.create_task(self._worker.run())] if self._worker else []), *importing]
        log(logging.INFO, "relaying", relays=",".join(wanted.relays), sources=",".join(wanted.sources))
        try:
            await _first_of(*running, noting, ending)
            if not self._ended.is_set():
                self._end()  # one of them can't go on, and says why below
            await self._give_up_late(importing)
            for error in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(error, Exception):
                    raise error
        finally:
            noting.cancel()
            ending.cancel()
            await asyncio.gather(*running, noting, ending, return_exceptions=True)
            with suppress(*AWAY, TimeoutError):
                async with asyncio.timeout(2):
                    await self._note_all(database)
            await database.close()

    async def _give_up_late(self, importing: list[asyncio.Task[None]]) -> None:
        """What a source is publishing may hang; it is not confirmed there, and comes again or was published."""
        over = asyncio.gather(*importing, return_exceptions=True)
        hurry = asyncio.create_task(self._hurry.wait())
        await _first_of(over, hurry, seconds=self._grace.total_seconds())
        hurry.cancel()
        for task in importing:
            task.cancel()

    async def _note(self, database: Database) -> None:
        """Tell the database how all stands, and see whether what was disabled was resumed by somebody."""
        while True:
            await asyncio.sleep(_LOOK)
            if self._supervisor is not None and os.getppid() != self._supervisor and not self._is_asked:
                log(logging.WARNING, "the supervisor is gone", name=self.name)
                self.stop()
            with suppress(*AWAY):
                await self._note_all(database)
                for delivery in self._worker.deliveries.values() if self._worker else ():
                    if delivery.is_paused and not await database.run(relay_operations.is_paused(delivery.name)):
                        log(logging.INFO, "relay enabled again", relay=delivery.name)
                        delivery.enable()

    async def _note_all(self, database: Database) -> None:
        now = asyncio.get_running_loop().time()
        for tally in self.tallies:
            stands = (tally.circuit.state, tally.circuit.reason, tally.delivered, tally.failed)
            before, at = self._noted.get(tally.name, (None, 0.0))
            if stands != before or now - at > _AT_LEAST:
                await database.run(relay_operations.note(tally, self.name))
                self._noted[tally.name] = (stands, now)

    def _chosen(self, definitions: Definitions) -> Definitions:
        names = [*definitions.relays, *definitions.sources]
        if unknown := [name for name in self._only if name not in names]:
            raise InvalidDeclaration(f"there is no relay or source {', '.join(unknown)}; there are {', '.join(names)}")
        if not names:
            raise InvalidDeclaration("the definitions name no relay and no source: [relays.NAME] or [sources.NAME]")
        return Definitions(
            relays={name: one for name, one in definitions.relays.items() if not self._only or name in self._only},
            sources={name: one for name, one in definitions.sources.items() if not self._only or name in self._only},
        )


async def _first_of(*waits: asyncio.Future[Any], seconds: float | None = None) -> None:
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)


def application(relays: dict[str, Relay], deliveries: dict[str, Delivery]) -> Outbox:
    """An application whose handlers are relays."""
    app = Outbox()
    for name, relay in relays.items():
        declare = app.subscribe(
            name,
            *relay.bindings,
            concurrency=relay.concurrency,
            retries=Retries(max_attempts=relay.max_attempts),
            start=relay.start,
            batch=relay.batch,
            ordered=relay.ordered,
            time_limit=None,  # the target has one, and where it is away we wait
        )
        declare(deliveries[name])
    return app


def database_source(url: str) -> str:
    """The `source` of events from a database."""
    return f"/outbox/{psycopg.conninfo.conninfo_to_dict(libpq_url(url)).get('dbname') or 'outbox'}"
