"""Messages that are produced to Kafka together, and the line that several such share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from outbox.chunks import Deferred
from outbox.definitions.relays import Relay
from outbox.model import Message, Reject, Retry
from outbox.relay import kafka_log
from outbox.relay.cloudevents import Event, event
from outbox.relay.kafka_log import LOOK, PREFIX
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
#: All that says something of a message.
REFUSALS = _NEVER | _REFUSED


async def settings_of(relay: Relay, name: str) -> dict[str, Any]:
    """Those of a relay's producer. Raises Unavailable for a secret that can't be had."""
    limit = round(1000 * relay.timeout.total_seconds())
    return await kafka_log.settings_of(relay, name) | {
        "enable.idempotence": True,
        "linger.ms": 2,
        "delivery.timeout.ms": limit,
        "topic.metadata.propagation.max.ms": min(2_000, limit // 2),  # a topic that there is not
        "partitioner": "murmur2_random",  # as Java's clients have it
        "queue.buffering.max.messages": 1_000_000,
    }


class Line:
    """A producer, and whether it is of any more use."""

    def __init__(self, settings: dict[str, Any]) -> None:
        #: Why what it has queued must not be sent any more: its guarantee of order is gone, or no broker is there.
        self.broken: str | None = None
        #: The last that went wrong with a connection: a certificate, a password, nobody who listens.
        self.trouble = ""
        self._turn, self._is_heard = threading.Condition(), False
        self.producer = Producer(settings | {"error_cb": self._note})

    def hear(self, is_done: Callable[[], bool]) -> None:
        """Hear what has become of some messages; one thread polls, for all that share the line."""
        with self._turn:
            if is_done():
                return
            if self._is_heard:
                self._turn.wait(LOOK)
                return
            self._is_heard = True
        try:
            self.producer.poll(LOOK)
        except KafkaException as error:  # a batch was refused: an idempotent producer is of no more use
            self.broken = self.broken or error.args[0].str()
        finally:
            with self._turn:
                self._is_heard = False
                self._turn.notify_all()

    def give_up(self) -> None:
        """Forget what was not confirmed."""
        self.producer.purge()
        with suppress(KafkaException):
            self.producer.flush(1)

    def _note(self, error: KafkaError) -> None:
        if error.fatal():
            self.broken = error.str()
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.broken = self.trouble or error.str()
        else:
            self.trouble = error.str()


class Together:
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

    def run(self, line: Line) -> None:
        self._send(line)
        self._hear(line)
        if self._open:
            line.broken = line.broken or "no answer"
            for number in list(self._open):
                self.outcomes[number] = Unavailable(f"Kafka does not confirm: {line.broken}")

    def _send(self, line: Line) -> None:
        held: set[str] = set()
        for number, message in enumerate(self.messages):
            if message.key in held:
                self.outcomes[number] = Deferred()
                continue
            if (problem := self._produce(line, number, message)) is not None:
                self.outcomes[number] = problem
            if self._relay.ordered and message.key is not None and isinstance(self.outcomes[number], Retry):
                held.add(message.key)

    def _hear(self, line: Line) -> None:
        """Until there is a verdict on each, or nothing more to be heard."""
        until = time.monotonic() + self._relay.timeout.total_seconds() + 1
        while self._open and line.broken is None and time.monotonic() < until:
            line.hear(self._is_done)
        if self._open and line.broken is not None:
            line.producer.purge()  # of what was refused that has been said, of the others it is now
            until = time.monotonic() + 1
            while self._open and time.monotonic() < until:
                line.hear(self._is_done)

    def _is_done(self) -> bool:
        return not self._open

    def _produce(self, line: Line, number: int, message: Message) -> Outcome:
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

    def _note(self, line: Line, number: int, error: KafkaError | None) -> None:
        if error is not None and error.code() in _NEVER and not self._is_alone:
            self.is_refused = True
            self.outcomes[number] = Unavailable(f"Kafka refuses a batch: {error.str()}")
        else:
            self.outcomes[number] = None if error is None else self._verdict(line, error)
        self._open.discard(number)

    def _verdict(self, line: Line, error: KafkaError) -> Outcome:
        if error.code() in _NEVER:
            return Reject(f"Kafka can't store it: {error.str()}")
        if error.code() in _REFUSED:
            return Retry(reason=f"Kafka refuses it: {error.str()}")
        line.broken = line.broken or error.str()
        return Unavailable(f"Kafka does not confirm: {line.broken}")


def _headers(one: Event) -> list[tuple[str, str | bytes | None]]:
    headers: dict[str, str] = {f"{PREFIX}{name}": value for name, value in one.attributes.items()}
    trace = {name: one.attributes[name] for name in ("traceparent", "tracestate") if name in one.attributes}
    named: dict[str, str] = one.headers | trace | headers | {"content-type": one.content_type}
    if not one.attributes:
        named["outbox-id"] = one.id
    return [(name, value.encode()) for name, value in named.items()]
