"""Messages to come: publish later, look at them, change them, call them off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypedDict

import msgspec

from outbox.errors import InvalidMessage
from outbox.operations import Operation, Row, Statement
from outbox.payload import Encoded

_LONGEST_DELAY = timedelta(days=3650)


class Later(TypedDict, total=False):
    """When a message is published, and what `Outbox.publish` takes beside a payload."""

    #: How long from now, by the database's clock; 0 to 3,650 days.
    delay: timedelta | None
    #: Or at that time: a datetime with a time zone. One that has passed is now.
    at: datetime | None
    key: str | None
    headers: dict[str, str] | None
    priority: int
    content_type: str | None
    #: The publish gets it at its time: the topic's deduplication window counts from then.
    idempotency_key: str | None
    #: How long it may wait for its delivery, from then.
    ttl: timedelta | None


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """A message to come."""

    id: int
    topic: str
    due_at: datetime
    priority: int
    key: str | None
    created_at: datetime
    #: The schedule whose tick it is; None: it was published with a delay.
    schedule: str | None
    #: How often publishing it failed, and why the last time.
    attempts: int
    error: str | None
    idempotency_key: str | None
    headers: dict[str, str]
    #: The JSON value; a body of bytes as text, undecodable bytes replaced.
    payload: Any


class Look(NamedTuple):
    """What a worker's look found, and when the next is worth it."""

    published: int
    #: Seconds until the next message, and until the next tick of a schedule, are due; None: none is to come.
    message_in: float | None
    tick_in: float | None


_SELECT = """
SELECT id, topic, due_at, priority, key, created_at, schedule, attempts, error, idempotency_key,
       headers::text, payload::text, body
FROM outbox.scheduled
"""

_IN = "extract(epoch FROM nullif({}, 'infinity') - clock_timestamp())::float8"


def check_time(delay: timedelta | None, at: datetime | None) -> None:
    """Raise InvalidMessage unless one of the two is given, and is a time to come."""
    if (delay is None) == (at is None):
        raise InvalidMessage("publish_later needs a delay or a time: delay=timedelta(...), or at=datetime(...)")
    if at is not None and (not isinstance(at, datetime) or at.utcoffset() is None):
        raise InvalidMessage(f"at={at!r}: it must be a datetime with a time zone, as datetime.now(UTC) has one")
    if delay is not None and not (isinstance(delay, timedelta) and timedelta(0) <= delay <= _LONGEST_DELAY):
        raise InvalidMessage(f"delay={delay!r}: it must be a timedelta, from 0 to {_LONGEST_DELAY.days} days")


def publish_later(
    topic: str, message: Encoded, priority: int, delay: timedelta | None, at: datetime | None
) -> Operation[int]:
    """Store a message that workers publish when it is due; returns its id among those to come."""
    rows = yield Statement(
        "SELECT outbox.publish_later(CAST(%s AS text), CAST(CAST(%s AS text) AS json), "
        "coalesce(CAST(%s AS timestamptz), clock_timestamp() + make_interval(secs => CAST(%s AS float8))), "
        "CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), CAST(%s AS int), CAST(%s AS bytea), CAST(%s AS text), "
        "make_interval(secs => CAST(%s AS float8)))",
        (
            topic, message.json, at, None if delay is None else delay.total_seconds(),
            message.key, message.headers, priority, message.body, message.idempotency_key, message.ttl,
        ),
    )  # fmt: skip  # in the order of the parameters
    return int(rows[0][0])


def look(limit: int, overdue: bool) -> Operation[Look]:
    """Publish what is due, in one transaction; of what came due in the last moments, or of all."""
    message, tick = _IN.format("p.next_due_at"), _IN.format("outbox.next_tick_at(%s)")
    rows = yield Statement(
        f"SELECT p.published, {message}, {tick} FROM outbox.publish_due(%s, %s) AS p", (overdue, limit, overdue)
    )
    return Look(*rows[0])


def next_ones(topic: str | None, limit: int) -> Operation[list[Scheduled]]:
    """Messages to come, the next first, of one topic or of all (None)."""
    rows = yield Statement(
        _SELECT + "WHERE %s::text IS NULL OR topic = %s ORDER BY due_at, id LIMIT %s", (topic, topic, limit)
    )
    return [_read(row) for row in rows]


def find(id: int) -> Operation[Scheduled | None]:
    """One message to come; None: there is none, it was published already."""
    rows = yield Statement(_SELECT + "WHERE id = %s", (id,))
    return _read(rows[0]) if rows else None


def cancel(id: int) -> Operation[bool]:
    """Call a message off; False: there is none, it was published already."""
    rows = yield Statement("SELECT outbox.cancel_scheduled(CAST(%s AS bigint))", (id,))
    return bool(rows[0][0])


def edit(
    id: int,
    due_at: datetime | None = None,
    payload: str | None = None,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    priority: int | None = None,
) -> Operation[bool]:
    """Change what is not None of a message to come; payload is JSON text. False: it was published already."""
    rows = yield Statement(
        "SELECT outbox.edit_scheduled(%s, %s, %s::json, %s, %s::jsonb, %s)",
        (id, due_at, payload, key, msgspec.json.encode(headers).decode() if headers else None, priority),
    )
    return bool(rows[0][0])


def _read(row: Row | Sequence[Any]) -> Scheduled:
    *values, headers, json, body = row
    return Scheduled(
        **dict(zip(Scheduled.__struct_fields__, values, strict=False)),
        headers=msgspec.json.decode(headers) if headers else {},
        payload=msgspec.json.decode(json) if json is not None else bytes(body).decode("utf-8", "replace"),
    )
