"""What a broker of Kafka stores: batches as producers sent them, markers of transactions, and who may see what.

The rules are those of Kafka's protocol for transactions, written down for tests: no other broker that a test can start
hides from readers what was aborted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from confluent_kafka import KafkaError

_BATCH = struct.Struct(">qiibIhiqqqhii")  # from the first offset to the count of records
_TRANSACTIONAL, _CONTROL = 0x10, 0x20


@dataclass
class Partition:
    batches: list[tuple[int, int, bytes]] = field(default_factory=list)
    end: int = 0
    #: Of each producer with an open transaction: where that begins.
    open: dict[int, int] = field(default_factory=dict)
    #: Producer, first offset and last of what was aborted.
    aborted: list[tuple[int, int, int]] = field(default_factory=list)
    #: Of each producer: its epoch, the number of the last record, and that one's batch's offset.
    sequences: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def append(self, batch: bytes) -> tuple[int, int]:
        """An error and the offset; what was stored before is stored once."""
        *_, attributes, last, _, _, producer, epoch, sequence, _ = _BATCH.unpack_from(batch)
        before_epoch, before, offset = self.sequences.get(producer, (-1, -1, -1))
        if producer >= 0 and epoch == before_epoch and sequence <= before:
            return KafkaError.NO_ERROR, offset
        if producer >= 0 and sequence != (before + 1 if epoch == before_epoch else 0):
            return KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        offset = self._store(batch, last)
        if attributes & _TRANSACTIONAL:
            self.open.setdefault(producer, offset)
        self.sequences[producer] = epoch, sequence + last, offset
        return KafkaError.NO_ERROR, offset

    def mark(self, producer: int, epoch: int, committed: bool) -> None:
        """End a transaction here."""
        record = struct.pack(">bbbbhhbhib", 0, 0, 0, 8, 0, int(committed), 12, 0, 0, 0)
        record = struct.pack(">b", 2 * len(record)) + record
        header = (
            0,
            _BATCH.size - 12 + len(record),
            0,
            2,
            0,
            _TRANSACTIONAL | _CONTROL,
            0,
            0,
            0,
            producer,
            epoch,
            -1,
            1,
        )
        offset = self._store(_BATCH.pack(*header) + record, 0)
        first = self.open.pop(producer, offset)
        if not committed:
            self.aborted.append((producer, first, offset))

    @property
    def stable(self) -> int:
        """Up to where no transaction is open."""
        return min(self.open.values(), default=self.end)

    def read(self, offset: int, is_committed: bool) -> tuple[bytes, list[tuple[int, int]]]:
        """Batches from an offset on, and what of them was aborted."""
        end = self.stable if is_committed else self.end
        found = b"".join(batch for first, last, batch in self.batches if last >= offset and last < end)
        return found, [(producer, first) for producer, first, last in self.aborted if last >= offset]

    def _store(self, batch: bytes, last: int) -> int:
        offset = self.end
        self.batches.append((offset, offset + last, struct.pack(">q", offset) + batch[8:]))
        self.end += last + 1
        return offset


@dataclass
class Producer:
    """A transactional id."""

    number: int
    epoch: int = -1
    #: Where its open transaction has written; None: there is none.
    partitions: list[Partition] | None = None
    #: How the last one ended.
    ended: bool | None = None

    def begin_anew(self, epoch: int) -> int:
        """Fence whoever had it; an error if that is who asks."""
        if epoch >= 0 and epoch != self.epoch:
            return int(KafkaError.PRODUCER_FENCED)
        if self.partitions is not None:
            self.end(False)
        self.epoch, self.ended = self.epoch + 1, None
        return int(KafkaError.NO_ERROR)

    def add(self, partition: Partition) -> None:
        self.partitions = [*(self.partitions or []), partition]

    def end(self, committed: bool) -> int:
        if self.partitions is None:
            return int(KafkaError.NO_ERROR if self.ended is committed else KafkaError.INVALID_TXN_STATE)
        for partition in self.partitions:
            partition.mark(self.number, self.epoch, committed)
        self.partitions, self.ended = None, committed
        return int(KafkaError.NO_ERROR)


def batches_of(records: bytes) -> Iterator[bytes]:
    while records:
        size = 12 + struct.unpack_from(">i", records, 8)[0]
        yield records[:size]
        records = records[size:]


def epoch_of(batch: bytes) -> tuple[int, int]:
    """The producer and its epoch."""
    *_, producer, epoch, _, _ = _BATCH.unpack_from(batch)
    return producer, epoch
