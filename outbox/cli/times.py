"""Times and durations as people type them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from outbox.cli.options import usage

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration(text: str) -> timedelta:
    """Read 90s, 10m, 1h30m, 2d; what is not one is wrong usage."""
    if not re.fullmatch(f"({_PART.pattern})+", text):
        raise usage(f"{text!r} is not a duration: 500ms, 90s, 10m, 1h30m or 2d")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))
    except OverflowError as error:
        raise usage(f"{text!r} is too long") from error


def moment(text: str) -> datetime:
    """Read a time in ISO 8601, in this machine's zone if it names none; what is not one is wrong usage."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise usage(f"{text!r} is not a time: 2026-12-24T18:00, or with its zone 2026-12-24T18:00+01:00") from error
