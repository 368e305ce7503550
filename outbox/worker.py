"""One worker process: consumers for its subscriptions, a heartbeat, and an orderly end.

start:  check schema ─► declare subscriptions ─► register ─► consume
stop:   pull no more ─► handlers finish, for a grace time ─► settle ─► give the rest back ─► close
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, Protocol

import psycopg

from outbox import connection as connections
from outbox import operations, schedules, sd_notify
from outbox.alarm import Alarm
from outbox.client import Outbox
from outbox.consumer import Consumer
from outbox.database import Database, libpq_url, options
from outbox.errors import HandlerStuck, SubscriptionNotFound
from outbox.housekeeping import keep_house
from outbox.logs import log
from outbox.observer import NOBODY, Clock, Observer
from outbox.processing import traced
from outbox.scheduler import Scheduler
from outbox.signals import Signals
from outbox.subscription import Subscription
from outbox.transactions import Transactions
from outbox.watchdog import Watchdog

#: A worker that gives no sign of life for this long is dead, and its leases go to others.
TIMEOUT = timedelta(seconds=30)
#: Seconds that the last settlements, and the farewell, may take.
_LAST_WORDS = 5.0
#: Seconds between heartbeats, at most.
_LONGEST_PAUSE = 5.0
#: How long handlers may go on when the worker is asked to stop; Kubernetes kills after 30 seconds.
GRACE = timedelta(seconds=25)


class Consuming(Protocol):
    """What a worker runs for a subscription: a consumer of our log, or of another system's."""

    name: str
    subscription: Subscription
    #: Set when the worker was found dead and must register anew.
    lost: asyncio.Event

    @property
    def stuck(self) -> asyncio.Event: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    async def run(self) -> None: ...

    def stop(self) -> None: ...

    async def drain(self) -> None: ...

    def finish(self) -> None: ...

    def abandon(self, worker: int) -> None: ...

    def close_from_outside(self) -> Iterator[operations.Settlement]: ...


