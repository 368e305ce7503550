"""Times and durations as people type them."""

from __future__ import annotations

from datetime import datetime, timedelta

from outbox import duration as durations
from outbox import start as starts
from outbox.cli.options import usage
from outbox.errors import InvalidDeclaration
from outbox.start import Start


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


def moment_or_ago(text: str | None) -> datetime | timedelta | None:
    """Read a time, or how long ago it was: 2h, "2h ago"; what is neither is wrong usage."""
    if text is None or starts.is_time(text):
        return moment(text) if text is not None else None
    return duration(text.removesuffix("ago").rstrip(" -"))


def start(text: str) -> Start:
    """Check where a subscription starts, or seeks to; a time is of this machine's zone if it names none."""
    where = moment(text) if starts.is_time(text) else text
    try:
        starts.text(where)
        return where
    except InvalidDeclaration as error:
        raise usage(str(error)) from error
