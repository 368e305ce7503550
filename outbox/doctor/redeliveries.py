"""Messages that wait for another try: does it come?"""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, critical, duration, warning
from outbox.operations import Operation, Statement

#: More than these are not counted.
_MOST = 1_000


def _without_lease(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_WITHOUT_LEASE)
    return [
        critical(
            "redelivery-without-lease",
            f"{count} redeliveries of {subscription} are marked as being tried, by leases that do not exist: "
            "they are stuck",
            f"`UPDATE outbox.redelivery r SET lease_id = NULL WHERE r.subscription_id = {reader} AND "
            "r.lease_id IS NOT NULL "
            "AND NOT EXISTS (SELECT FROM outbox.lease l WHERE l.id = r.lease_id)`",
            subscription=subscription,
            redeliveries=count,
            partition_id=partition,
            offset=offset,
        )
        for reader, subscription, count, partition, offset in rows
    ]


def _overdue(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_OVERDUE, (limits.overdue, limits.overdue))
    return [_late(*row) for row in rows]


def _late(subscription: str, count: int, age: float, workers: int) -> Finding:
    number = f"{_MOST} or more" if count == _MOST else str(count)
    what = f"{number} redeliveries of {subscription} have been due for up to {duration(age)}, "
    fields = {"subscription": subscription, "redeliveries": count, "age_seconds": age, "workers": workers}
    if workers:
        mend = "look at the logs of its workers; if they keep up with none of it, start more"
        return warning("redelivery-overdue", what + f"though {workers} live workers run it", mend, **fields)
    mend = f"start a worker that runs {subscription}: `outbox worker MODULE:APP`"
    return warning("redelivery-overdue", what + "and no live worker runs it", mend, **fields)


def _stuck_lanes(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_STUCK_LANES)
    return [
        warning(
            "lane-stuck",
            f"in {count} lanes of {subscription} the first message waits for one that is gone, the first at "
            f"offset {offset} of "
            f"partition {partition}",
            "`SELECT outbox.mend_lanes()`",
            subscription=subscription,
            lanes=count,
            partition_id=partition,
            offset=offset,
        )
        for subscription, count, partition, offset in rows
    ]


_WITHOUT_LEASE = """
SELECT r.subscription_id, coalesce(s.name, 'subscription ' || r.subscription_id), count(*),
       (array_agg(r.partition_id ORDER BY r.partition_id, r."offset"))[1],
       (array_agg(r."offset" ORDER BY r.partition_id, r."offset"))[1]
FROM outbox.redelivery r
LEFT JOIN outbox.subscription s ON s.id = r.subscription_id
WHERE r.lease_id IS NOT NULL AND NOT EXISTS (SELECT FROM outbox.lease l WHERE l.id = r.lease_id)
GROUP BY 1, 2 ORDER BY 2
"""

#: By the index on what is due, as pull finds them.
_OVERDUE = f"""
SELECT s.name, sum(late.count)::bigint, extract(epoch FROM clock_timestamp() - min(late.oldest))::float8,
       (SELECT count(*) FROM outbox.worker w WHERE s.name = ANY (w.subscriptions)
        AND w.alive_until > clock_timestamp() AND w.retired_at IS NULL)
FROM outbox.subscription s
CROSS JOIN (VALUES (true), (false)) AS kind (suspect)
CROSS JOIN LATERAL (
    SELECT count(*), min(due.due_at) AS oldest FROM (
        SELECT r.due_at FROM outbox.redelivery r
        WHERE r.subscription_id = s.id AND r.suspect = kind.suspect AND r.lease_id IS NULL
          AND r.due_at < clock_timestamp() - make_interval(secs => %s)
        ORDER BY r.due_at LIMIT {_MOST}) AS due
) AS late
WHERE late.oldest < clock_timestamp() - make_interval(secs => %s)
GROUP BY s.id ORDER BY s.name
"""

_STUCK_LANES = """
SELECT coalesce(s.name, 'subscription ' || l.subscription_id), count(*),
       (array_agg(l.partition_id ORDER BY l.partition_id, l."offset"))[1],
       (array_agg(l."offset" ORDER BY l.partition_id, l."offset"))[1]
FROM outbox.stuck_lanes() l
LEFT JOIN outbox.subscription s ON s.id = l.subscription_id
GROUP BY 1 ORDER BY 1
"""

CHECKS = (
    Check("redelivery-without-lease", "no redelivery is stuck", _without_lease),
    Check("redelivery-overdue", "redeliveries are tried in time", _overdue),
    Check("lane-stuck", "no lane waits for what is gone", _stuck_lanes),
)
