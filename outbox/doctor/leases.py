"""Leases: does each have its worker, and does that worker live?"""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, critical, duration, warning
from outbox.operations import Operation, Statement


def _without_worker(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_WITHOUT_WORKER)
    return [
        critical(
            "lease-without-worker",
            f"worker {worker} does not exist, and {count} leases of {subscription} are in its hands: nobody "
            "will recover them",
            f"`SELECT outbox.release({worker}, ARRAY(SELECT id FROM outbox.lease WHERE worker_id = {worker}))`",
            worker_id=worker,
            subscription=subscription,
            leases=count,
            age_seconds=age,
        )
        for worker, subscription, count, age in rows
    ]


def _of_dead_worker(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_OF_DEAD_WORKER)
    return [
        warning(
            "lease-of-dead-worker",
            f"worker {worker} ({name}) has been dead for {duration(age)}, and {count} leases of "
            f"{subscription} are still in its "
            "hands: "
            + (f"none of {alive} live workers recovers them" if alive else "no worker is running to recover them"),
            "`SELECT outbox.recover()`" + ("" if alive else ", or start a worker"),
            worker_id=worker,
            worker=name,
            subscription=subscription,
            leases=count,
            age_seconds=age,
            workers=alive,
        )
        for worker, name, subscription, count, age, alive in rows
    ]


def _held_long(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_HELD_LONG)
    return [
        warning(
            "lease-held-long",
            f"worker {worker} ({name}) has held {count} leases of {subscription} for up to {duration(age)}: "
            "does a handler hang?",
            f"look at its log; `SELECT outbox.release({worker}, ARRAY[{lease}])` hands the oldest to others",
            worker_id=worker,
            worker=name,
            subscription=subscription,
            leases=count,
            lease_id=lease,
            age_seconds=age,
        )
        for worker, name, subscription, count, lease, age in rows
    ]


def _without_redelivery(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_WITHOUT_REDELIVERY)
    return [
        warning(
            "lease-without-redelivery",
            f"lease {lease} of worker {worker} is for another try of offset {offset} of partition {partition} "
            f"for {subscription}, "
            "and its redelivery is gone: if this try fails, the message is lost",
            f"`SELECT outbox.release({worker}, ARRAY[{lease}])` ends the lease; outbox.seek delivers from the "
            "log again",
            lease_id=lease,
            worker_id=worker,
            subscription=subscription,
            partition_id=partition,
            offset=offset,
        )
        for lease, worker, subscription, partition, offset in rows
    ]


_SUBSCRIPTION = (
    "coalesce((SELECT s.name FROM outbox.subscription s WHERE s.id = l.subscription_id), 'subscription ' || "
    "l.subscription_id)"
)

_WITHOUT_WORKER = f"""
SELECT l.worker_id, {_SUBSCRIPTION}, count(*), extract(epoch FROM clock_timestamp() - min(l.leased_at))::float8
FROM outbox.lease l
WHERE NOT EXISTS (SELECT FROM outbox.worker w WHERE w.id = l.worker_id)
GROUP BY l.worker_id, l.subscription_id ORDER BY 1, 2
"""

_OF_DEAD_WORKER = f"""
SELECT w.id, w.name, {_SUBSCRIPTION}, count(*),
       extract(epoch FROM clock_timestamp() - coalesce(w.retired_at, w.alive_until))::float8,
       (SELECT count(*) FROM outbox.worker a WHERE a.alive_until > clock_timestamp() AND a.retired_at IS NULL)
FROM outbox.lease l
JOIN outbox.worker w ON w.id = l.worker_id
WHERE coalesce(w.retired_at, w.alive_until) < clock_timestamp() - interval '1 minute'
GROUP BY w.id, l.subscription_id ORDER BY 1, 3
"""

_HELD_LONG = f"""
SELECT w.id, w.name, {_SUBSCRIPTION}, count(*), (array_agg(l.id ORDER BY l.leased_at))[1],
       extract(epoch FROM clock_timestamp() - min(l.leased_at))::float8
FROM outbox.lease l
JOIN outbox.worker w ON w.id = l.worker_id AND w.alive_until > clock_timestamp() AND w.retired_at IS NULL
WHERE l.leased_at < clock_timestamp() - interval '1 hour'
GROUP BY w.id, l.subscription_id ORDER BY 1, 3
"""

#: A scalar look-up by the exact key: as a join, a planner may walk all redeliveries.
_WITHOUT_REDELIVERY = f"""
SELECT l.id, l.worker_id, {_SUBSCRIPTION}, l.partition_id, lower(l.offsets)
FROM outbox.lease l
WHERE l.redelivered AND l.id IS DISTINCT FROM (
    SELECT r.lease_id FROM outbox.redelivery r
    WHERE r.subscription_id = l.subscription_id AND r.partition_id = l.partition_id AND r."offset" = lower(l.offsets)
    LIMIT 1)
ORDER BY l.id LIMIT 20
"""

CHECKS = (
    Check("lease-without-worker", "every lease has its worker", _without_worker),
    Check("lease-of-dead-worker", "no lease is left with a dead worker", _of_dead_worker),
    Check("lease-held-long", "no lease is older than an hour", _held_long),
    Check("lease-without-redelivery", "every second try has its message", _without_redelivery),
)
