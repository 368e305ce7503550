"""What a plan consists of: changes, each to one object."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done to one object, or that it is left alone though it is not in the file."""

    #: "topics" or "subscriptions".
    section: str
    name: str
    #: "keep": nothing is done.
    action: Literal["create", "change", "remove", "keep"]
    #: What it will be, or what changes, a line each.
    lines: tuple[str, ...] = ()
    #: What is there, but not in the file, and stays.
    extra: tuple[str, ...] = ()
    #: Why it can't be done; nothing is done at all then.
    problem: str | None = None
    #: What the database is told.
    order: Any = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What brings a database to its definitions."""

    changes: tuple[Change, ...]

    @property
    def pending(self) -> tuple[Change, ...]:
        """Those that do something."""
        return tuple(change for change in self.changes if change.action != "keep")

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it can't be applied."""
        return tuple(f"{c.section}.{c.name}: {c.problem}" for c in self.changes if c.problem)

    def __str__(self) -> str:
        return "\n".join([*(line for change in self.changes for line in _lines(change)), self._summary()])

    def _summary(self) -> str:
        done = {"create": "to create", "change": "to change", "remove": "to remove"}
        counts = {what: sum(c.action == action for c in self.changes) for action, what in done.items()}
        parts = [f"{count} {what}" for what, count in counts.items() if count] or ["nothing to change"]
        extra = sum(len(c.extra) or c.action == "keep" for c in self.changes)
        return ", ".join(parts) + (f"; {extra} not in the file" if extra else "")


_SIGNS = {"create": "+", "change": "~", "remove": "-", "keep": " "}


def _lines(change: Change) -> list[str]:
    title = f"{_SIGNS[change.action]} {change.section.removesuffix('s')} {change.name}"
    if change.action == "keep" and not change.extra:
        title += ": not in the file"
    lines = [
        title,
        *(f"    {line}" for line in change.lines),
        *(f"    {line}: not in the file" for line in change.extra),
    ]
    return [*lines, f"    ! {change.problem}"] if change.problem else lines
