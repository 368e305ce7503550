"""Schedules: messages that are published again and again, declared in code, and looked after by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypedDict, get_args

import msgspec

from outbox import ticks
from outbox.errors import InvalidDeclaration
from outbox.operations import Operation, Row, Statement
from outbox.payload import Encoded, Limits, check_topic, encode
from outbox.ticks import Missed, Timing

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class MessageOptions(TypedDict, total=False):
    """What the messages of a schedule have beside a payload, as `Outbox.publish` takes it."""

    key: str | None
    headers: dict[str, str] | None
    priority: int
    content_type: str | None
    #: How long a message may wait for its delivery.
    ttl: timedelta | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is published, and when: `Outbox.schedule` makes it, workers put it into the database when they start."""

    name: str
    timing: Timing
    missed: Missed
    topic: str
    message: Encoded
    #: 0 to 9, the higher is delivered first.
    priority: int


class ScheduleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it stands in the database."""

    name: str
    cron: str | None
    #: Seconds between ticks.
    every: float | None
    timezone: str
    topic: str
    missed: Missed
    paused_at: datetime | None
    #: None: it is paused, or never ticks again.
    next_at: datetime | None
    last_at: datetime | None
    #: Ticks whose message could not be published so far.
    waiting: int
    #: Why: of such a message, or why a worker could not compute the next tick.
    error: str | None
    priority: int
    key: str | None
    headers: dict[str, str]
    #: The JSON value; a body of bytes as text, undecodable bytes replaced.
    payload: Any

    @property
    def timing(self) -> Timing:
        return Timing(self.cron, None if self.every is None else timedelta(seconds=self.every), self.timezone)


class Due(msgspec.Struct, frozen=True):
    """A schedule whose next tick has come."""

    name: str
    timing: Timing
    missed: Missed
    #: Counts the changes of the schedule.
    revision: int
    next_at: datetime
    #: The database's clock when it was found.
    now: datetime


def new(
    name: str, when: str | timedelta, topic: str, payload: Any, timezone: str, missed: Missed,
    limits: Limits, options: MessageOptions,
) -> Schedule:  # fmt: skip  # what `Outbox.schedule` takes, and the limits
    """Check and encode a schedule. Raises InvalidDeclaration or InvalidMessage, which say what does not fit."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidDeclaration(f"{name!r} is not a schedule name: letters, digits, _, - and . only, 255 at most")
    if not isinstance(when, str | timedelta):
        raise InvalidDeclaration(f"schedule {name!r} ticks by a cron expression or a timedelta, not {when!r}")
    if missed not in get_args(Missed):
        raise InvalidDeclaration(f"schedule {name!r}: missed is {missed!r}, not one of {', '.join(get_args(Missed))}")
    timing = Timing(when, None, timezone) if isinstance(when, str) else Timing(None, when, timezone)
    ticks.check(name, timing)
    check_topic(topic)
    priority = options.get("priority", 0)
    message = encode(
        payload, limits, options.get("key"), options.get("headers"), options.get("content_type"),
        ttl=options.get("ttl"),
    )  # fmt: skip  # the payload, and what goes with it
    return Schedule(name, timing, missed, topic, message, priority)


def declare(schedule: Schedule) -> Operation[bool]:
    """Put a schedule into the database, or bring it up to date; returns whether that changed anything.

    Times that have changed count from now. One that was paused stays paused.
    """
    rows = yield Statement("SELECT clock_timestamp()")
    first = next(ticks.after(schedule.timing, rows[0][0], schedule.name), None)
    message, timing = schedule.message, schedule.timing
    rows = yield Statement(
        "SELECT outbox.declare_schedule(CAST(%s AS text), CAST(%s AS text), CAST(CAST(%s AS text) AS json), "
        "CAST(%s AS text), CAST(%s AS interval), CAST(%s AS text), CAST(%s AS text), CAST(%s AS text), "
        "CAST(CAST(%s AS text) AS jsonb), CAST(%s AS int), CAST(%s AS bytea), "
        "make_interval(secs => CAST(%s AS float8)), CAST(%s AS timestamptz))",
        (
            schedule.name, schedule.topic, message.json, timing.cron, timing.every, timing.timezone,
            schedule.missed, message.key, message.headers, schedule.priority, message.body, message.ttl, first,
        ),
    )  # fmt: skip  # in the order of the parameters
    return bool(rows[0][0])