class Worker:
    """Runs subscriptions of an application until it is asked to stop.

    Args:
        app: the application.
        url: the database.
        only: names of the subscriptions to run; empty: all.
        grace: how long handlers may go on when asked to stop; a second signal ends it.
        timeout: without a heartbeat for this long, others take over; the longest time a message can hang in a crash.
        supervisor: the parent process without which it does not go on; None: it stands alone.
        name: what it is called in `outbox.worker`.
        replace: starts the process anew, when its event loop stands still; without it that is only logged.
        observe: makes who is told what is done for a subscription, of its name.
    """

    def __init__(
        self,
        app: Outbox,
        url: str,
        only: tuple[str, ...] = (),
        grace: timedelta = GRACE,
        timeout: timedelta = TIMEOUT,
        supervisor: int | None = None,
        name: str | None = None,
        replace: Callable[[], NoReturn] | None = None,
        observe: Callable[[str], Observer] = lambda name: NOBODY,
    ) -> None:
        self._subscriptions = _chosen(app, only)
        self._schedules = list(app.schedules.values())
        self._grace, self._timeout, self._supervisor = grace, timeout, supervisor
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.id = 0
        url = libpq_url(url)
        self._database = Database(url, size=len(self._subscriptions) + 2)
        self._transactions = Transactions(
            url,
            sum(s.concurrency for s in self._subscriptions),
            {s.wants[0] for s in self._subscriptions if s.wants},
            app.session_factory,
            app.async_session_factory,
        )
        self._alarm = Alarm(url)
        self._url, self._replace, self._observe = url, replace, observe
        self.clock = Clock()
        #: When the database last heard of us.
        self._beaten = 0.0
        self._watchdog: Watchdog | None = None
        self._consumers: list[Consuming] = []
        self._error: BaseException | None = None
        self._stop, self._stop_now = asyncio.Event(), asyncio.Event()
        #: Did somebody ask us to stop, or do we only end to be replaced?
        self._asked = False

    async def run(self) -> None:
        """Run until `stop`, SIGTERM or SIGINT.

        Raises:
            SchemaOutdated: before anything is touched.
            HandlerStuck: it ended because a handler can't be stopped: run another, in a new process.
        """
        self._signals = Signals(self.stop)
        await self._database.open()
        watching = asyncio.create_task(self._watch_supervisor())
        try:
            if await self._unless_stopped(self._start()):
                await self._work_until_stopped()
        finally:
            watching.cancel()
            if self._watchdog:
                self._watchdog.stop()
            await self._transactions.close()
            await self._alarm.close()
            await self._database.close()
        if self._error is not None and not (isinstance(self._error, HandlerStuck) and self._asked):
            raise self._error

    async def _unless_stopped(self, starting: Coroutine[Any, Any, None]) -> bool:
        """Start; give up if asked to stop meanwhile: the database may be away."""
        task, stop = asyncio.create_task(starting), asyncio.create_task(self._stop.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        task.result()
        return True

    async def _work_until_stopped(self) -> None:
        consuming = [asyncio.create_task(consumer.run()) for consumer in self._consumers]
        stuck = (self._watch_handlers(consumer) for consumer in self._consumers)
        loops = (
            self._alarm.run(),
            sd_notify.keep_alive(),
            self._beat(),
            keep_house(self._database),
            Scheduler(self._database, self._alarm).run(),
            *stuck,
        )
        watching = [asyncio.create_task(loop) for loop in loops]
        for task in (*consuming, *watching):
            task.add_done_callback(self._stop_on_error)
        await self._stop.wait()
        await self._end(consuming)
        for task in (*consuming, *watching):
            task.cancel()
        await asyncio.gather(*consuming, *watching, return_exceptions=True)

    def stop(self) -> None:
        """Ask the worker to stop; ask again to stop without waiting for handlers."""
        (self._stop_now if self._asked else self._stop).set()
        self._asked = True

    @property
    def is_alive(self) -> bool:
        """Does the event loop turn? May be asked from another thread, as `is_ready`, `consumers` and `pools`."""
        return self._watchdog is None or self._watchdog.silence < self._timeout.total_seconds()

    @property
    def is_ready(self) -> bool:
        """Does it consume, and has the database heard of it within the timeout?"""
        heard = time.monotonic() - self._beaten < self._timeout.total_seconds()
        return bool(self._consumers) and heard and not self._stop.is_set()

    @property
    def consumers(self) -> list[Consuming]:
        """None before it has started."""
        return self._consumers

    @property
    def rings(self) -> int:
        """Notifications that have come."""
        return self._alarm.rings

    @property
    def pools(self) -> dict[str, dict[str, int]]:
        """The statistics of psycopg's pools of connections: the worker's own, and those of handlers."""
        return {"worker": self._database.pool_stats(), **self._transactions.pool_stats()}

    def _stop_on_error(self, task: asyncio.Task[None]) -> None:
        """An error that no loop expected ends the worker in good order; `run` raises it."""
        if not task.cancelled() and (error := task.exception()):
            self._error = self._error or (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error)
            self._stop.set()

    async def _start(self) -> None:
        await self._database.persist(operations.check_schema)
        self._subscriptions = [traced(subscription) for subscription in self._subscriptions]
        for subscription in self._subscriptions:
            await self._declare(subscription)
        for schedule in self._schedules:
            await self._database.persist(partial(schedules.declare, schedule))
        await self._transactions.start()
        self.id = await self._register()
        self._watchdog = Watchdog(
            asyncio.get_running_loop().call_soon_threadsafe, self._timeout.total_seconds(), self._replace_from_outside
        )
        self._consumers = [
            Consumer(
                subscription, self._database, self._alarm, self._transactions, self._watchdog, self.id,
                self._observe(subscription.name),
            )
            for subscription in self._subscriptions
        ]  # fmt: skip
        self._watchdog.start()
        sd_notify.notify("READY=1")
        log(logging.INFO, "worker started", worker=self.id, name=self.name, subscriptions=",".join(self._names))

    async def _declare(self, subscription: Subscription) -> None:
        name, retries = subscription.name, subscription.retries
        await self._database.persist(
            lambda: operations.subscribe(name, subscription.guarantee, retries.max_attempts, subscription.on_failure)
        )
        if subscription.settings:
            await self._database.persist(lambda: operations.configure(name, subscription.settings))
        for binding in subscription.bindings:
            await self._database.persist(partial(operations.bind, name, binding, subscription.start))
        bound = await self._database.persist(lambda: operations.bindings_of(name))
        if more := [str(binding) for binding in bound if binding not in subscription.bindings]:
            log(
                logging.WARNING,
                "bound to more than its handler declares: `outbox subscriptions unbind` ends it",
                subscription=name,
                bindings="; ".join(more),
            )

    async def _beat(self) -> None:
        """Heartbeat, hand on what dead workers held, and adopt partitions that nobody told us of."""
        while True:
            alive = await self._database.persist(lambda: operations.heartbeat(self.id, self._timeout))
            if not alive:
                await self._register_anew()
            self._beaten = time.monotonic()
            await self._compare_clocks()
            if recovered := await self._database.persist(operations.recover):
                log(logging.WARNING, "a worker died, its messages go to others", messages=recovered)
            for name in self._names:
                await self._database.persist(partial(operations.adopt, name))
            await self._pause(min(self._timeout.total_seconds() / 6, _LONGEST_PAUSE))

    async def _compare_clocks(self) -> None:
        began = time.time()
        there = await self._database.persist(operations.clock)
        self.clock.compare(began, there, time.time())

    async def _watch_handlers(self, consumer: Consuming) -> None:
        """End in good order, but for the handler that can't be stopped."""
        await consumer.stuck.wait()
        self._error = self._error or HandlerStuck(
            f"a handler of subscription {consumer.name!r} went on beyond its time limit and could not be stopped"
        )
        log(logging.ERROR, "handler stuck, the worker is replaced", worker=self.id, subscription=consumer.name)
        self._stop.set()

    def _replace_from_outside(self) -> None:
        """The event loop stands still: settle what is finished, give the rest back, start anew. In another thread."""
        if self._replace is None:
            log(logging.CRITICAL, "the event loop stands still: others take over", worker=self.id)
            return
        try:
            with psycopg.connect(self._url, autocommit=True, **options()) as connection:
                connection.execute("SET statement_timeout = '5s'")
                for consumer in self._consumers:
                    for settlement in consumer.close_from_outside():
                        connections.run(operations.settle(self.id, settlement, durable=True), connection)
                if any(consumer.stuck.is_set() for consumer in self._consumers):
                    connections.run(operations.retire(self.id), connection)
                else:  # nobody knows whose fault it is: as if we had died, so that the guilty one is found
                    connections.run(operations.recover_named(self.name), connection)
        except Exception as error:  # then others find it dead
            log(logging.ERROR, "could not give back what it held", worker=self.id, reason=type(error).__name__)
        log(logging.CRITICAL, "the event loop stands still: the worker is replaced", worker=self.id)
        if self._asked or self._signals.is_waiting():
            os._exit(0)
        self._replace()

    async def _watch_supervisor(self) -> None:
        """Processes that lost their supervisor would go on for ever, unseen."""
        if self._supervisor is None:
            return
        while os.getppid() == self._supervisor:  # noqa: ASYNC110  # nothing tells us but the kernel, when asked
            await asyncio.sleep(1)
        log(logging.WARNING, "the supervisor is gone", worker=self.id)
        self._stop.set()

    async def _pause(self, seconds: float) -> None:
        """Wait, unless a consumer finds out first that this worker counts as dead."""
        waits = [asyncio.create_task(consumer.lost.wait()) for consumer in self._consumers]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _register(self) -> int:
        return await self._database.persist(lambda: operations.register(self.name, self._names, self._timeout))

    async def _register_anew(self) -> None:
        log(logging.WARNING, "worker was found dead: its leases are in other hands, it begins anew", worker=self.id)
        self.id = await self._register()
        for consumer in self._consumers:
            consumer.abandon(self.id)

    async def _end(self, consuming: list[asyncio.Task[None]]) -> None:
        """The order matters: nothing new, then what is under way, then its settlement, then the rest goes to others."""
        sd_notify.notify("STOPPING=1")
        for consumer in self._consumers:
            consumer.stop()
        log(logging.INFO, "stopping", worker=self.id, handling=self._handling)
        await self._wait_for_handlers()
        for consumer in self._consumers:
            consumer.finish()
        await asyncio.wait(consuming, timeout=_LAST_WORDS)
        try:
            async with asyncio.timeout(_LAST_WORDS):
                released = await self._database.persist(lambda: operations.retire(self.id))
        except TimeoutError:
            log(logging.WARNING, "stopped while the database is away: others take over in a while", worker=self.id)
        else:
            log(logging.INFO, "worker stopped", worker=self.id, released=released, unfinished=self._handling)

    async def _wait_for_handlers(self) -> None:
        """Until all have finished, the grace time is over, or we are asked again."""
        drained = asyncio.create_task(self._drain())
        hurried = asyncio.create_task(self._stop_now.wait())
        waits: list[asyncio.Task[Any]] = [drained, hurried]
        left = self._grace.total_seconds()
        while left > 0 and not drained.done() and not hurried.done():
            await asyncio.wait(waits, timeout=min(1, left), return_when=asyncio.FIRST_COMPLETED)
            left -= 1
            if not drained.done() and sys.stderr.isatty():
                print(
                    f"waiting for {self._handling} message(s) being handled, {max(left, 0):.0f} s at most; "
                    "Ctrl-C again to leave them to others",
                    file=sys.stderr,
                )
        for wait in waits:
            wait.cancel()

    async def _drain(self) -> None:
        for consumer in self._consumers:
            await consumer.drain()

    @property
    def _names(self) -> list[str]:
        return [subscription.name for subscription in self._subscriptions]

    @property
    def _handling(self) -> int:
        return sum(consumer.running for consumer in self._consumers)


def _chosen(app: Outbox, only: tuple[str, ...]) -> list[Subscription]:
    if unknown := [name for name in only if name not in app.subscriptions]:
        raise SubscriptionNotFound(
            f"the application has no subscription {', '.join(unknown)}; it has {', '.join(app.subscriptions) or 'none'}"
        )
    chosen = [subscription for name, subscription in app.subscriptions.items() if not only or name in only]
    if not chosen:
        raise SubscriptionNotFound("the application has no subscriptions: decorate a handler with @app.subscribe(...)")
    return chosen
