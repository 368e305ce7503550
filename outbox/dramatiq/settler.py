"""Settle what dramatiq's threads have acknowledged: many messages in a statement, retries in one transaction with it.

A settlement begins as soon as the one before it has committed, and takes all that was acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg

from outbox import operations
from outbox.database import Database
from outbox.dramatiq import envelope
from outbox.dramatiq.envelope import Envelope
from outbox.errors import InvalidDeclaration, LeaseLost, OutboxError
from outbox.logs import log
from outbox.operations import Failure, Operation, Settlement, ranges
from outbox.settling import Ledger, one_by_one, what_is_held

#: Seconds between settlements of the finished parts of a lease: what would come again if the process were killed.
_PARTS = 0.1
#: Messages with follow-ups in one transaction at most.
_BATCH = 100
#: Seconds until a message is handled again whose retry could not be published.
_LATER = 5.0


class Outcome(NamedTuple):
    """What became of a message in a worker's hands."""

    lease: int
    offset: int
    failure: Failure | None = None
    #: Published if and only if the message is settled: its retry, a pipeline's next step, a callback.
    follow_ups: Sequence[Envelope] = ()


class Settler:
    """Keeps account of the leases of a process. Lives in its event loop; only `add` may be called by other threads.

    Args:
        worker: says as whom to settle.
        told: called when redeliveries were settled: another may be due now.
    """

    def __init__(self, database: Database, worker: Callable[[], int], told: Callable[[], None]) -> None:
        self._database, self._worker, self._told = database, worker, told
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger()
        self._outcomes: deque[Outcome] = deque()
        self._is_woken = False
        self._wake = asyncio.Event()
        self._finishing = False
        #: Leases in a settlement that is under way, and those of redeliveries.
        self._settling: set[int] = set()
        self._redelivered: set[int] = set()

    @property
    def known(self) -> list[int]:
        """The leases that this process knows of."""
        return [*self._ledger.leases, *self._settling]

    def add(self, outcome: Outcome) -> None:
        """Note what became of a message; returns at once. Thread-safe."""
        self._outcomes.append(outcome)
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._wake.set)

    def open(self, lease: int, offsets: Iterable[int], redelivered: bool) -> None:
        """Note that messages were pulled."""
        self._ledger.open(lease, offsets)
        if redelivered:
            self._redelivered.add(lease)

    def forget(self) -> None:
        """The worker was found dead: others have its messages."""
        self._ledger.clear()
        self._outcomes.clear()
        self._redelivered.clear()

    def finish(self) -> None:
        """Settle all that is finished; then `run` returns."""
        self._finishing = True
        self._wake.set()

    async def run(self) -> None:
        last_parts = self._loop.time()
        while not self._finishing:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PARTS if self._ledger.leases else None):
                    await self._wake.wait()
            parts = self._loop.time() - last_parts >= _PARTS
            await self._settle_now(parts)
            if parts:
                last_parts = self._loop.time()
        await self._settle_now(parts=True)

    async def _settle_now(self, parts: bool) -> None:
        self._wake.clear()
        self._is_woken = False
        followed = self._enter()
        while followed:
            await self._settle_with_follow_ups(followed[:_BATCH])
            del followed[:_BATCH]
        while settlement := self._ledger.next(parts):
            await self._settle(settlement)

    def _enter(self) -> list[Outcome]:
        """Enter outcomes into the ledger; returns those that publish something."""
        followed = []
        while self._outcomes:
            outcome = self._outcomes.popleft()
            if outcome.follow_ups:
                followed.append(outcome)
            elif outcome.failure:
                self._ledger.fail(outcome.failure)
            else:
                self._ledger.close(outcome.lease, (outcome.offset,))
        return followed

    async def _settle(self, settlement: Settlement) -> None:
        worker = self._worker()
        self._settling.update(settlement.leases)
        try:
            await self._database.persist(lambda: operations.settle(worker, settlement, durable=False))
        except (LeaseLost, InvalidDeclaration) as error:
            if len(settlement.leases) > 1:
                for one in one_by_one(settlement):
                    await self._settle(one)
            else:
                await self._settle_what_is_held(settlement, worker, error)
        finally:
            self._settled(settlement.leases)

    async def _settle_what_is_held(self, settlement: Settlement, worker: int, error: OutboxError) -> None:
        lease = settlement.leases[0]
        held = await self._database.persist(lambda: operations.held(worker, lease))
        rest = what_is_held(settlement, held)
        with suppress(LeaseLost):
            if rest:
                await self._database.persist(lambda: operations.settle(worker, rest, durable=False))
                return
        if not held:
            self._ledger.drop(lease)
            log(logging.WARNING, "lease lost: others handle its messages", lease=lease, reason=str(error))

    async def _settle_with_follow_ups(self, outcomes: list[Outcome]) -> None:
        """Publish and settle in one commit; if its answer is lost, then a second try publishes nothing."""
        worker, leases = self._worker(), [outcome.lease for outcome in outcomes]
        self._settling.update(leases)
        try:
            await self._database.persist(lambda: _settle_and_publish(worker, outcomes))
        except (OutboxError, psycopg.Error) as error:
            if len(outcomes) > 1:
                for outcome in outcomes:
                    await self._settle_with_follow_ups([outcome])
            else:
                self._refuse(outcomes[0], error)
        else:
            for outcome in outcomes:
                self._ledger.settled(outcome.lease, (outcome.offset,))
            self._told()
        finally:
            self._settled(leases)

    def _refuse(self, outcome: Outcome, error: Exception) -> None:
        """What it was to publish is not lost: it is handled again, here or elsewhere."""
        if isinstance(error, LeaseLost):
            log(logging.WARNING, "lease lost: others handle its message", lease=outcome.lease, reason=str(error))
            self._ledger.settled(outcome.lease, (outcome.offset,))
        else:
            log(logging.ERROR, "a retry can't be published: its message is handled again", reason=str(error))
            self._ledger.fail(Failure(outcome.lease, outcome.offset, _LATER, None, None, charged=False))

    def _settled(self, leases: Iterable[int]) -> None:
        self._settling.difference_update(leases)
        if not self._redelivered.isdisjoint(leases):
            self._redelivered.difference_update(leases)
            self._told()


def _settle_and_publish(worker: int, outcomes: list[Outcome]) -> Operation[None]:
    by_lease: dict[int, list[int]] = {}
    for outcome in outcomes:
        by_lease.setdefault(outcome.lease, []).append(outcome.offset)
    settlement = Settlement(
        list(by_lease),
        [ranges(offsets) for offsets in by_lease.values()],
        [outcome.failure for outcome in outcomes if outcome.failure],
    )
    follow_ups = [one for outcome in outcomes for one in outcome.follow_ups]
    return envelope.with_publications(next(operations.settle(worker, settlement, durable=True)), follow_ups)
