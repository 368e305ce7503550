"""What becomes of messages of another log before any handler sees them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from outbox.chunks import Deferred
from outbox.database import Database
from outbox.relay.feeding import operations
from outbox.relay.feeding.bindings import Sieve
from outbox.relay.feeding.lanes import Lane
from outbox.relay.feeding.message import Fed
from outbox.subscription import Subscription


class Judge:
    """Passes over what the subscription does not want, and what it has done."""

    def __init__(self, subscription: Subscription, database: Database) -> None:
        self._subscription, self._database = subscription, database
        self._sieve = Sieve(subscription.bindings)
        #: By their names: those that are in hand.
        self._in_hand: dict[str, Fed] = {}

    async def judge(self, messages: list[Fed], lanes: dict[str, Lane]) -> list[Fed]:
        """Those that a handler is to try, in order; the others have an outcome then. Waits for the database."""
        wanted = await self._sieve.through(messages, self._ask)
        if self._subscription.guarantee == "exactly-once":
            wanted = await self._without_done(wanted)
        tried = {id(message) for message in wanted}
        for message in messages:
            if id(message) not in tried:
                message.outcome = True
        return [message for message in wanted if not self._is_led_round(message, lanes)]

    def forget(self, messages: Iterable[Fed]) -> None:
        """They are in hand no more."""
        for message in messages:
            if self._in_hand.get(message.inbox) is message:
                del self._in_hand[message.inbox]

    async def _ask(self, conditions: list[dict[str, object]], messages: list[Fed]) -> list[bool]:
        return await self._database.persist(lambda: operations.fitting(conditions, messages))

    async def _without_done(self, messages: list[Fed]) -> list[Fed]:
        """Of those of one name the first that is in hand counts: if it comes to nothing here, it comes again, too."""
        keys = [message.inbox for message in messages if message.inbox]
        name = self._subscription.name
        now = time.monotonic()
        known = await self._database.persist(lambda: operations.known(name, keys)) if keys else set()
        wanted = []
        for message in messages:
            if message.inbox in known:
                continue
            message.judged_at = now
            if not message.inbox or self._in_hand.setdefault(message.inbox, message) is message:
                wanted.append(message)
        return wanted

    def _is_led_round(self, message: Fed, lanes: dict[str, Lane]) -> bool:
        """Whoever had it before us may have died of it: it is tried where that is found out."""
        if self._subscription.guarantee == "at-most-once":
            return False
        lane = lanes[message.lane]
        if message.is_again or message.offset < lane.untried:
            message.outcome = Deferred()
            lane.park(message, self._subscription.on_failure)
            return True
        return False
