"""Look at messages that were given up on, give them another life, or throw them away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from outbox.errors import SubscriptionNotFound
from outbox.model import MessageId
from outbox.operations import Operation, Statement


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter. `errors` has an entry for each failed try: attempt, at, worker, class, text, traceback."""

    subscription: str
    id: str
    topic: str
    key: str | None
    #: "rejected", "attempts exhausted" or "worker died".
    reason: str
    attempts: int
    died_at: datetime
    published_at: datetime
    headers: dict[str, str]
    #: The JSON value; a body of bytes as text, undecodable bytes replaced.
    payload: Any
    errors: list[dict[str, Any]]


_SELECT = """
SELECT s.name, d.partition_id, d."offset", t.name, d.key, d.reason, d.attempt, d.died_at, d.published_at,
       d.headers::text, d.payload::text, d.body, d.errors::text
FROM outbox.dead_letter d
JOIN outbox.subscription s ON s.id = d.subscription_id
JOIN outbox.partition p ON p.id = d.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
"""


def newest(subscription: str | None, limit: int) -> Operation[list[DeadLetter]]:
    """The newest dead letters, newest first, of one subscription or of all (None)."""
    known = yield Statement("SELECT name FROM outbox.subscription WHERE name = %s", (subscription,))
    if subscription is not None and not known:
        raise SubscriptionNotFound(f"subscription {subscription!r} does not exist: `outbox status` shows those that do")
    rows = yield Statement(
        _SELECT + "WHERE %s::text IS NULL OR s.name = %s ORDER BY d.died_at DESC LIMIT %s",
        (subscription, subscription, limit),
    )
    return [_read(row) for row in rows]


def find(id: MessageId) -> Operation[list[DeadLetter]]:
    """The dead letters of a message: one for each subscription that gave up on it."""
    rows = yield Statement(_SELECT + 'WHERE d.partition_id = %s AND d."offset" = %s ORDER BY s.name', (*id,))
    return [_read(row) for row in rows]


def redrive(subscription: str, ids: Sequence[MessageId] | None) -> Operation[int]:
    """Make dead letters of a subscription due now, their attempts counted from 1 again; all of them, or some."""
    rows = yield Statement("SELECT outbox.redrive(%s, %s::int[], %s::bigint[])", (subscription, *_columns(ids)))
    return int(rows[0][0])


def purge(subscription: str, ids: Sequence[MessageId] | None) -> Operation[int]:
    """Delete dead letters of a subscription: all of them, or some."""
    partition_ids, offsets = _columns(ids)
    rows = yield Statement(
        "WITH purged AS (DELETE FROM outbox.dead_letter d USING outbox.subscription s "
        "WHERE s.id = d.subscription_id AND s.name = %s AND (%s::int[] IS NULL OR "
        '(d.partition_id, d."offset") IN (SELECT * FROM unnest(%s::int[], %s::bigint[]))) RETURNING 1) '
        "SELECT count(*) FROM purged",
        (subscription, partition_ids, partition_ids, offsets),
    )
    return int(rows[0][0])


def _columns(ids: Sequence[MessageId] | None) -> tuple[list[int] | None, list[int] | None]:
    if ids is None:
        return None, None
    return [id.partition_id for id in ids], [id.offset for id in ids]


def _read(row: Sequence[Any]) -> DeadLetter:
    name, partition_id, offset, topic, key, reason, attempt, died_at, published_at, headers, json, body, errors = row
    return DeadLetter(
        subscription=name,
        id=str(MessageId(partition_id, offset)),
        topic=topic,
        key=key,
        reason=reason,
        attempts=attempt,
        died_at=died_at,
        published_at=published_at,
        headers=msgspec.json.decode(headers) if headers else {},
        payload=msgspec.json.decode(json) if json is not None else bytes(body).decode("utf-8", "replace"),
        errors=msgspec.json.decode(errors),
    )
