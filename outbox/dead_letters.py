"""Look at messages that were given up on, give them another life, or throw them away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from outbox.errors import InvalidDeclaration, SubscriptionNotFound
from outbox.model import MessageId
from outbox.operations import Operation, Statement

#: Letters in one transaction: so that no lock is held for long.
_PORTION = 1_000


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter. `errors` has an entry for each failed try: attempt, at, worker, class, text, place, traceback."""

    subscription: str
    id: str
    topic: str
    key: str | None
    #: "rejected", "attempts exhausted", "too old", "failed", "worker died" or "expired".
    reason: str
    attempts: int
    died_at: datetime
    published_at: datetime
    #: Of its last error; empty if it had none.
    error_class: str
    place: str
    headers: dict[str, str]
    #: The JSON value; a body of bytes as text, undecodable bytes replaced.
    payload: Any
    errors: list[dict[str, Any]]


class Group(msgspec.Struct, frozen=True):
    """Dead letters of a subscription that died of the same class of error, at the same place in its handler."""

    subscription: str
    error_class: str
    place: str
    letters: int
    first_died_at: datetime
    last_died_at: datetime
    #: The id of one of them.
    example: str


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which dead letters: those that all that is given holds for; by default all."""

    #: Of the last error, as groups show them.
    error_class: str | None = None
    place: str | None = None
    reason: str | None = None
    key: str | None = None
    #: A topic, or a pattern of topics.
    topic: str | None = None
    died_before: datetime | None = None
    died_after: datetime | None = None
    #: A part of the last error's text, in any case.
    text: str | None = None


ALL = Filter()

_SELECT = """
SELECT s.name, d.partition_id, d."offset", t.name, d.key, d.reason, d.attempt, d.died_at, d.published_at,
       d.error_class, d.place, d.headers::text, d.payload::text, d.body, d.errors::text
