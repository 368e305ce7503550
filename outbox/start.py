"""Where a subscription starts, or seeks to: "first", "last", "next", an offset, a time, or how long ago.

- "first": all history that is kept
- "next": what commits from now on
- "last": the newest message of each partition, and what follows
- an offset (a number): that message of the one partition that is meant
- a time (a datetime with its zone, or its text in ISO 8601): the first message published then or later
- how long ago (a timedelta, or "2h", "2h ago"), by the database's clock
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from outbox import duration
from outbox.errors import InvalidDeclaration

Start = str | int | datetime | timedelta

_WORDS = ("first", "last", "next")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_AGO = re.compile(r"[ -]?ago$")


def parsed(start: Start) -> Start:
    """Make it one of the words, a number, a time with its zone, or how long ago.

    Raises InvalidDeclaration, which says what there is.
    """
    try:
        return _parsed(start)
    except (ValueError, OverflowError) as error:
        raise InvalidDeclaration(
            f"{start!r} is nowhere to start: it is first, last, next, an offset, a time with its zone "
            "(2026-11-23T08:00Z), or how long ago (2h)"
        ) from error


def text(start: Start) -> str:
    """Write it as `outbox.parse_start` reads it. Raises as `parsed`."""
    found = parsed(start)
    if isinstance(found, timedelta):
        return f"{found.total_seconds():.6f} seconds"
    return found.isoformat() if isinstance(found, datetime) else str(found)


def is_time(start: str) -> bool:
    """Is it a text that begins as a time does?"""
    return _DATE.match(start) is not None


def _parsed(start: object) -> Start:
    if isinstance(start, str):
        return _read(start.strip())
    if isinstance(start, timedelta):
        return abs(start)
    if isinstance(start, datetime) and start.utcoffset() is not None:
        return start
    if isinstance(start, int) and not isinstance(start, bool) and 1 <= start < 2**63:
        return start
    raise ValueError(start)


def _read(start: str) -> Start:
    if start in _WORDS:
        return start
    if start.isdecimal():
        return _parsed(int(start))
    if is_time(start):
        return _parsed(datetime.fromisoformat(start))
    return duration.parse(_AGO.sub("", start))
