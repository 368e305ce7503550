"""What a check finds, and what it is told about the limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from outbox.operations import Operation

Severity = Literal["ok", "warning", "critical"]


class Finding(msgspec.Struct, frozen=True):
    #: The name of the check.
    check: str
    severity: Severity
    #: What is the matter, with which object: one line.
    what: str
    #: What to do about it: one line, SQL and commands between backticks; None: nothing.
    mend: str | None
    #: The numbers and names in it: pid, age_seconds, subscription …
    fields: dict[str, Any]


class Limits(NamedTuple):
    """From when on something is worth a finding, in seconds."""

    long_transaction: float = 300
    overdue: float = 60


class Check(NamedTuple):
    name: str
    #: What is true if it finds nothing: one short line.
    well: str
    look: Callable[[Limits], Operation[list[Finding]]]


def ok(check: Check) -> Finding:
    return Finding(check.name, "ok", check.well, None, {})


def warning(check: str, what: str, mend: str | None, **fields: Any) -> Finding:
    return Finding(check, "warning", _one_line(what), mend and _one_line(mend), fields)


def critical(check: str, what: str, mend: str | None, **fields: Any) -> Finding:
    return Finding(check, "critical", _one_line(what), mend and _one_line(mend), fields)


def duration(seconds: float) -> str:
    """Seconds in the largest unit that tells something: 45 s, 12 min, 5 h, 3 days."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def literal(text: str) -> str:
    """A name as an SQL literal, for a mend."""
    return "'" + text.replace("'", "''") + "'"


def _one_line(text: str) -> str:
    """Names come from users: no line breaks and no control characters of a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
