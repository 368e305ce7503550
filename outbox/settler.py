"""What became of a consumer's messages: noted, and brought to the database, again and again until it is there."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

from outbox import handling, operations
from outbox.chunks import Call, Chunk, Deferred
from outbox.database import Database
from outbox.errors import InvalidDeclaration, LeaseLost
from outbox.logs import log
from outbox.model import Message
from outbox.observer import Observer
from outbox.operations import Failure, Settlement
from outbox.settling import Ledger, one_by_one, what_is_held
from outbox.subscription import Subscription
from outbox.tracing import trace_id

#: Seconds between settlements of the finished parts of a lease.
_PARTS = 0.5


class Settler:
    """Settles what handlers have finished. Not thread-safe: it lives in the event loop.

    Args:
        worker: whose leases they are.
        lost: told of a lease that is in other hands now.
        settled: told of leases that are settled.
    """

    def __init__(
        self,
        subscription: Subscription,
        database: Database,
        observer: Observer,
        worker: int,
        lost: Callable[[int], None],
        settled: Callable[[Iterable[int]], None],
    ) -> None:
        self._subscription, self._database, self._observer = subscription, database, observer
        self._lost, self._settled = lost, settled
        self.worker = worker
        self._ledger = Ledger()
        #: Leases in a settlement that is under way.
        self._settling: set[int] = set()
        self._settleable = asyncio.Event()
        self._finishing = False
        self._chance = random.Random()

    @property
    def leases(self) -> list[int]:
        """All that are not settled."""
        return [*self._ledger.leases, *self._settling]

    def open(self, lease: int, messages: list[Message]) -> None:
        """Note that messages were pulled."""
        self._ledger.open(lease, [message.offset for message in messages])

    def abandon(self, worker: int) -> None:
        """Begin anew as another worker: what was open is in other hands now."""
        self.worker = worker
        for _ in self._ledger.leases:
            self._observer.lost()
        self._ledger.clear()

    def finish(self) -> None:
        """Settle all that is finished, whatever is not; then `run` returns."""
        self._finishing = True
        self._settleable.set()

    async def run(self) -> None:
        """Settle what is finished, as soon as it is and the settlement before has committed; in the end all of it."""
        last_parts = time.monotonic()
        while not self._finishing:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PARTS):
                    await self._settleable.wait()
            self._settleable.clear()
            parts = time.monotonic() - last_parts >= _PARTS
            await self._settle_now(parts)
            if parts:
                last_parts = time.monotonic()
        await self._settle_now(parts=True)

    def close(self, chunk: Chunk) -> None:
        """Note what became of a chunk's messages."""
        self._close(chunk)
        self._wake()

    def close_stuck(self, chunk: Chunk, call: Call | None) -> None:
        """Note what a chunk has come to; the call, if any, is the one that does not end."""
        chunk.give_up()
        self._observer.handled(chunk)
        self._close(chunk)
        if call:
            guilty = chunk.open_messages(call)[: 1 if call.apart else None]
            for message, stuck in zip(guilty, handling.stuck(self._subscription, guilty), strict=True):
                self._fail(message, stuck)
        self._settleable.set()

    def all_from_outside(self) -> Iterator[Settlement]:
        """What can be settled, for somebody who does it while the event loop stands still; in another thread."""
        while settlement := self._ledger.next(parts=True):
            yield settlement

    def defer(self, message: Message) -> None:
        """Note that a message goes back, untried."""
        self._fail(message, Deferred())
        self._wake()

    def _wake(self) -> None:
        if self._ledger.has_finished:
            self._settleable.set()

    def _fail(self, message: Message, error: Exception) -> None:
        lease = message.lease_id
        if lease is None:
            self._observer.failed("dropped", None)
            self._log_failure(logging.ERROR, "failed without a lease: message dropped", message, error)
        elif isinstance(error, LeaseLost):
            self._lose(lease)
            self._settled({lease})
            self._log_failure(logging.WARNING, "lease lost, effects rolled back", message, error)
        else:
            failure = handling.failure_of(self._subscription, message, lease, error, self._chance)
            self._enter_failure(failure, message, error)

    def _close(self, chunk: Chunk) -> None:
        for batch, messages in groupby(chunk.done, key=attrgetter("batch")):
            if batch.lease_id is None:
                continue
            offsets = [message.offset for message in messages]
            if self._subscription.guarantee != "exactly-once":
                self._ledger.close(batch.lease_id, offsets)
            elif self._ledger.settled(batch.lease_id, offsets):
                self._settled({batch.lease_id})
        for message, error in chunk.failed:
            self._fail(message, error)

    def _enter_failure(self, failure: Failure, message: Message, error: Exception) -> None:
        self._ledger.fail(failure)
        if isinstance(error, Deferred):
            self._observer.failed("deferred", None)
            return
        self._observer.failed("dead" if failure.delay is None else "retry", failure.reason)
        if failure.delay is None:
            self._log_failure(logging.ERROR, "dead letter", message, error, reason=failure.reason)
        else:
            self._log_failure(logging.WARNING, "retry", message, error, delay=f"{failure.delay:.1f}s")

    def _log_failure(self, level: int, event: str, message: Message, error: Exception, **fields: Any) -> None:
        name = self._subscription.name
        known = {"subscription": name, "message": message.id, "topic": message.topic, "attempt": message.attempt}
        traced = {"trace": id} if (id := trace_id(message)) else {}
        log(level, event, **known, **fields, **traced, cause=handling.cause_of(error))

    async def _settle_now(self, parts: bool) -> None:
        """With `parts`, also what is finished of leases that are not."""
        while settlement := self._ledger.next(parts):
            await self._settle(settlement)

    async def _settle(self, settlement: Settlement) -> None:
        worker, began = self.worker, time.monotonic()
        self._settling.update(settlement.leases)
        try:
            await self._database.persist(lambda: operations.settle(worker, settlement, durable=False))
            self._observer.settled(len(settlement.leases), time.monotonic() - began)
        except (LeaseLost, InvalidDeclaration) as error:
            if len(settlement.leases) == 1:
                await self._settle_what_is_held(settlement, worker, error)
                return
            for one in one_by_one(settlement):
                await self._settle(one)
        finally:
            self._settling.difference_update(settlement.leases)
            self._settled(settlement.leases)

    async def _settle_what_is_held(self, settlement: Settlement, worker: int, error: Exception) -> None:
        """A handler's transaction may have settled a part of it, although its commit seemed to fail."""
        lease = settlement.leases[0]
        held = await self._database.persist(lambda: operations.held(worker, lease))
        rest = what_is_held(settlement, held)
        try:
            if rest:
                await self._database.persist(lambda: operations.settle(worker, rest, durable=False))
        except LeaseLost:
            held = set()
        if not held:
            self._lose(lease)
            log(logging.WARNING, "lease lost", subscription=self._subscription.name, lease=lease, reason=str(error))

    def _lose(self, lease: int) -> None:
        self._ledger.drop(lease)
        self._observer.lost()
        self._lost(lease)
