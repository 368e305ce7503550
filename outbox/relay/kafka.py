"""Kafka: a relay with an idempotent producer, and a source whose offsets are kept with what it publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from outbox.chunks import Deferred
from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration
from outbox.model import Message, Retry
from outbox.relay import credentials
from outbox.relay.cloudevents import Incoming, message_of
from outbox.relay.opened import Opened
from outbox.relay.places import topic_of
from outbox.relay.producing import LOOK, PREFIX, Line, Together
from outbox.relay.target import Outcome, Received, Step, Unavailable

#: Seconds that a consumer waits for the first message.
_IDLE = 0.5


def target(name: str, relay: Relay, source: str) -> Topic:
    return Topic(name, relay, source)


def intake(name: str, source: Source, position: Callable[[str], Coroutine[Any, Any, int | None]]) -> Log:
    return Log(name, source, position)


async def _settings(peer: Relay | Source, name: str) -> dict[str, Any]:
    """What producer and consumer have in common. Raises Unavailable for a secret that can't be had."""
    settings: dict[str, Any] = {
        "bootstrap.servers": urlsplit(peer.url).netloc,
        "client.id": f"outbox-{name}",
        "reconnect.backoff.max.ms": 2000,
        "log_level": 0,  # what matters is said to us, too
    }
    try:
        login = await credentials.login(peer)
        credentials.tls(peer)  # says what is wrong with a file
    except InvalidDeclaration as error:
        raise Unavailable(str(error)) from None
    settings["security.protocol"] = ("SASL_" if login else "") + ("SSL" if peer.is_encrypted else "PLAINTEXT")
    if login:
        settings |= {"sasl.mechanisms": peer.sasl or "PLAIN", "sasl.username": login[0], "sasl.password": login[1]}
    files = {
        "ssl.ca.location": peer.ca,
        "ssl.certificate.location": peer.certificate,
        "ssl.key.location": peer.certificate_key,
    }
    return settings | {name: file for name, file in files.items() if file}


