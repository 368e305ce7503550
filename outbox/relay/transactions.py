"""Kafka, a transaction a batch: seen wholly or not at all, and nothing of whoever was taken for dead.

    a worker: its transactional id is noted here ─► begun there ─► is the lease still held? ─► send, commit ─► settle
                  │
                  └─ it is found dead: whoever gets what it held fences its id there ─► send, commit ─► settle

An id is of one worker, so that nobody alive is ever fenced by another who has other messages.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from outbox.chunks import Deferred
from outbox.definitions.relays import Relay
from outbox.logs import log
from outbox.model import Message, Retry
from outbox.relay import transaction
from outbox.relay.producers import Producers
from outbox.relay.producing import settings_of
from outbox.relay.target import Outcome, Unavailable
from outbox.relay.transaction import Transaction, TransactionalProducer, is_verdict

T = TypeVar("T")

#: Milliseconds that Kafka lets a transaction take at most, unless it is told otherwise.
_LONGEST = 900_000


class Transactions:
    """Produces each batch in a transaction, one at a time. A batch with a message that is refused is halved.

    Args:
        producers: None: what is delivered is in no log, as a probe, and nobody else delivers it.
    """

    keeps_order = True
    is_whole = True

    def __init__(self, name: str, relay: Relay, source: str, producers: Producers | None) -> None:
        self._name, self._relay, self._source, self._producers = name, relay, source, producers
        self._seconds = relay.timeout.total_seconds()
        self._turn = asyncio.Lock()
        self._line: TransactionalProducer | None = None
        #: Whose leases' messages it sends, and under which id.
        self._worker, self._id = -1, ""
        #: The last call in a thread: it goes on though who waits for it is cancelled.
        self._call: asyncio.Future[Any] | None = None

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        async with self._turn:
            try:
                leases = await self._admitted(messages)
                outcomes = iter(await self._outcomes([m for m in messages if m.lease_id in leases]))
            except Unavailable as error:
                return [error] * len(messages)
            return [next(outcomes) if message.lease_id in leases else Deferred() for message in messages]

    async def close(self) -> None:
        """What is on its way is waited for no longer than a moment; then whoever comes next fences it."""
        if self._call is not None and not self._call.done():
            await asyncio.wait([self._call], timeout=1)
        if self._call is None or self._call.done():
            await self._give_up()

    async def _admitted(self, messages: list[Message]) -> set[int | None]:
        """The leases whose messages are still ours to send; then the producer is open. Raises Unavailable."""
        held = await self._held(messages)
        worker = max(held.values(), default=None)
        if worker is None:
            return set()
        if self._line is None or self._line.broken is not None or worker != self._worker:
            if not await self._open(worker):
                return set()
            held = await self._held(messages)  # of who was found dead before it began, nothing goes any more
        elif any(message.redelivered for message in messages):
            await self._fence()
        return {lease for lease, holder in held.items() if holder == worker}

    async def _held(self, messages: list[Message]) -> dict[int | None, int]:
        if self._producers is None:
            return {message.lease_id: 0 for message in messages}
        held = await self._producers.holders({m.lease_id for m in messages if m.lease_id is not None})
        return dict(held.items())

    async def _open(self, worker: int) -> bool:
        """False: the worker was found dead. Raises Unavailable."""
        await self._give_up()
        if worker != self._worker:
            self._worker, self._id = worker, f"outbox-{self._name}-{secrets.token_hex(8)}"
        if self._producers is not None and not await self._producers.open(self._id, worker):
            return False
        settings = await self._settings(self._id)
        line = await self._in_thread(partial(transaction.begun, settings, self._seconds))
        try:
            await self._fence()
        except BaseException:
            line.broken = "it was not begun with"
            raise
        finally:
            self._line = line
        return True

    async def _fence(self) -> None:
        """The dead may only seem so: from here on they commit nothing. Raises Unavailable."""
        if self._producers is None:
            return
        for id in await self._producers.dead():
            fence = partial(transaction.fence, await self._settings(id), self._seconds)
            await self._in_thread(fence)
            await self._producers.close(id)
            log(logging.INFO, "fenced the producer of a worker that has ended", relay=self._name, producer=id)

    async def _settings(self, id: str) -> dict[str, object]:
        limit = round(1000 * self._seconds)
        more = {"transactional.id": id, "transaction.timeout.ms": max(limit, min(2 * limit, _LONGEST))}
        return await settings_of(self._relay, self._name) | more

    async def _outcomes(self, messages: list[Message]) -> list[Outcome]:
        if not messages:
            return []
        line = self._line
        assert line is not None
        one = Transaction(self._relay, self._source, messages, is_alone=len(messages) == 1)
        await self._in_thread(partial(one.run, line))
        if one.is_committed or line.broken is not None:
            return one.outcomes
        return await self._without_refused(one)

    async def _without_refused(self, one: Transaction) -> list[Outcome]:
        """It was aborted for some of its messages: the others again without them; if nobody knows for which, halves."""
        messages, outcomes = one.messages, one.outcomes
        undecided = [number for number, outcome in enumerate(outcomes) if not is_verdict(outcome)]
        if not one.is_refused and len(undecided) == len(messages):
            return outcomes
        middle = len(undecided) // 2 if one.is_refused else 0
        for part in undecided[:middle], undecided[middle:]:
            held = {messages[n].key for n, o in enumerate(outcomes) if self._relay.ordered and isinstance(o, Retry)}
            going = [n for n in part if messages[n].key is None or messages[n].key not in held]
            found = dict(zip(going, await self._outcomes([messages[n] for n in going]), strict=True))
            outcomes = [found.get(n, Deferred() if n in part else o) for n, o in enumerate(outcomes)]
            if any(isinstance(outcome, Unavailable) for outcome in found.values()):
                break
        return outcomes

    async def _give_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await self._in_thread(line.give_up)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """One call at a time; that of somebody who was cancelled is waited for."""
        if self._call is not None and not self._call.done():
            await asyncio.wait([self._call])
        doing = asyncio.ensure_future(asyncio.to_thread(call))
        doing.add_done_callback(_hear_out)
        self._call = doing
        return await asyncio.shield(doing)


def _hear_out(call: asyncio.Future[Any]) -> None:
    """An error of a call that nobody waits for any more is no news."""
    if not call.cancelled():
        call.exception()
