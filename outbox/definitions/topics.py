"""Topics: what there is, what differs, and how it becomes what is defined."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from outbox import duration, operations
from outbox.definitions.change import Change
from outbox.definitions.definition import Topic
from outbox.operations import Operation, Statement

SECTION = "topics"


def read() -> Operation[dict[str, Topic]]:
    """All topics, by name."""
    rows = yield Statement(
        "SELECT name, partitions, max_priority, retention, compact, extract(epoch FROM deduplication_window)::float8 "
        "FROM outbox.topic ORDER BY name"
    )
    return {
        name: Topic(
            partitions=partitions,
            max_priority=max_priority,
            retention=retention,
            compact=compact,
            deduplication_window=timedelta(seconds=window),
        )
        for name, partitions, max_priority, retention, compact, window in rows
    }


def changes(wanted: dict[str, Topic], prune: bool = False, force: bool = False) -> Operation[list[Change]]:
    """What differs. Topics are never removed: their messages would go with them."""
    found = yield from read()
    rows = yield Statement("SELECT name FROM outbox.retention")
    classes = sorted(name for (name,) in rows)
    differing = [diff(name, topic, found.get(name), classes) for name, topic in sorted(wanted.items())]
    kept = [Change(section=SECTION, name=name, action="keep") for name in sorted(set(found) - set(wanted))]
    return [change for change in differing if change] + kept


def diff(name: str, wanted: Topic, found: Topic | None, classes: list[str]) -> Change | None:
    """How one topic becomes what is defined; None if it is. `classes` are the retention classes that there are."""
    if wanted.retention not in classes:
        problem = f"there is no retention class {wanted.retention!r}; there are {', '.join(classes)}"
        return Change(section=SECTION, name=name, action="create" if found is None else "change", problem=problem)
    before = found or Topic()
    differing = [field for field in wanted.__struct_fields__ if getattr(wanted, field) != getattr(before, field)]
    if found is None:
        lines = tuple(f"{field}: {_text(getattr(wanted, field))}" for field in differing)
        return Change(section=SECTION, name=name, action="create", lines=lines, order=wanted)
    if not differing:
        return None
    lines = tuple(f"{f}: {_text(getattr(found, f))} → {_text(getattr(wanted, f))}" for f in differing)
    return Change(section=SECTION, name=name, action="change", lines=lines, order=wanted)


def apply(changes: list[Change]) -> Operation[None]:
    """Do it, in the caller's transaction."""
    for change in changes:
        topic: Topic = change.order
        if change.action == "change":
            yield from operations.alter_topic(change.name, topic.partitions, topic.max_priority, topic.retention)
        yield Statement(
            "SELECT outbox.declare_topic(CAST(%s AS text), CAST(%s AS int), CAST(%s AS int), CAST(%s AS text), "
            "make_interval(secs => CAST(%s AS float8)), CAST(%s AS boolean))",
            (
                change.name,
                topic.partitions,
                topic.max_priority,
                topic.retention,
                topic.deduplication_window.total_seconds(),
                topic.compact,
            ),
        )


def _text(value: Any) -> str:
    return duration.text(value) if isinstance(value, timedelta) else str(value)
