"""Durations as people write them: "10m", "1h30m", "7d", "PT15M" (ISO 8601), or a number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[wdhms])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse(text: str | float) -> timedelta:
    """Read a duration. Raises ValueError, which says what one looks like."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ValueError(f"{text!r} is not a duration: {_LOOKS_LIKE}")
    try:
        if not isinstance(text, str):
            return timedelta(seconds=text)
        if _WHOLE.fullmatch(joined := "".join(text.split())):
            return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(joined)))
        return msgspec.convert(text, timedelta)
    except (msgspec.ValidationError, OverflowError, ValueError):
        raise ValueError(f"{text!r} is not a duration: {_LOOKS_LIKE}") from None


_LOOKS_LIKE = '"10m", "1h30m", "7d", "PT15M", or a number of seconds'


def text(duration: timedelta) -> str:
    """Write a duration so that `parse` reads the same: 1h30m, 7d, 1.5s."""
    if duration < timedelta(0):
        raise ValueError(f"{duration} is negative")
    seconds, micros = divmod(duration // timedelta(microseconds=1), 1_000_000)
    parts = []
    for unit in "dhm":
        count, seconds = divmod(seconds, int(_UNITS[unit]))
        parts += [f"{count}{unit}"] if count else []
    if seconds or micros or not parts:
        parts.append(f"{seconds}.{micros:06}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)