def due(overdue: bool) -> Operation[list[Due]]:
    """The schedules whose next tick has come; of those that came due in the last moments, or of all."""
    rows = yield Statement("SELECT * FROM outbox.due_schedules(%s)", (overdue,))
    return [Due(name, Timing(cron, every, zone), *rest) for name, cron, every, zone, *rest in rows]


def tick(schedule: Due, plan: ticks.Plan) -> Operation[int | None]:
    """Publish ticks of a schedule and move it on, in one transaction; None: another worker did, or it was changed."""
    rows = yield Statement(
        "SELECT outbox.tick_schedule(%s, %s, %s, %s::timestamptz[], coalesce(%s::timestamptz, 'infinity'))",
        (schedule.name, schedule.revision, schedule.next_at, plan.ticks, plan.next_at),
    )
    return None if rows[0][0] is None else int(rows[0][0])


def note_error(schedule: Due, error: str) -> Operation[None]:
    """Keep why its next tick can't be computed, for people to see."""
    yield Statement("SELECT outbox.note_schedule_error(%s, %s, %s)", (schedule.name, schedule.revision, error))


_SELECT = """
SELECT s.name, s.cron, extract(epoch FROM s.every)::float8, s.timezone, s.topic, s.missed, s.paused_at,
       nullif(t.next_at, 'infinity'), t.last_at, coalesce(w.waiting, 0), coalesce(s.error, w.error),
       s.priority, s.key, s.headers::text, s.payload::text, s.body
FROM outbox.schedule s
LEFT JOIN outbox.tick t ON t.schedule_id = s.id
LEFT JOIN (SELECT m.schedule, count(*) AS waiting, max(m.error) AS error FROM outbox.scheduled m
           WHERE m.schedule IS NOT NULL GROUP BY m.schedule) AS w ON w.schedule = s.name
"""


def every_one() -> Operation[list[ScheduleStatus]]:
    """All schedules, by name."""
    rows = yield Statement(_SELECT + "ORDER BY s.name")
    return [_read(row) for row in rows]


def find(name: str) -> Operation[ScheduleStatus]:
    """One schedule. Raises InvalidDeclaration if there is none."""
    rows = yield Statement(_SELECT + "WHERE s.name = %s", (name,))
    if not rows:
        raise InvalidDeclaration(f"there is no schedule {name!r}: `outbox schedules list` shows those that there are")
    return _read(rows[0])


def preview(name: str, count: int, now: datetime | None = None) -> Operation[list[datetime]]:
    """The next ticks, in the schedule's zone: from now, if it is paused as if it were resumed now."""
    schedule = yield from find(name)
    now = now or datetime.now(UTC)
    zone = ticks.zone(schedule.timing, name)
    found = ticks.after(schedule.timing, now, name, schedule.next_at)
    return [at.astimezone(zone) for at in islice(found, count)]


def pause(name: str) -> Operation[bool]:
    """Let it tick no more until it is resumed; False: it was paused already."""
    yield from find(name)
    rows = yield Statement("SELECT outbox.pause_schedule(%s)", (name,))
    return bool(rows[0][0])


def resume(name: str) -> Operation[bool]:
    """Let it tick again, from now on; ticks while it was paused are not made up for. False: it was not paused."""
    schedule = yield from find(name)
    rows = yield Statement("SELECT clock_timestamp()")
    first = next(ticks.after(schedule.timing, rows[0][0], name), None)
    rows = yield Statement("SELECT outbox.resume_schedule(%s, coalesce(%s::timestamptz, 'infinity'))", (name, first))
    return bool(rows[0][0])


def run_now(name: str) -> Operation[bool]:
    """Publish its message now, beside its ticks; False: that failed, and is tried again as `outbox scheduled` shows."""
    yield from find(name)
    rows = yield Statement("SELECT outbox.run_schedule(%s)", (name,))
    return bool(rows[0][0])


def delete(name: str) -> Operation[None]:
    """Delete it; a worker whose application declares it brings it back when it starts."""
    yield from find(name)
    yield Statement("SELECT outbox.delete_schedule(%s)", (name,))


def _read(row: Row | Sequence[Any]) -> ScheduleStatus:
    *values, headers, json, body = row
    fields = ScheduleStatus.__struct_fields__
    return ScheduleStatus(
        **dict(zip(fields, values, strict=False)),
        headers=msgspec.json.decode(headers) if headers else {},
        payload=msgspec.json.decode(json) if json is not None else bytes(body).decode("utf-8", "replace"),
    )
