"""Messages to come and schedules: are they published at their time?"""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, duration, warning
from outbox.operations import Operation, Statement

#: More than these are not counted.
_MOST = 1_000


def _overdue(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_OVERDUE, (limits.overdue, limits.overdue))
    count, age, workers = rows[0]
    if not count:
        return []
    number = f"{_MOST} or more" if count >= _MOST else str(count)
    who = f"though {workers} live workers run" if workers else "and no live worker runs"
    mend = "look at the logs of the workers" if workers else "start a worker: `outbox worker MODULE:APP`"
    what = f"{number} messages to come, or ticks, have been due for up to {duration(age)}, {who}"
    return [warning("schedule-overdue", what, mend, messages=count, age_seconds=age, workers=workers)]


def _refused(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_REFUSED)
    return [
        warning(
            "schedule-refused",
            f"{count} messages to come for topic {topic} could not be published, {attempts} times at most",
            "`outbox scheduled list` says why; they are tried again, or `outbox scheduled cancel` calls them off",
            topic=topic,
            messages=count,
            attempts=attempts,
        )
        for topic, count, attempts in rows
    ]


# by scheduled_due and tick_due, from the oldest end: a look a minute, not a poll
_OVERDUE = f"""
WITH late AS (
    (SELECT s.due_at FROM outbox.scheduled s WHERE s.due_at < clock_timestamp() - make_interval(secs => %s)
     ORDER BY s.due_at LIMIT {_MOST})
    UNION ALL
    (SELECT t.next_at FROM outbox.tick t WHERE t.next_at < clock_timestamp() - make_interval(secs => %s)
     ORDER BY t.next_at LIMIT {_MOST})
)
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(due_at)), 0)::float8,
       (SELECT count(*) FROM outbox.worker w WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL)
FROM late
"""

_REFUSED = """
SELECT s.topic, count(*), max(s.attempts) FROM outbox.scheduled s WHERE s.attempts > 0 GROUP BY s.topic ORDER BY s.topic
"""

CHECKS = (
    Check("schedule-overdue", "messages to come are published at their time", _overdue),
    Check("schedule-refused", "no message to come is refused by its topic", _refused),
)
