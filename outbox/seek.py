"""Move a subscription's cursors: back, so that messages are delivered again, or on, so that they are skipped."""

from __future__ import annotations

import msgspec

from outbox import start
from outbox.operations import Operation, Statement
from outbox.start import Start

#: Messages that are counted of a partition, at most.
MOST = 1_000_000


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """How a cursor moves. Everything up to the offset where it stands has been taken, but for what commits late."""

    topic: str
    partition: int
    priority: int
    partition_id: int
    before: int
    after: int
    #: Messages between the two places, `MOST` + 1 for more; None: they were not counted.
    messages: int | None = None

    @property
    def is_back(self) -> bool:
        """Are messages delivered again, and not skipped?"""
        return self.after < self.before

    @property
    def first(self) -> int:
        """The lowest offset that it moves over, if it moves."""
        return min(self.before, self.after) + 1

    @property
    def last(self) -> int:
        """The highest."""
        return max(self.before, self.after)


def seek(
    subscription: str, to: Start, topic: str | None = None, partition: int | None = None, dry_run: bool = False
) -> Operation[list[Move]]:
    """Needs a transaction of its own; but a dry run does not."""
    rows = yield Statement(
        "SELECT topic, partition, priority, partition_id, before, after FROM outbox.seek_to("
        "CAST(%s AS text), CAST(%s AS text), CAST(%s AS text), CAST(%s AS int), CAST(%s AS boolean))",
        (subscription, start.text(to), topic, partition, dry_run),
    )
    names = ("topic", "partition", "priority", "partition_id", "before", "after")
    return [Move(**dict(zip(names, row, strict=True))) for row in rows]


def counted(moves: list[Move]) -> Operation[list[Move]]:
    """The moves with the numbers of messages, which the log holds now, that they go over."""
    rows = yield Statement(
        "SELECT outbox.count_messages(m.id, m.first, m.last, CAST(%s AS bigint)) FROM unnest(CAST(%s AS int[]), "
        "CAST(%s AS bigint[]), CAST(%s AS bigint[])) WITH ORDINALITY AS m (id, first, last, nth) ORDER BY m.nth",
        (MOST + 1, [m.partition_id for m in moves], [m.first for m in moves], [m.last for m in moves]),
    )
    return [msgspec.structs.replace(move, messages=row[0]) for move, row in zip(moves, rows, strict=True)]


def dry_run(
    subscription: str, to: Start, topic: str | None = None, partition: int | None = None
) -> Operation[list[Move]]:
    """How the cursors would move, and over how many messages."""
    moves = yield from seek(subscription, to, topic, partition, dry_run=True)
    return (yield from counted(moves))