class Topic:
    """Produces with idempotence: a broker that forgets to answer is asked again, and stores each message once.

    The messages of a key go to one partition, in order. If one of them can't be stored, those behind it are not sent.
    """

    keeps_order = True

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
        limit = round(1000 * self._relay.timeout.total_seconds())
        settings = await _settings(self._relay, self._name) | {
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            "linger.ms": 2,
            "delivery.timeout.ms": limit,
            "topic.metadata.propagation.max.ms": min(2_000, limit // 2),  # a topic that there is not
            "partitioner": "murmur2_random",  # as Java's clients have it
            "queue.buffering.max.messages": 1_000_000,
        }
        try:
            return Line(settings)
        except KafkaException as error:
            raise Unavailable(f"no producer of Kafka can be made: {error.args[0].str()}") from None


async def _give_up(line: Line) -> None:
    await asyncio.to_thread(line.give_up)


class Log:
    """Reads a topic, or topics that match a pattern (`^orders\\..*`), as a member of a group.

    Where it goes on is what our database says, not Kafka: offsets move in the transaction that publishes. A topic that
    has no position with us is read from its beginning.
    """

    def __init__(self, name: str, source: Source, position: Callable[[str], Coroutine[Any, Any, int | None]]) -> None:
        self._name, self._source, self._position = name, source, position
        self._consumer: Consumer | None = None
        #: Why no broker can be reached; None: some can, or nobody has tried.
        self._away: str | None = None
        self._trouble = ""
        #: Of each partition that is assigned to us: where we stand with our database.
        self._stands: dict[str, int | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The last call of the consumer, in a thread: it goes on though who waits for it is cancelled.
        self._call: asyncio.Future[list[Any]] | None = None
        #: What that thread asks our database, if it does.
        self._asking: Future[int | None] | None = None

    async def receive(self, limit: int) -> list[Received]:
        self._loop = asyncio.get_running_loop()
        try:
            consumer = await self._open()
        except KafkaException as error:
            await self.close()
            raise Unavailable(f"Kafka can't be read: {error.args[0].str()}") from None
        while True:
            self._call = asyncio.ensure_future(asyncio.to_thread(self._take, consumer, limit))
            try:
                records = await asyncio.shield(self._call)
            except Unavailable:
                await self.close()
                raise
            if records:
                return [self._received(record) for record in records]

    def steps(self, received: Sequence[Received]) -> list[Step]:
        last: dict[str, int] = {}
        for one in received:
            last[one.token[0]] = one.token[1]
        return [Step(partition, self._stands.get(partition), offset + 1) for partition, offset in last.items()]

    async def confirm(self, published: Sequence[Received], steps: Sequence[Step]) -> None:
        """Kafka is told, too, for those who look at the lag there; nothing depends on it."""
        for step in steps:
            self._stands[step.partition] = step.to_offset
        if self._consumer is not None and steps:
            with suppress(KafkaException):
                self._consumer.commit(offsets=[_place(s.partition, s.to_offset) for s in steps], asynchronous=True)

    async def refuse(self, received: Received, reason: str) -> None:
        """It is passed over: the log there keeps it, and our log says where."""

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if self._asking is not None:
            self._asking.cancel()  # our database may be away, or hold the position for somebody who hangs
        if self._call is not None:
            await asyncio.wait([self._call])  # a consumer is not closed under a call of it
            self._call.exception()
        if consumer is not None:
            await asyncio.to_thread(consumer.close)
        self._stands.clear()

    def _note(self, error: KafkaError) -> None:
        """In the consumer's thread."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = self._trouble or error.str()
        else:
            self._trouble = error.str()

    async def _open(self) -> Consumer:
        if self._consumer is None:
            self._away = None
            self._consumer = Consumer(
                await _settings(self._source, self._name)
                | {
                    "group.id": self._source.group or self._name,
                    "enable.auto.commit": False,
                    "auto.offset.reset": "error",  # what is not there any more is not passed over in silence
                    "partition.assignment.strategy": "range,roundrobin",  # eager: what is assigned is all that we have
                    "isolation.level": "read_committed",
                    "session.timeout.ms": 10_000,
                    "fetch.wait.max.ms": 100,
                    "topic.metadata.refresh.interval.ms": 10_000,
                    "error_cb": self._note,
                }
            )
            self._consumer.subscribe([self._source.address], on_assign=self._assigned, on_revoke=self._revoked)
        return self._consumer

    def _take(self, consumer: Consumer, limit: int) -> list[Any]:
        """In a thread: what is there, without waiting for more than the first. Raises Unavailable."""
        try:
            records = consumer.consume(limit, _IDLE if not self._stands else LOOK)
        except (KafkaException, TimeoutError, CancelledError) as broken:  # the last two: in _assigned
            raise Unavailable(f"Kafka can't be read: {broken}") from None
        if self._away is not None and not records:
            raise Unavailable(f"Kafka can't be reached: {self._away}")
        for record in records:
            if (error := record.error()) is not None and error.code() != KafkaError._PARTITION_EOF:
                raise Unavailable(_unreadable(record, error))
        return [r for r in records if r.error() is None and _partition(r.topic(), r.partition()) in self._stands]

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """In the consumer's thread. Where we go on is what our database says."""
        assert self._loop is not None
        self._stands.clear()
        for one in partitions:
            name = _partition(one.topic, one.partition)
            self._asking = asyncio.run_coroutine_threadsafe(self._position(name), self._loop)
            self._stands[name] = stands = self._asking.result(30)
            one.offset = OFFSET_BEGINNING if stands is None else stands
        consumer.assign(partitions)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What we still publish of them is fenced by their positions."""
        for one in partitions:
            self._stands.pop(_partition(one.topic, one.partition), None)

    def _received(self, record: Any) -> Received:
        place = _partition(record.topic(), record.partition())
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers() or []}
        kind = next((headers.pop(name) for name in list(headers) if name.lower() == "content-type"), None)
        key = record.key()
        incoming = Incoming(
            record.value() or b"null", kind, headers, None, None if key is None else key.decode(errors="replace")
        )
        new, content_type, type = message_of(incoming, (PREFIX,), self._name)
        return Received(topic_of(self._source.topic, record.topic(), type), new, content_type, (place, record.offset()))


def _unreadable(record: Any, error: KafkaError) -> str:
    if error.code() != KafkaError._AUTO_OFFSET_RESET:
        return f"Kafka can't be read: {error.str()}"
    return (
        f"Kafka does not have the offset that comes next in {_partition(record.topic(), record.partition())}: it was "
        "deleted there, or the topic began anew. See outbox.source_position"
    )


def _partition(topic: str | None, number: int | None) -> str:
    return f"{topic}/{number}"


def _place(partition: str, offset: int) -> TopicPartition:
    topic, _, number = partition.rpartition("/")
    return TopicPartition(topic, int(number), offset)
