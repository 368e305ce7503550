"""For how long messages are kept: the retention classes, and what subscriptions lost since they did not hold them."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from outbox.errors import InvalidDeclaration
from outbox.operations import Operation, Statement


class RetentionClass(msgspec.Struct, frozen=True):
    """A class that a topic can be declared with, and its part of the log."""

    name: str
    description: str
    #: Messages are kept for this long at least, since they were published.
    keep: timedelta
    #: When its part of the log is larger, the oldest messages go before their time; None: no limit.
    max_bytes: int | None
    #: How large its part of the log is now, with its indexes.
    bytes: int
    #: Slots that it has, and how many of them hold something.
    slots: int
    filled: int
    #: Topics whose next messages it keeps.
    topics: int
    #: Is it kept out of the write-ahead log? Then it is empty after a crash of the server.
    unlogged: bool
    #: Who keeps slots that are due from being emptied, a line each.
    held_by: list[str]


class Loss(msgspec.Struct, frozen=True):
    """Messages that went before a subscription had taken them, since its backlog expires."""

    id: int
    subscription: str
    topic: str
    partition_id: int
    #: The first and the last of them, in the partition.
    first_offset: int
    last_offset: int
    #: How many there were from the one to the other; which of them its bindings' conditions fit was not looked at.
    messages: int
    lost_at: datetime


def classes() -> Operation[list[RetentionClass]]:
    """All retention classes, in the order of their slots."""
    rows = yield Statement(
        "SELECT name, description, extract(epoch FROM keep)::float8, max_bytes, bytes, slots, filled, topics, unlogged "
        "FROM outbox.kept ORDER BY first_slot"
    )
    held = yield Statement("SELECT class, slot, held_by FROM outbox.slots_due() WHERE held_by IS NOT NULL")
    found = []
    for name, description, keep, *more in rows:
        holders = [f"slot {slot}: {held_by}" for held_class, slot, held_by in held if held_class == name]
        values = (name, description, timedelta(seconds=keep), *more, holders)
        found.append(RetentionClass(*values))
    return found


def set_class(name: str, keep: timedelta | None = None, max_bytes: int | None = None) -> Operation[bool]:
    """Change for how long a class keeps messages, and how large it may become; returns whether that changed anything.

    Args:
        keep: at least this long; what is there already, too. None: as it is.
        max_bytes: with indexes; the oldest messages go when it is more, if nobody holds them. 0: no limit; None: as it
            is.

    Raises:
        InvalidDeclaration: there is no such class, or it can't be so.
    """
    if not isinstance(keep, timedelta | None):
        raise InvalidDeclaration(f"keep is {keep!r}, it must be a timedelta")
    rows = yield Statement(
        "SELECT outbox.set_retention(CAST(%s AS text), make_interval(secs => CAST(%s AS float8)), CAST(%s AS bigint))",
        (name, None if keep is None else keep.total_seconds(), max_bytes),
    )
    return bool(rows[0][0])


def losses(after: int = 0) -> Operation[list[Loss]]:
    """What subscriptions lost and nobody has taken note of, the oldest first; `after` an id only."""
    rows = yield Statement(
        "SELECT id, subscription, topic, partition_id, first_offset, last_offset, messages, lost_at "
        "FROM outbox.lost WHERE id > %s ORDER BY id",
        (after,),
    )
    return [Loss(*row) for row in rows]


def acknowledge(subscription: str) -> Operation[int]:
    """Take note of what a subscription lost: it is shown no more. Returns the number of messages.

    Raises:
        SubscriptionNotFound: there is no such subscription.
    """
    rows = yield Statement("SELECT outbox.acknowledge_losses(%s)", (subscription,))
    return int(rows[0][0])
