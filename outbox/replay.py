"""Deliver messages again, to one subscription and no other, beside what is published meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypedDict

import msgspec

from outbox.errors import InvalidDeclaration
from outbox.operations import Operation, Statement

#: Messages that are looked at in one transaction: so that none is long.
_PORTION = 1_000


class Range(NamedTuple):
    """Offsets of a partition, both included. Written `3:1-500`."""

    #: The row of `outbox.partition`.
    partition_id: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.partition_id}:{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read it as it is printed. Raises ValueError for anything else."""
        partition_id, _, offsets = text.partition(":")
        first, _, last = offsets.partition("-")
        if not all(number.isdecimal() for number in (partition_id, first, last)):
            raise ValueError(f"{text!r} is not a range of offsets: it looks like 3:1-500")
        return cls(int(partition_id), int(first), int(last))


class Chosen(TypedDict, total=False):
    """Which messages are replayed: those for which all that is given holds."""

    #: Published then or later; a timedelta is that long ago.
    from_at: datetime | timedelta | None
    #: Published before; None: what the subscription had taken when the replay began.
    to_at: datetime | timedelta | None
    key: str | None
    #: Names and values that a message must have; None as a value: any.
    headers: dict[str, str | None] | None
    #: A predicate on the JSON payload, in SQL/JSON path: `$.total > 100`.
    filter: str | None
    #: Only of the partitions with this number.
    partition: int | None


class Replayed(msgspec.Struct, frozen=True):
    """What a replay did, or would do."""

    #: Messages that are delivered again.
    replayed: int
    #: Those that would have been, but are in a worker's hands, or wait for another try already.
    skipped: int


class Replay:
    """A replay that is under way: begun once, then advanced portion by portion, each a transaction of its own.

    Between two portions it can be left; who has `ranges`, and the times that `begin` settled, can go on.

    Args:
        topic: a topic, or a pattern of topics, that the subscription reads; or None for `ranges`.
        ranges: what to go through, instead of all of the topic: as another replay left it.
        rate: messages a second at which they are due, from now on; None: all at once.
        dry_run: only count.
    """

    def __init__(
        self,
        subscription: str,
        topic: str | None,
        chosen: Chosen,
        ranges: Iterable[Range] | None = None,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> None:
        if (topic is None) == (ranges is None):
            raise InvalidDeclaration("a replay is of a topic, or of ranges of offsets that another one left")
        if strange := set(chosen) - set(Chosen.__annotations__):
            raise InvalidDeclaration(f"messages can't be chosen by {', '.join(sorted(strange))}")
        self.subscription = subscription
        self._topic, self._chosen, self._rate, self._dry_run = topic, chosen, rate, dry_run
        #: What is left to be gone through, once it has begun.
        self.ranges = [] if ranges is None else [range for range in ranges if range.first <= range.last]
        self.replayed = self.skipped = 0
        #: Settled when it begins.
        self.from_at: datetime | None = None
        self.to_at: datetime | None = None
        self._began_at = datetime.now(UTC)

    @property
    def left(self) -> int:
        """Offsets that are left; there may be fewer messages."""
        return sum(last - first + 1 for _, first, last in self.ranges)

    def begin(self) -> Operation[None]:
        """Settle which offsets it goes through: what the subscription takes from now on is not replayed."""
        ((now,),) = yield Statement("SELECT clock_timestamp()")
        self._began_at = now
        self.from_at, self.to_at = (_moment(name, self._chosen.get(name), now) for name in ("from_at", "to_at"))
        if self._topic is None:
            return
        rows = yield Statement(
            "SELECT partition_id, first, last FROM outbox.replay_ranges(CAST(%s AS text), CAST(%s AS text), "
            "CAST(%s AS timestamptz), CAST(%s AS timestamptz), CAST(%s AS int))",
            (self.subscription, self._topic, self.from_at, self.to_at, self._chosen.get("partition")),
        )
        self.ranges = [Range(*row) for row in rows]

    def advance(self) -> Operation[None]:
        """Do the next portion; there must be something left."""
        at = self.ranges[0]
        rows = yield Statement(
            "SELECT reached, replayed, skipped FROM outbox.replay(CAST(%s AS text), CAST(%s AS int), "
            "CAST(%s AS bigint), CAST(%s AS bigint), CAST(%s AS timestamptz), CAST(%s AS timestamptz), "
            "CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), CAST(%s AS text), CAST(%s AS float8), "
            "CAST(%s AS timestamptz), CAST(%s AS int), CAST(%s AS boolean))",
            (self.subscription, *at, self.from_at, self.to_at, *self._conditions(), *self._timing(), self._dry_run),
        )
        reached, replayed, skipped = rows[0]
        self.replayed += replayed
        self.skipped += skipped
        self.ranges[:1] = [at._replace(first=reached + 1)] if reached < at.last else []

    def _conditions(self) -> tuple[str | None, str | None, str | None]:
        headers = self._chosen.get("headers")
        text = msgspec.json.encode(headers).decode() if headers else None
        return self._chosen.get("key"), text, self._chosen.get("filter")

    def _timing(self) -> tuple[float | None, datetime | None, int]:
        if self._rate is None:
            return None, None, _PORTION
        return self._rate, self._began_at + timedelta(seconds=self.replayed / self._rate), _PORTION


def replay(run: Replay) -> Operation[Replayed]:
    """All of it. Outside of a transaction each portion commits for itself."""
    yield from run.begin()
    while run.ranges:
        yield from run.advance()
    return Replayed(run.replayed, run.skipped)


def _moment(name: str, given: object, now: datetime) -> datetime | None:
    if isinstance(given, timedelta):
        return now - given
    if given is None or (isinstance(given, datetime) and given.utcoffset() is not None):
        return given
    raise InvalidDeclaration(f"{name} is {given!r}, it must be a datetime with its zone, or a timedelta: so long ago")
