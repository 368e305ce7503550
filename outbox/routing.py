"""Who would get a message, and why."""

from __future__ import annotations

import msgspec

from outbox.operations import Operation, Statement


class Verdict(msgspec.Struct, frozen=True):
    """What a binding says of a message. A subscription gets it if one of its bindings takes it."""

    subscription: str
    pattern: str
    takes: bool
    why: str


def who_gets(topic: str, headers: dict[str, str], payload: str | None) -> Operation[list[Verdict]]:
    """Ask each binding of each subscription; nothing is stored.

    Args:
        payload: JSON text; None: of no filter that asks for something.
    """
    rows = yield Statement(
        "SELECT * FROM outbox.who_gets(CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), "
        "CAST(CAST(%s AS text) AS json))",
        (topic, msgspec.json.encode(headers).decode(), payload),
    )
    return [Verdict(*row) for row in rows]


def cancel(partition_id: int, offset: int) -> Operation[list[str]]:
    """Keep a message from those who have not been handed it; returns the subscriptions."""
    rows = yield Statement("SELECT outbox.cancel(%s, %s)", (partition_id, offset))
    return list(rows[0][0])


def edit(partition_id: int, offset: int, payload: str) -> Operation[list[str]]:
    """Give a message another JSON payload, for those who have not been handed it; returns the subscriptions."""
    rows = yield Statement(
        "SELECT outbox.edit(%s, %s, CAST(CAST(%s AS text) AS json))", (partition_id, offset, payload)
    )
    return list(rows[0][0])