FROM {letters} d
JOIN outbox.subscription s ON s.id = d.subscription_id
JOIN outbox.partition p ON p.id = d.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
"""


def newest(subscription: str | None, limit: int, filter: Filter = ALL) -> Operation[list[DeadLetter]]:
    """The newest dead letters, newest first, of one subscription or of all (None)."""
    yield from _check(subscription)
    rows = yield Statement(
        _SELECT.format(letters="outbox.dead_letters(CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), %s)")
        + 'ORDER BY d.died_at DESC, d.partition_id DESC, d."offset" DESC',
        (subscription, _json(filter), limit),
    )
    return [_read(row) for row in rows]


def find(id: MessageId) -> Operation[list[DeadLetter]]:
    """The dead letters of a message: one for each subscription that gave up on it."""
    select = _SELECT.format(letters="outbox.dead_letter")
    rows = yield Statement(select + 'WHERE d.partition_id = %s AND d."offset" = %s ORDER BY s.name', (*id,))
    return [_read(row) for row in rows]


def groups(subscription: str | None = None) -> Operation[list[Group]]:
    """What dead letters died of and where, the most frequent first, of one subscription or of all (None)."""
    yield from _check(subscription)
    rows = yield Statement(
        "SELECT subscription, error_class, place, letters, first_died_at, last_died_at, example_partition_id, "
        "example_offset FROM outbox.dead_groups WHERE CAST(%s AS text) IS NULL OR subscription = %s "
        "ORDER BY letters DESC, last_died_at DESC, subscription, error_class, place",
        (subscription, subscription),
    )
    return [_group(*row) for row in rows]


def count(subscription: str, filter: Filter = ALL) -> Operation[int]:
    """How many dead letters of a subscription there are that fit a filter."""
    rows = yield Statement(
        "SELECT count(*) FROM outbox.dead_letter_ids(%s, CAST(CAST(%s AS text) AS jsonb))",
        (subscription, _json(filter)),
    )
    return int(rows[0][0])


def redrive(
    subscription: str,
    ids: Sequence[MessageId] | None = None,
    filter: Filter = ALL,
    rate: float | None = None,
    payload: str | None = None,
) -> Operation[int]:
    """Give dead letters another life, their attempts counted from 1 again; returns how many.

    In portions of 1,000, each a statement: outside of a transaction each commits for itself, and after a crash what is
    left is still a dead letter. A letter is redriven once, however many do it at once.

    Args:
        ids: those; None: all that fit the filter.
        rate: messages a second; their due times are spaced so, from now on. None: all are due now.
        payload: JSON that the payload of a single one of `ids` is replaced with.
    """
    if payload is not None and (ids is None or len(set(ids)) != 1):
        raise InvalidDeclaration("a payload is for one dead letter: name it by its id")
    ((start,),) = yield Statement("SELECT clock_timestamp()")
    redriven = 0
    portions = _Portions(subscription, ids, filter)
    while portion := (yield from portions.next()):
        due_from = start + timedelta(seconds=redriven / rate) if rate else None
        rows = yield Statement(
            "SELECT outbox.redrive(%s, CAST(%s AS int[]), CAST(%s AS bigint[]), rate => CAST(%s AS float8), "
            "due_from => CAST(%s AS timestamptz), payload => CAST(CAST(%s AS text) AS json))",
            (subscription, *_columns(portion), rate, due_from, payload),
        )
        redriven += int(rows[0][0])
    return redriven


def purge(subscription: str, ids: Sequence[MessageId] | None = None, filter: Filter = ALL) -> Operation[int]:
    """Delete dead letters of a subscription, in portions of 1,000: some, or all that fit a filter."""
    purged = 0
    portions = _Portions(subscription, ids, filter)
    while portion := (yield from portions.next()):
        rows = yield Statement(
            "SELECT outbox.purge_dead(%s, CAST(%s AS int[]), CAST(%s AS bigint[]))", (subscription, *_columns(portion))
        )
        purged += int(rows[0][0])
    return purged


def expire(limit: int = _PORTION) -> Operation[int]:
    """Delete dead letters that are older than their subscription keeps them, `limit` at most; returns how many."""
    rows = yield Statement("SELECT outbox.expire_dead_letters(%s)", (limit,))
    return int(rows[0][0])


class _Portions:
    """Ids of dead letters, some at a time: given ones, or those that fit a filter, each gone past once."""

    def __init__(self, subscription: str, ids: Sequence[MessageId] | None, filter: Filter) -> None:
        self._subscription, self._filter = subscription, _json(filter)
        self._ids = None if ids is None else sorted(set(ids))
        self._last = MessageId(0, 0)

    def next(self) -> Operation[list[MessageId]]:
        if self._ids is not None:
            portion, self._ids = self._ids[:_PORTION], self._ids[_PORTION:]
            return portion
        rows = yield Statement(
            "SELECT * FROM outbox.dead_letter_ids(%s, CAST(CAST(%s AS text) AS jsonb), %s, %s, %s)",
            (self._subscription, self._filter, _PORTION, *self._last),
        )
        portion = [MessageId(*row) for row in rows]
        if portion:
            self._last = portion[-1]
        return portion


def _check(subscription: str | None) -> Operation[None]:
    known = yield Statement("SELECT name FROM outbox.subscription WHERE name = %s", (subscription,))
    if subscription is not None and not known:
        raise SubscriptionNotFound(f"subscription {subscription!r} does not exist: `outbox status` shows those that do")


def _json(filter: Filter) -> str:
    return msgspec.json.encode(filter).decode()


def _group(*row: Any) -> Group:
    name, error_class, place, letters, first, last, *example = row
    return Group(name, error_class, place, letters, first, last, str(MessageId(*example)))


def _columns(ids: Sequence[MessageId]) -> tuple[list[int], list[int]]:
    return [id.partition_id for id in ids], [id.offset for id in ids]


def _read(row: Sequence[Any]) -> DeadLetter:
    name, partition_id, offset, topic, key, reason, attempt, died_at, published_at, *more = row
    error_class, place, headers, json, body, errors = more
    return DeadLetter(
        subscription=name,
        id=str(MessageId(partition_id, offset)),
        topic=topic,
        key=key,
        reason=reason,
        attempts=attempt,
        died_at=died_at,
        published_at=published_at,
        error_class=error_class,
        place=place,
        headers=msgspec.json.decode(headers) if headers else {},
        payload=msgspec.json.decode(json) if json is not None else bytes(body).decode("utf-8", "replace"),
        errors=msgspec.json.decode(errors),
    )
