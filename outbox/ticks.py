"""When a schedule ticks: cron expressions and intervals, over changes of the clock, and what becomes of missed ticks.

Cron is cronsim's, and so Debian's. With five fields, where neither minute nor hour begins with `*`, a tick in the hour
that summer time leaves out comes right after it, and one in the hour that comes twice comes once. All others tick by
what the clock on the wall shows: not in an hour that is left out, twice in one that comes twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from outbox.errors import InvalidDeclaration

Missed = Literal["skip", "one", "all"]

#: A tick that is later than this was missed: no worker ran, or none had the database.
MISSED_AFTER = timedelta(seconds=60)
#: The shortest interval between ticks.
SHORTEST = timedelta(seconds=1)
#: Ticks at most that one transaction publishes.
_AT_ONCE = 1_000


class Timing(NamedTuple):
    """When a schedule ticks: one of cron and every is set."""

    cron: str | None
    every: timedelta | None
    #: An IANA name; it matters to cron only.
    timezone: str


class Plan(NamedTuple):
    """What is to be done with a schedule that is due."""

    #: The ticks to publish, ascending.
    ticks: list[datetime]
    #: The one after them; None: it never ticks again.
    next_at: datetime | None


def check(name: str, timing: Timing) -> None:
    """Raise InvalidDeclaration, which says what does not fit, unless it ticks."""
    if (timing.cron is None) == (timing.every is None):
        raise InvalidDeclaration(f"schedule {name!r} ticks by a cron expression, or after each interval")
    if timing.every is not None and timing.every < SHORTEST:
        raise InvalidDeclaration(f"schedule {name!r}: every {timing.every} is too often, a second is the least")
    if next(after(timing, datetime.now(UTC), name), None) is None:
        raise InvalidDeclaration(f"schedule {name!r} never ticks: there is no time that fits {timing.cron!r}")


def after(timing: Timing, moment: datetime, name: str = "", anchor: datetime | None = None) -> Iterator[datetime]:
    """The ticks after a moment, in order.

    Args:
        anchor: a tick of an interval, from which the others are counted; None: the moment.

    Raises:
        InvalidDeclaration: the cron expression or the time zone is not one.
    """
    moment = moment.astimezone(UTC)  # in a zone whose clock changes, datetimes are counted by the wall
    if timing.every is not None:
        return _intervals((anchor or moment).astimezone(UTC), timing.every, moment)
    return _cron(timing, moment, name)


def plan(timing: Timing, missed: Missed, due_at: datetime, now: datetime, name: str = "") -> Plan:
    """What to publish of a schedule whose next tick was due at `due_at`, and when it ticks next.

    Ticks that are no more than 60 s late are published, each. Of those that are later: "skip" none, "one" the last,
    "all" all of them, a thousand at once.
    """
    due_at, now = due_at.astimezone(UTC), now.astimezone(UTC)
    if missed == "all" or due_at >= now - MISSED_AFTER:
        return _split(chain([due_at], after(timing, due_at, name, due_at)), now)
    missed_at = _last(timing, due_at, now - MISSED_AFTER - timedelta.resolution, name)
    return _split(chain([missed_at] if missed == "one" else [], after(timing, missed_at, name, due_at)), now)


def _split(found: Iterable[datetime], now: datetime) -> Plan:
    """Those that have come, and the first that has not, or that must wait for the next transaction."""
    due: list[datetime] = []
    for tick in found:
        if tick > now or len(due) == _AT_ONCE:
            return Plan(due, tick)
        due.append(tick)
    return Plan(due, None)


def _last(timing: Timing, due_at: datetime, until: datetime, name: str) -> datetime:
    """The last tick from `due_at` to `until`."""
    if timing.every is not None:
        return due_at + (until - due_at) // timing.every * timing.every
    backwards = _cronsim(timing, until + timedelta(seconds=1), name, reverse=True)
    last = max(due_at, next((tick.astimezone(UTC) for tick in backwards if tick <= until), due_at))
    for tick in after(timing, last, name):  # backwards, cronsim passes over ticks beside a change of the clock
        if tick > until:
            break
        last = tick
    return last


def _intervals(anchor: datetime, every: timedelta, moment: datetime) -> Iterator[datetime]:
    number = math.floor((moment - anchor) / every) + 1
    while True:
        tick = anchor + number * every
        if tick > moment:  # the division may round
            yield tick
        number += 1


def _cron(timing: Timing, moment: datetime, name: str) -> Iterator[datetime]:
    last = moment
    for tick in _cronsim(timing, moment, name):
        if (at := tick.astimezone(UTC)) > last:  # in the hour that comes twice, cronsim may begin in the first
            yield at
            last = at


def _cronsim(timing: Timing, moment: datetime, name: str, reverse: bool = False) -> CronSim:
    try:
        return CronSim(timing.cron or "", moment.astimezone(zone(timing, name)), reverse)
    except CronSimError as error:
        raise InvalidDeclaration(
            f"schedule {name!r}: {timing.cron!r} is not a cron expression ({error}): minute hour day month weekday, "
            "with the second before them if there are six"
        ) from error


def zone(timing: Timing, name: str) -> ZoneInfo:
    """Its time zone. Raises InvalidDeclaration if there is none of that name here."""
    try:
        return ZoneInfo(timing.timezone)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise InvalidDeclaration(
            f"schedule {name!r}: there is no time zone {timing.timezone!r} here, as Europe/Berlin is one"
            " (a machine without time zones needs `pip install tzdata`)"
        ) from error
