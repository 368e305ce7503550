"""Where reading begins: the words that readers use."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from outbox.errors import InvalidDeclaration
from outbox.model import MessageId

Named = Literal["first", "last", "next"]

#: The "first" message that is kept, the "last" one of each partition, or the "next" one that commits; a message, or an
#: offset of a topic's only partition; a time; an interval ago.
Start = Named | MessageId | int | datetime | timedelta


def check(start: Any) -> None:
    """Raise InvalidDeclaration for what is no `Start`."""
    if isinstance(start, datetime) and start.tzinfo is None:
        raise InvalidDeclaration(f"the time {start} has no zone: datetime.now(UTC), or .astimezone() for local time")
    if isinstance(start, timedelta) and start < timedelta(0):
        raise InvalidDeclaration(f"{start} ago is in the future")
    known = isinstance(start, MessageId | datetime | timedelta) or start in get_args(Named)
    if not known and (not isinstance(start, int) or isinstance(start, bool)):
        raise InvalidDeclaration(
            f"{start!r} is no place to start at: 'first', 'last' or 'next', a MessageId, an offset, a datetime, or a "
            "timedelta ago"
        )
