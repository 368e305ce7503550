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


def text(start: Start) -> str:
    """Write it as `outbox.parse_start` reads it. Raises InvalidDeclaration, which says what there is."""
    try:
        return _text(start)
    except (ValueError, OverflowError) as error:
        raise InvalidDeclaration(
            f"{start!r} is nowhere to start: it is first, last, next, an offset, a time with its zone "
            "(2026-11-23T08:00Z), or how long ago (2h)"
        ) from error


def is_time(start: str) -> bool:
    """Is it a text that begins as a time does?"""
    return _DATE.match(start) is not None


def _text(start: object) -> str:
    if isinstance(start, bool) or not isinstance(start, str | int | datetime | timedelta):
        raise ValueError(start)
    if isinstance(start, str):
        return _read(start.strip())
    if isinstance(start, timedelta):
        return f"{abs(start).total_seconds():.6f} seconds"
    if isinstance(start, datetime):
        return _zoned(start).isoformat()
    return _offset(start)


def _read(start: str) -> str:
    if start in _WORDS:
        return start
    if start.isdecimal():
        return _offset(int(start))
    if is_time(start):
        return _text(datetime.fromisoformat(start))
    return _text(duration.parse(_AGO.sub("", start)))


def _offset(start: int) -> str:
    if not 1 <= start < 2**63:
        raise ValueError(start)
    return str(start)


def _zoned(start: datetime) -> datetime:
    if start.utcoffset() is None:
        raise ValueError(start)
    return start
