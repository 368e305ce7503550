"""What comes in from Kafka: a log whose offsets are kept with what is made of it, and how to reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration
from outbox.relay import credentials
from outbox.relay.cloudevents import Incoming, message_of
from outbox.relay.places import topic_of
from outbox.relay.target import Received, Step, Unavailable

T = TypeVar("T")

#: Of the attributes of CloudEvents, as headers.
PREFIX = "ce_"
#: Seconds that a call of the library waits, so that a stop is seen soon.
LOOK = 0.1
#: Seconds that a consumer waits for the first message.
_IDLE = 0.5


async def settings_of(peer: Relay | Source, name: str) -> dict[str, Any]:
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


class Log:
    """Reads a topic, or topics that match a pattern (`^orders\\..*`), as a member of a group.

    Where it goes on is what our database says, not Kafka: offsets move in the transaction that publishes. A topic that
    has no position with us is read from its beginning.
    """

    #: Is the consumer made anew when no broker can be reached?
    _reopens = True

    def __init__(self, name: str, source: Source, position: Callable[[str], Coroutine[Any, Any, int | None]]) -> None:
        self._name, self._source, self._position = name, source, position
        self._consumer: Consumer | None = None
        #: Of each partition that is assigned to us: where we stand with our database.
        self._stands: dict[str, int | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        #: The last call of the consumer, in a thread: it goes on though who waits for it is cancelled.
        self._call: asyncio.Future[list[Any]] | None = None
        #: Why no broker can be reached; None: some can, or nobody has tried.
        self._away: str | None = None
        self._trouble = ""
        #: What that thread asks our database, if it does.
        self._asking: Future[Any] | None = None

    async def receive(self, limit: int) -> list[Received]:
        while True:
            if records := await self.look(limit):
                return [self._received(record) for record in records]

    async def look(self, limit: int) -> list[Any]:
        """The records that are there; none after a moment without any. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        try:
            consumer = await self._open()
        except KafkaException as error:
            await self.close()
            raise Unavailable(f"Kafka can't be read: {error.args[0].str()}") from None
        self._call = asyncio.ensure_future(asyncio.to_thread(self._take, consumer, limit))
        try:
            return await asyncio.shield(self._call)
        except Unavailable:
            await self.close()
            raise

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
                self._consumer.commit(offsets=[place_of(s.partition, s.to_offset) for s in steps], asynchronous=True)

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

    async def _open(self) -> Consumer:
        if self._consumer is None:
            self._away = None
            self._consumer = Consumer(
                await settings_of(self._source, self._name)
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

    def _note(self, error: KafkaError) -> None:
        """In the consumer's thread."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._away = self._trouble or error.str()
        else:
            self._trouble = error.str()

    def _take(self, consumer: Consumer, limit: int) -> list[Any]:
        """In a thread: what is there, without waiting for more than the first. Raises Unavailable."""
        try:
            first = consumer.poll(_IDLE if not self._stands else LOOK)
            records = [] if first is None else [first, *consumer.consume(limit - 1, 0)]  # with a time it waits for all
        except (KafkaException, TimeoutError, CancelledError) as broken:  # the last two: in _assigned
            raise Unavailable(f"Kafka can't be read: {broken}") from None
        if self._reopens and self._away is not None and not records:
            raise Unavailable(f"Kafka can't be reached: {self._away}")
        for record in records:
            if (error := record.error()) is not None and error.code() != KafkaError._PARTITION_EOF:
                raise Unavailable(_unreadable(record, error))
        return [r for r in records if r.error() is None and partition_of(r.topic(), r.partition()) in self._stands]

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """In the consumer's thread. Where we go on is what our database says."""
        self._stands.clear()
        for one in partitions:
            name = partition_of(one.topic, one.partition)
            self._stands[name] = stands = self._ask(self._position(name))
            one.offset = OFFSET_BEGINNING if stands is None else stands
        consumer.assign(partitions)

    def _ask(self, doing: Coroutine[Any, Any, T]) -> T:
        """What our event loop finds out, while the consumer's thread waits for it."""
        assert self._loop is not None
        self._asking = asking = asyncio.run_coroutine_threadsafe(doing, self._loop)
        return asking.result(30)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What we still publish of them is fenced by their positions."""
        for one in partitions:
            self._stands.pop(partition_of(one.topic, one.partition), None)

    def _received(self, record: Any) -> Received:
        new, content_type, type = message_of(incoming_of(record), (PREFIX,), self._name)
        place = (partition_of(record.topic(), record.partition()), record.offset())
        return Received(topic_of(self._source.topic, record.topic(), type), new, content_type, place)


def incoming_of(record: Any) -> Incoming:
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers() or []}
    kind = next((headers.pop(name) for name in list(headers) if name.lower() == "content-type"), None)
    key = record.key()
    key = None if key is None else key.decode(errors="replace")
    return Incoming(record.value() or b"null", kind, headers, None, key)


def _unreadable(record: Any, error: KafkaError) -> str:
    if error.code() != KafkaError._AUTO_OFFSET_RESET:
        return f"Kafka can't be read: {error.str()}"
    return (
        f"Kafka does not have the offset that comes next in {partition_of(record.topic(), record.partition())}: it was "
        "deleted there, or the topic began anew. See outbox.source_position"
    )


def partition_of(topic: str | None, number: int | None) -> str:
    return f"{topic}/{number}"


def place_of(partition: str, offset: int) -> TopicPartition:
    topic, _, number = partition.rpartition("/")
    return TopicPartition(topic, int(number), offset)
