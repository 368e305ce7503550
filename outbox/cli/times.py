"""Times and durations as people type them."""

from __future__ import annotations

from datetime import datetime, timedelta

from outbox import duration as durations
from outbox.cli.options import usage


def duration(text: str) -> timedelta:
    """Read 90s, 10m, 1h30m, 2d; what is not one is wrong usage."""
    try:
        return durations.parse(text)
    except ValueError as error:
        raise usage(str(error)) from error


def moment(text: str) -> datetime:
    """Read a time in ISO 8601, in this machine's zone if it names none; what is not one is wrong usage."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise usage(f"{text!r} is not a time: 2026-12-24T18:00, or with its zone 2026-12-24T18:00+01:00") from error
