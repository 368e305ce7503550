"""A queue of RabbitMQ as the log of a subscription: a message is acknowledged when its effects are committed here."""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Sequence
from itertools import count

from aio_pika.abc import AbstractIncomingMessage

from outbox.definitions.relays import Source
from outbox.relay.feeding.message import EventId, Fed, Place, fed
from outbox.relay.feeding.operations import WAYS
from outbox.relay.feeding.stream import Reader, Start
from outbox.relay.rabbitmq import PREFIXES, Queue, incoming_of
from outbox.relay.target import Unavailable


def stream(subscription: str, source: Source, start: Start, order: str | None, reader: Reader) -> Deliveries:
    return Deliveries(subscription, source, order, reader)


class Deliveries(Queue):
    """What a queue delivers to us. To an ordered subscription it delivers to one process at a time.

    Each key has its lane, so that it stays in order; where a failure blocks all there is but one.
    """

    keeps_offsets = False

    def __init__(self, subscription: str, source: Source, order: str | None, reader: Reader) -> None:
        super().__init__(subscription, source, is_exclusive=order is not None)
        self._lanes = 1 if order == "block" else WAYS
        self._reader = reader
        self._numbers = count()
        self._begun: set[str] = set()

    async def read(self, limit: int, held: set[str]) -> list[Fed]:
        found = [self._fed(message) for message in await self.take(limit)]
        try:
            for lane in {one.lane for one in found} - self._begun:
                await self._reader.begin(lane, int(lane.rpartition("/")[2]), None)
                self._begun.add(lane)
        except Unavailable:
            await self.close()  # so that what was taken is delivered again
            raise
        return found

    async def note_settled(self, settled: Sequence[Fed], lane: str, offset: int) -> None:
        for one in settled:
            channel, message = one.token
            if channel is self._channel:  # else it goes to others, or has
                await self._settle(message.ack())

    def restart(self, lane: str) -> None:
        """What is in hand is looked at again where it is."""

    async def close(self) -> None:
        await super().close()
        self._begun.clear()

    def _fed(self, message: AbstractIncomingMessage) -> Fed:
        at = message.timestamp.timestamp() if message.timestamp else time.time()
        place = Place(message.routing_key or "", self._source.address, 0, next(self._numbers), at)
        one = fed(incoming_of(message), PREFIXES, place, self._name, self._source.topic)
        one.lane = f"{self._source.address}/{zlib.crc32((one.key or '').encode()) % self._lanes}"
        one.token, one.is_again = (self._channel, message), bool(message.redelivered)
        if not one.is_named:  # nothing tells it from another, wherever it is
            one.inbox, one.event = "", EventId(uuid.uuid4().hex)
        return one
