"""Kafka: a relay with an idempotent producer. What comes in from there: `kafka_log`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from outbox.chunks import Deferred
from outbox.definitions.relays import Relay, Source
from outbox.model import Message, Reject, Retry
from outbox.relay.cloudevents import Event, event
from outbox.relay.kafka_log import PREFIX, Log, settings_of
from outbox.relay.places import address_of
from outbox.relay.target import Outcome, Unavailable

#: Errors of a message, whatever becomes of the others: it can never be stored.
_NEVER = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})
#: Errors of a message that somebody may mend there.
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.POLICY_VIOLATION,
    }
)
#: Seconds that a call of the library waits, so that a stop is seen soon.
_LOOK = 0.1


def target(name: str, relay: Relay, source: str) -> Topic:
    return Topic(name, relay, source)


def intake(name: str, source: Source, position: Callable[[str], Coroutine[Any, Any, int | None]]) -> Log:
    return Log(name, source, position)


class Topic:
    """Produces with idempotence: a broker that forgets to answer is asked again, and stores each message once.

    The messages of a key go to one partition, in order. If one of them can't be stored, those behind it are not sent.
    """

    keeps_order = True

    def __init__(self, name: str, relay: Relay, source: str) -> None:
        self._name, self._relay, self._source = name, relay, source
        self._line: _Line | None = None
        self._opening = asyncio.Lock()

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        try:
            line = await self._open()
        except Unavailable as error:
            return [error] * len(messages)
        together = _Together(self._relay, self._source, messages, is_alone=False)
        await asyncio.to_thread(together.run, line)
        if line.broken is not None and self._line is line:
            await self.close()
        return await self._sort_out(together)

    async def close(self) -> None:
        """What is on its way is not waited for: it counts as not delivered."""
        line, self._line = self._line, None
        if line is not None:
            await asyncio.to_thread(line.give_up)

    async def _sort_out(self, together: _Together) -> list[Outcome]:
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
        together = _Together(self._relay, self._source, messages, is_alone=len(messages) == 1)
        try:
            await asyncio.to_thread(together.run, line)
        finally:
            await asyncio.to_thread(line.give_up)
        return await self._sort_out(together)

    async def _open(self) -> _Line:
        async with self._opening:
            if self._line is not None and self._line.broken is not None:
                await self.close()
            if self._line is None:
                self._line = await self._connected()
            return self._line

    async def _connected(self) -> _Line:
        """Raises Unavailable."""
        limit = round(1000 * self._relay.timeout.total_seconds())
        settings = await settings_of(self._relay, self._name) | {
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "linger.ms": 2,
            "delivery.timeout.ms": limit,
            "topic.metadata.propagation.max.ms": min(2_000, limit // 2),  # a topic that there is not
            "partitioner": "murmur2_random",  # as Java's clients have it
            "queue.buffering.max.messages": 1_000_000,
        }
        try:
            return _Line(settings)
        except KafkaException as error:
            raise Unavailable(f"no producer of Kafka can be made: {error.args[0].str()}") from None


class _Line:
    """A producer, and whether it is of any more use."""

    def __init__(self, settings: dict[str, Any]) -> None:
        #: Why what it has queued must not be sent any more: its guarantee of order is gone, or no broker is there.
        self.broken: str | None = None
        self.producer = Producer(settings | {"error_cb": self._note})

    def give_up(self) -> None:
        """Forget what was not confirmed."""
        self.producer.purge()
        self.producer.flush(1)

    def _note(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.broken = error.str()


class _Together:
    """Messages that are produced together, in a thread of their own.

    Args:
        is_alone: one message, on a line of its own: what the broker says of its batch it says of it.
    """

    def __init__(self, relay: Relay, source: str, messages: list[Message], is_alone: bool) -> None:
        self._relay, self._source, self.messages, self._is_alone = relay, source, messages, is_alone
        #: Has the broker refused a batch, and nobody knows for which of its messages?
        self.is_refused = False
        #: Unavailable until the broker says otherwise.
        limit = relay.timeout.total_seconds()
        self.outcomes: list[Outcome] = [Unavailable(f"Kafka did not confirm within {limit:g} s")] * len(messages)
        #: Numbers of those that the broker has said nothing of; another thread's poll may hear of them.
        self._open: set[int] = set()

    def run(self, line: _Line) -> None:
        held: set[str] = set()
        for number, message in enumerate(self.messages):
            if message.key in held:
                self.outcomes[number] = Deferred()
                continue
            if (problem := self._produce(line, number, message)) is not None:
                self.outcomes[number] = problem
            if self._relay.ordered and message.key is not None and isinstance(self.outcomes[number], Retry):
                held.add(message.key)
        until = time.monotonic() + self._relay.timeout.total_seconds() + 1
        while self._open and line.broken is None and time.monotonic() < until:
            line.producer.poll(_LOOK)
        if self._open:
            line.broken = line.broken or "no answer"
            for number in list(self._open):
                self.outcomes[number] = Unavailable(f"Kafka does not confirm: {line.broken}")

    def _produce(self, line: _Line, number: int, message: Message) -> Outcome:
        one = event(message, self._relay, self._source)
        self._open.add(number)
        try:
            line.producer.produce(
                address_of(self._relay.address or "{topic}", message),
                value=one.body,
                key=message.key,
                headers=_headers(one),
                timestamp=int(message.published_at.timestamp() * 1000),
                on_delivery=lambda error, _: self._note(line, number, error),
            )
        except KafkaException as error:
            self._open.discard(number)
            return self._verdict(line, error.args[0])
        except BufferError:
            self._open.discard(number)
            line.broken = "too many messages are on their way"
            return Unavailable(line.broken)
        return None

    def _note(self, line: _Line, number: int, error: KafkaError | None) -> None:
        if error is not None and error.code() in _NEVER and not self._is_alone:
            self.is_refused = True
            self.outcomes[number] = Unavailable(f"Kafka refuses a batch: {error.str()}")
        else:
            self.outcomes[number] = None if error is None else self._verdict(line, error)
        self._open.discard(number)

    def _verdict(self, line: _Line, error: KafkaError) -> Outcome:
        if error.code() in _NEVER:
            return Reject(f"Kafka can't store it: {error.str()}")
        if error.code() in _REFUSED:
            return Retry(reason=f"Kafka refuses it: {error.str()}")
        line.broken = line.broken or error.str()
        return Unavailable(f"Kafka does not confirm: {error.str()}")


def _headers(one: Event) -> list[tuple[str, str | bytes | None]]:
    headers: dict[str, str] = {f"{PREFIX}{name}": value for name, value in one.attributes.items()}
    trace = {name: one.attributes[name] for name in ("traceparent", "tracestate") if name in one.attributes}
    named: dict[str, str] = one.headers | trace | headers | {"content-type": one.content_type}
    if not one.attributes:
        named["outbox-id"] = one.id
    return [(name, value.encode()) for name, value in named.items()]
