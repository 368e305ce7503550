"""Schedules: what there is, what differs, and how it becomes what is defined. One that is paused by hand stays so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from outbox import duration, schedules
from outbox.definitions.change import Change
from outbox.definitions.definition import Schedule
from outbox.operations import Operation, Statement
from outbox.payload import Limits
from outbox.schedules import MessageOptions

SECTION = "schedules"

#: What a role that monitors may not see; nor is it compared then.
_CONTENT = ("payload", "key", "headers")
_MAY_SEE = "SELECT has_column_privilege('outbox.schedule', 'payload', 'SELECT')"

_FIELDS = "name, cron, every, timezone, topic, priority, extract(epoch FROM ttl)::float8, missed"
# a body of bytes can't be written in a file: such a schedule is nobody's here
_READ = f"""
SELECT {_FIELDS}, payload::text, key, coalesce(headers, '{{}}')::text
FROM outbox.schedule WHERE body IS NULL ORDER BY name
"""
_READ_WITHOUT_CONTENT = f"SELECT {_FIELDS}, 'null', NULL, '{{}}' FROM outbox.schedule ORDER BY name"


def read() -> Operation[dict[str, Schedule]]:
    """All schedules of JSON messages, by name; without what the role may not see."""
    rows = yield Statement(_MAY_SEE)
    rows = yield Statement(_READ if rows[0][0] else _READ_WITHOUT_CONTENT)
    return {
        name: Schedule(
            cron=cron,
            every=every,
            timezone=timezone,
            topic=topic,
            payload=msgspec.json.decode(payload),
            key=key,
            headers=msgspec.json.decode(headers),
            priority=priority,
            ttl=None if ttl is None else timedelta(seconds=ttl),
            missed=missed,
        )
        for name, cron, every, timezone, topic, priority, ttl, missed, payload, key, headers in rows
    }


def changes(wanted: dict[str, Schedule], prune: bool = False, force: bool = False) -> Operation[list[Change]]:
    """What differs; schedules that are not defined go if pruned."""
    rows = yield Statement(_MAY_SEE)
    unseen = () if rows[0][0] else _CONTENT
    found = yield from read()
    differing = [diff(name, schedule, found.get(name), unseen) for name, schedule in sorted(wanted.items())]
    action: Any = "remove" if prune else "keep"
    others = [Change(section=SECTION, name=name, action=action) for name in sorted(set(found) - set(wanted))]
    return [change for change in differing if change] + others


def diff(name: str, wanted: Schedule, found: Schedule | None, unseen: tuple[str, ...] = ()) -> Change | None:
    """How one schedule becomes what is defined; None if it is, but for fields that can't be seen."""
    before = found or Schedule()
    seen = (field for field in wanted.__struct_fields__ if found is None or field not in unseen)
    differing = [field for field in seen if getattr(wanted, field) != getattr(before, field)]
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
        if change.action == "remove":
            yield Statement("SELECT outbox.delete_schedule(%s)", (change.name,))
        else:
            yield from schedules.declare(declaration(change.name, change.order))


def declaration(name: str, schedule: Schedule) -> schedules.Schedule:
    """The schedule as workers declare it. Raises InvalidDeclaration or InvalidMessage, which say what does not fit."""
    options: MessageOptions = {
        "key": schedule.key,
        "headers": schedule.headers or None,
        "priority": schedule.priority,
        "ttl": schedule.ttl,
    }
    when: Any = schedule.every if schedule.cron is None else schedule.cron
    return schedules.new(
        name, when, schedule.topic, schedule.payload, schedule.timezone, schedule.missed, Limits(), options
    )


def _text(value: Any) -> str:
    return duration.text(value) if isinstance(value, timedelta) else str(value)
