"""What feeds say to the database; no I/O."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from outbox import handling
from outbox.operations import Operation, Statement
from outbox.relay.feeding.message import HEADER, Fed, origin_of
from outbox.relay.places import as_topic
from outbox.subscription import Subscription

#: Partitions of the topic of a subscription's own, that its messages lead round by.
WAYS = 8


class Begun(NamedTuple):
    """Where a partition is read from."""

    offset: int
    #: Who died there before, having got no further.
    deaths: int


class Detour(msgspec.Struct, frozen=True):
    """A message as `outbox.detour` takes it."""

    number: int
    key: str | None
    headers: dict[str, str]
    payload: msgspec.Raw | None
    #: In base64.
    body: str | None
    published_at: float
    delay: float | None
    reason: str | None
    error: dict[str, str] | None
    charged: bool


def detour(subscription: Subscription, message: Fed, error: Exception, number: int, chance: random.Random) -> Detour:
    """What becomes of a message that is not done where it came from."""
    failure = handling.failure_of(subscription, message, 0, error, chance)
    json, body = message._json, message._body
    return Detour(
        number,
        message.key,
        {**message.headers, HEADER: origin_of(message)},
        None if json is None else msgspec.Raw(json),
        None if body is None else base64.b64encode(body).decode(),
        message.published_at.timestamp(),
        failure.delay,
        failure.reason,
        failure.error,
        failure.charged,
    )


def way_of(subscription: str) -> str:
    """The topic of a subscription's own."""
    return as_topic(f"from.{subscription}")


def begin(subscription: str, partition: str, first: int | None) -> Operation[Begun | None]:
    """None: it was never read, and there is no `first`."""
    rows = yield Statement(
        'SELECT "offset", deaths FROM outbox.begin_feed(%s, %s, CAST(%s AS bigint))', (subscription, partition, first)
    )
    return None if rows[0][0] is None else Begun(*rows[0])


def end(subscription: str, offsets: dict[str, int]) -> Operation[None]:
    """Nobody has died where these partitions stand."""
    yield Statement(
        "SELECT outbox.end_feed(%s, CAST(%s AS text[]), CAST(%s AS bigint[]))",
        (subscription, list(offsets), list(offsets.values())),
    )


def move(
    subscription: str,
    partition: str,
    from_offset: int | None,
    to_offset: int | None,
    keys: list[str],
    detours: list[Detour],
    durable: bool,
    looked: float,
) -> Operation[None]:
    """Move on, note what is done, and lead some round; see `outbox.move_feed`. Raises LeaseLost.

    Args:
        looked: so many seconds ago none of the keys was done.
    """
    yield Statement(
        "SELECT outbox.move_feed(%s, %s, CAST(%s AS bigint), CAST(%s AS bigint), CAST(%s AS text[]), %s, "
        "CAST(CAST(%s AS text) AS json), CAST(%s AS boolean), CAST(%s AS float8))",
        (
            subscription,
            partition,
            from_offset,
            to_offset,
            keys,
            way_of(subscription),
            msgspec.json.encode(detours).decode() if detours else None,
            durable,
            looked,
        ),
    )


def known(subscription: str, keys: list[str]) -> Operation[set[str]]:
    """Which of these are done."""
    rows = yield Statement("SELECT outbox.known_once(%s, CAST(%s AS text[]))", (f"from:{subscription}", keys))
    return {key for (key,) in rows}


def detoured(subscription: str, number: int) -> Operation[set[str]]:
    """The lanes of a part of its own topic in which messages wait."""
    rows = yield Statement("SELECT outbox.detoured_keys(%s, %s, %s)", (subscription, way_of(subscription), number))
    return {lane for (lane,) in rows}


def fitting(conditions: list[dict[str, object]], messages: Iterable[Fed]) -> Operation[list[bool]]:
    """Which of these messages fit one of some conditions of bindings."""
    listed = list(messages)
    rows = yield Statement(
        "SELECT outbox.fit_all(CAST(CAST(%s AS text) AS jsonb), CAST(CAST(%s AS text[]) AS jsonb[]), "
        "CAST(CAST(%s AS text[]) AS json[]))",
        (
            msgspec.json.encode(conditions).decode(),
            [msgspec.json.encode(message.headers).decode() for message in listed],
            [None if message._json is None else message._json.decode() for message in listed],
        ),
    )
    return list(rows[0][0])


def filter_problem(filter: str) -> Operation[str | None]:
    """Why a filter is none; needs no table."""
    rows = yield Statement("SELECT outbox.filter_problem(%s)", (filter,))
    return rows[0][0]  # type: ignore[no-any-return]  # a text
