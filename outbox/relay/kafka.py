"""Kafka: a relay with an idempotent producer. A transaction a batch: `transactions`; what comes in: `kafka_log`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from confluent_kafka import KafkaException

from outbox.chunks import Deferred
from outbox.definitions.relays import Relay, Source
from outbox.model import Message, Retry
from outbox.relay.kafka_log import Log
from outbox.relay.opened import Opened
from outbox.relay.producers import Producers
from outbox.relay.producing import Line, Together, settings_of
from outbox.relay.target import Outcome, Target, Unavailable
from outbox.relay.transactions import Transactions


def target(name: str, relay: Relay, source: str, producers: Producers | None = None) -> Target:
    return Transactions(name, relay, source, producers) if relay.transactional else Topic(name, relay, source)


def intake(name: str, source: Source, position: Callable[[str], Coroutine[Any, Any, int | None]]) -> Log:
    return Log(name, source, position)


class Topic:
    """Produces with idempotence: a broker that forgets to answer is asked again, and stores each message once.

    The messages of a key go to one partition, in order. If one of them can't be stored, those behind it are not sent.
    """

    keeps_order = True
    is_whole = False

    def __init__(self, name: str, relay: Relay, source: str) -> None:
        self._name, self._relay, self._source = name, relay, source
        self._line = Opened(self._connected, lambda line: line.broken is None, _give_up)

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        try:
            line = await self._line.get()
        except Unavailable as error:
            return [error] * len(messages)
        together = Together(self._relay, self._source, messages, is_alone=False)
        await asyncio.to_thread(together.run, line)
        if line.broken is not None:
            await self._line.close(line)
        return await self._sort_out(together)

    async def close(self) -> None:
        """What is on its way is not waited for: it counts as not delivered."""
        await self._line.close()

    async def _sort_out(self, together: Together) -> list[Outcome]:
        """A broker refuses a whole batch for one record in it, or for its size: halve it until it is known which."""
        messages, outcomes = together.messages, together.outcomes
        if not together.is_refused:
            return outcomes
        undecided = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Unavailable)]
        middle = len(undecided) // 2
        for half in undecided[:middle], undecided[middle:]:
            held = {messages[n].key for n, o in enumerate(outcomes) if self._relay.ordered and isinstance(o, Retry)}
            going = [n for n in half if messages[n].key is None or messages[n].key not in held]
            found = dict(zip(going, await self._apart([messages[n] for n in going]), strict=True))
            outcomes = [found.get(n, Deferred() if n in half else o) for n, o in enumerate(outcomes)]
            if any(isinstance(outcome, Unavailable) for outcome in found.values()):
                break
        return outcomes

    async def _apart(self, messages: list[Message]) -> list[Outcome]:
        """On a line of their own, where nobody else's are in their batch."""
        if not messages:
            return []
        try:
            line = await self._connected()
        except Unavailable as error:
            return [error] * len(messages)
        together = Together(self._relay, self._source, messages, is_alone=len(messages) == 1)
        try:
            await asyncio.to_thread(together.run, line)
        finally:
            await _give_up(line)
        return await self._sort_out(together)

    async def _connected(self) -> Line:
        """Raises Unavailable."""
        settings = await settings_of(self._relay, self._name)
        try:
            return Line(settings | {"enable.gapless.guarantee": True})
        except KafkaException as error:
            raise Unavailable(f"no producer of Kafka can be made: {error.args[0].str()}") from None


async def _give_up(line: Line) -> None:
    await asyncio.to_thread(line.give_up)
