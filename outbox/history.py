"""What to say to the database to read a log without a subscription, and what a reader remembers of it.

Where a reader stands is a place a partition: an offset, and the transactions that were open when it was read, each
with the offset up to which all of it was seen. It is never written to the database.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from outbox.errors import InvalidDeclaration
from outbox.model import Batch, Message, MessageId
from outbox.operations import Operation, Row, Statement
from outbox.start import Start

#: Messages, and bytes of their payloads, that a look brings at most.
_MESSAGES, _BYTES = 1_000, 8 * 1024 * 1024

#: How far times of publication may be out of the order of the offsets, for one who begins or ends at a time.
_SKEW = timedelta(minutes=1)


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a reader stands in a partition; as a row of `outbox.position`."""

    offset: int
    open: list[int] = []
    floor: list[int] = []

    def after(self, xid: int, offset: int, beyond: Place) -> Place:
        """The place when a message of a look was seen, whose end is `beyond`: as if the look had ended with it."""
        if offset > self.offset:
            return Place(offset, beyond.open, beyond.floor)
        floor = [offset if known == xid else f for known, f in zip(self.open, self.floor, strict=True)]
        return Place(self.offset, self.open, floor)


#: Of a partition of which nothing was read yet.
BEGINNING = Place(0)

#: By the partition's id.
Position = dict[str, Place]


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that it takes to go on with a reading later."""

    topic: str
    position: Position
    #: Only messages that were published then or later.
    since: datetime | None = None
    #: Does it read partitions that the position does not name, from their beginning?
    newcomers: bool = True


class Look(NamedTuple):
    """What a look into the log brought."""

    #: With the transaction of each.
    messages: list[tuple[Message, int]]
    position: Position
    has_more: bool


class Wanted(msgspec.Struct, frozen=True):
    """Which messages of a topic, or of those that match a pattern."""

    topic: str
    partition: int | None
    key: str | None
    headers: dict[str, str | None] | None
    filter: str | None
    before: datetime | None


def token(text: str, topic: str) -> Token:
    """Read a token. Raises InvalidDeclaration if it is none, or of another topic."""
    try:
        found = msgspec.json.decode(text, type=Token)
    except (msgspec.DecodeError, TypeError) as error:
        raise InvalidDeclaration(f"that is no token of a reader: {error}") from error
    if found.topic != topic:
        raise InvalidDeclaration(f"the token is of a reading of {found.topic!r}, not of {topic!r}")
    return found


def begin(wanted: Wanted, start: Start | MessageId) -> Operation[Token]:
    """Where a reading begins. Needs a transaction of its own."""
    at = start if isinstance(start, datetime) else None
    if isinstance(start, timedelta):
        rows = yield Statement(
            "SELECT clock_timestamp() - make_interval(secs => CAST(%s AS float8))", (start.total_seconds(),)
        )
        at = rows[0][0]
    position = yield from _read_from(wanted, start, at - _SKEW if at else None)
    exact = wanted.partition is not None or isinstance(start, int | MessageId)
    return Token(wanted.topic, position, at, not exact)


def end(wanted: Wanted) -> Operation[Position]:
    """Where a reading ends that does not follow. Needs a transaction of its own."""
    return (yield from _read_from(wanted, "next", wanted.before + _SKEW if wanted.before else None))


def _read_from(wanted: Wanted, start: Start | MessageId, at: datetime | None) -> Operation[Position]:
    id = start if isinstance(start, MessageId) else None
    offset = id.offset if id else start if isinstance(start, int) else None
    rows = yield Statement(
        "SELECT CAST(outbox.read_from(CAST(%s AS text), CAST(%s AS text), CAST(CAST(%s AS text) AS timestamptz), "
        "CAST(%s AS int), CAST(%s AS int), CAST(%s AS bigint)) AS text)",
        (
            wanted.topic,
            start if isinstance(start, str) else "first",
            at.isoformat() if at else None,
            wanted.partition,
            id.partition_id if id else None,
            offset,
        ),
    )
    return _position(rows[0][0])


def look(wanted: Wanted, token: Token, until: Position | None) -> Operation[Look]:
    """Read on from where a reader stands. Needs a transaction of its own."""
    rows = yield Statement(
        'SELECT topic, partition, priority, partition_id, "offset", CAST(CAST(xid AS text) AS bigint), '
        "CAST(extract(epoch FROM published_at - CAST('2000-01-01 00:00Z' AS timestamptz)) * 1000000 AS bigint), "
        "key, CAST(headers AS text), CAST(payload AS text), body, CAST(position AS text), has_more "
        "FROM outbox.read(CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), CAST(%s AS int), CAST(%s AS bigint), "
        "CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), CAST(%s AS text), CAST(CAST(%s AS text) AS timestamptz), "
        "CAST(CAST(%s AS text) AS timestamptz), CAST(CAST(%s AS text) AS jsonb), CAST(%s AS boolean))",
        (
            wanted.topic,
            _json(token.position),
            _MESSAGES,
            _BYTES,
            wanted.key,
            _json(wanted.headers) if wanted.headers else None,
            wanted.filter,
            token.since.isoformat() if token.since else None,
            wanted.before.isoformat() if wanted.before else None,
            _json(until) if until is not None else None,
            token.newcomers,
        ),
    )
    *messages, (*_, position, has_more) = rows
    batches: dict[int, Batch] = {}
    return Look([_message(row, batches) for row in messages], _position(position), has_more)


def _message(row: Row, batches: dict[int, Batch]) -> tuple[Message, int]:
    """A message as handlers get them, under no lease; and its transaction."""
    topic, partition, priority, partition_id, offset, xid, published_at, key, headers, json, body, *_ = row
    batch = batches.get(partition_id)
    if batch is None:
        batch = batches[partition_id] = Batch(None, 1, False, topic, partition, priority, partition_id, 0)
    decoded = msgspec.json.decode(headers, type=dict[str, str]) if headers else {}
    raw, bytes_ = (None, bytes(body)) if json is None else (json.encode(), None)
    return Message(batch, offset, published_at, key, decoded, raw, bytes_), xid


def _position(text: str) -> Position:
    return msgspec.json.decode(text, type=Position)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
