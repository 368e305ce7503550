"""Kafka as the log of a subscription: offsets are in our database, and move with the effects."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from outbox.definitions.relays import Source
from outbox.relay.feeding.message import Fed, Place, fed
from outbox.relay.feeding.operations import WAYS
from outbox.relay.feeding.stream import Reader, Silent, Start
from outbox.relay.kafka_log import PREFIX, Log, incoming_of, partition_of, place_of
from outbox.relay.target import Unavailable

#: Seconds that Kafka may take to say where a partition begins and ends.
_ASKED = 10
#: Seconds that it may take to answer that it is back.
_HEARD = 1.0
#: Seconds between what it is told of our offsets.
_TELLING = 1.0


def stream(subscription: str, source: Source, start: Start, order: str | None, reader: Reader) -> Partitions:
    return Partitions(subscription, source, start, reader)


class Partitions(Log):
    """The partitions of a topic, or of those that match a pattern, that are assigned to us."""

    keeps_offsets = True
    _reopens = False

    def __init__(self, subscription: str, source: Source, start: Start, reader: Reader) -> None:
        super().__init__(subscription, source, _nowhere)
        self._start, self._reader = start, reader
        #: What is not to be fetched, and what is not being fetched.
        self._held: set[str] = set()
        self._paused: set[str] = set()
        #: Partitions that are to be read anew.
        self._anew: set[str] = set()
        #: How often partitions were assigned to us.
        self._assignments = 0
        #: How far partitions are read that Kafka was not told of, and when it was told last.
        self._reached: dict[str, int] = {}
        self._told = 0.0

    async def read(self, limit: int, held: set[str]) -> list[Fed]:
        self._held = held
        found = [self._fed(record) for record in await self.look(limit)]
        if self._away is not None and not found:  # what is assigned goes on by itself when a broker is back
            raise (Silent if self._stands else Unavailable)(f"Kafka can't be reached: {self._away}")
        return [one for one in found if one.lane not in self._anew]

    async def note_settled(self, settled: Sequence[Fed], lane: str, offset: int) -> None:
        """Kafka is told, too, now and then, for those who look at the lag there; nothing depends on it."""
        self._reached[lane] = offset

    def restart(self, lane: str) -> None:
        self._anew.add(lane)

    def _take(self, consumer: Consumer, limit: int) -> list[Any]:
        with suppress(KafkaException):  # of what is not assigned any more, or not yet: next time
            self._pause(consumer)
            for lane in self._anew & self._stands.keys():
                consumer.seek(place_of(lane, self._begin(consumer, place_of(lane, 0))))
                self._anew.discard(lane)
            self._tell(consumer)
        assignments = self._assignments
        records = super()._take(consumer, limit)
        if self._away is not None and self._stands and (records or self._is_back(consumer)):
            self._away = None
        if not records or assignments == self._assignments:
            return records
        return self._from_the_beginning(consumer, records)

    @staticmethod
    def _is_back(consumer: Consumer) -> bool:
        """Does a broker answer? A connection that breaks is told to us, and one that is there again is not."""
        try:
            return bool(consumer.list_topics(timeout=_HEARD).brokers)
        except KafkaException:
            return False

    def _from_the_beginning(self, consumer: Consumer, records: list[Any]) -> list[Any]:
        """Partitions changed hands while these were taken: some may be from before that, and others be left out."""
        try:
            for lane in {partition_of(record.topic(), record.partition()) for record in records}:
                consumer.seek(place_of(lane, self._stands[lane] or 0))
        except KafkaException as error:
            raise Unavailable(f"Kafka can't be read: {error.args[0].str()}") from None
        return []

    def _tell(self, consumer: Consumer) -> None:
        if time.monotonic() - self._told < _TELLING:
            return
        reached, self._reached, self._told = self._reached, {}, time.monotonic()
        if offsets := [place_of(lane, offset) for lane, offset in reached.items() if lane in self._stands]:
            consumer.commit(offsets=offsets, asynchronous=True)

    def _pause(self, consumer: Consumer) -> None:
        wanted = self._held & self._stands.keys()
        if more := wanted - self._paused:
            consumer.pause([place_of(lane, 0) for lane in more])
            self._paused |= more
        if less := self._paused - wanted:
            consumer.resume([place_of(lane, 0) for lane in less])
            self._paused -= less

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """In the consumer's thread, before anything of them is read."""
        self._stands.clear()
        self._paused.clear()
        self._anew.clear()
        self._assignments += 1
        self._away = None
        for one in partitions:
            one.offset = self._stands[partition_of(one.topic, one.partition)] = self._begin(consumer, one)
        consumer.assign(partitions)
        consumer.resume(partitions)  # the client does not forget that one was held when it was ours before

    def _begin(self, consumer: Consumer, one: TopicPartition) -> int:
        """Where a partition is read from: as our database says, else as the subscription wants it."""
        name, number = partition_of(one.topic, one.partition), one.partition % WAYS
        begun = self._ask(self._reader.begin(name, number, None))
        if begun is None:
            ends = consumer.get_watermark_offsets(TopicPartition(one.topic, one.partition), timeout=_ASKED)
            begun = self._ask(self._reader.begin(name, number, ends[self._start == "next"]))
            assert begun is not None
        return begun.offset

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """In the consumer's thread: who gets them waits until this returns."""
        with suppress(TimeoutError, CancelledError):  # what is still done of them is fenced
            self._ask(self._reader.end([partition_of(one.topic, one.partition) for one in partitions]))
        super()._revoked(consumer, partitions)

    def _fed(self, record: Any) -> Fed:
        topic, number = record.topic(), record.partition()
        lane = partition_of(topic, number)
        place = Place(topic, lane, number, record.offset(), record.timestamp()[1] / 1000)
        return fed(incoming_of(record), (PREFIX,), place, self._name, self._source.topic)


async def _nowhere(partition: str) -> int | None:
    raise NotImplementedError
