"""Slots that are due, by time or by size, and still hold something: who holds them? And who lost something?"""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, duration, warning
from outbox.operations import Operation, Statement

#: Seconds after which somebody should have rotated.
_ROTATED_WITHIN = 600


def _look(limits: Limits) -> Operation[list[Finding]]:
    """One who needs its messages; else the transactions that have used it for long; else nobody has rotated."""
    slots = yield Statement(_DUE)
    found = []
    for log, slot, leaf, age, held_by, retention, early, workers in slots:
        place = f"slot {slot} of outbox.{log}"
        if retention:
            place += f" ({retention}{', which is larger than its limit' if early else ''})"
        fields = {"log": log, "slot": slot, "class": retention, "early": early, "due_seconds": age}
        if held_by:
            found.append(_held(place, held_by, fields))
            continue
        users = yield Statement(_USERS, (leaf, limits.overdue))
        found += [_used(place, fields, *user) for user in users]
        # since when a class is too large is not known: if there is a worker, it will see to it
        is_left = not workers if early else age > _ROTATED_WITHIN
        if is_left and not users:
            since = "is due" if early else f"has been due for {duration(age)}"
            what = f"{place} {since}, nobody holds it, and nobody rotates"
            found.append(warning("slot-due", what, "`SELECT * FROM outbox.rotate()`, or start a worker", **fields))
    return found


def _held(place: str, held_by: str, fields: dict[str, object]) -> Finding:
    what = f"{place} can't be emptied: {held_by}"
    if held_by.startswith("lease"):
        mend = "let its worker settle it, or `SELECT outbox.recover()` if that is dead"
    else:
        mend = (
            "let its workers catch up, move it on: `SELECT outbox.seek(…, NULL)`, or let it lose what is too old: "
            "`outbox subscriptions configure … backlog=expire`"
        )
    return warning("slot-due", what, mend, held_by=held_by, **fields)


def _too_large(limits: Limits) -> Operation[list[Finding]]:
    """If nothing is due early, there is nothing left that could go; otherwise slot-due says who is in the way."""
    rows = yield Statement(_TOO_LARGE)
    return [
        warning(
            "class-too-large",
            f"retention class {name} has {size / 2**20:,.0f} MB, more than its limit of {limit / 2**20:,.0f} MB, "
            "and all of it is in the slot that is written now",
            "a slot that spans less time goes earlier: `outbox retention set … --keep …`; or a larger --max-size",
            bytes=size,
            max_bytes=limit,
            **{"class": name},
        )
        for name, size, limit in rows
    ]


def _lost(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_LOST)
    return [
        warning(
            "messages-lost",
            f"{subscription} has lost {messages} messages: their retention was over, and its backlog expires; the last "
            f"{duration(age)} ago",
            f"start more workers of it, or let the log hold its backlog; `outbox retention acknowledge {subscription}`",
            subscription=subscription,
            messages=messages,
            age_seconds=age,
        )
        for subscription, messages, age in rows
    ]


def _used(
    place: str, fields: dict[str, object], pid: int | None, gid: str | None, age: float | None, application: str
) -> Finding:
    since = "" if age is None else f", open for {duration(age)}"
    if pid is None:
        what = f"{place} can't be emptied: the prepared transaction {gid!r} uses it{since}"
        mend = "COMMIT PREPARED or ROLLBACK PREPARED it"
    else:
        what = f"{place} can't be emptied: the transaction of pid {pid} ({application or 'no name'}) uses it{since}"
        mend = f"let it end, or `SELECT pg_terminate_backend({pid})`"
    return warning("slot-due", what, mend, pid=pid, gid=gid, age_seconds=age, application_name=application, **fields)


_DUE = """
SELECT d.log, d.slot, d.leaf::oid::bigint, extract(epoch FROM clock_timestamp() - d.due_at)::float8, d.held_by, d.class,
       d.early, (SELECT count(*) FROM outbox.worker w WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL)
FROM outbox.slots_due() d
"""

_TOO_LARGE = """
SELECT k.name, k.bytes, k.max_bytes FROM outbox.kept k
WHERE k.bytes > k.max_bytes AND NOT EXISTS (SELECT FROM outbox.slots_due() d WHERE d.class = k.name)
ORDER BY k.name
"""

_LOST = """
SELECT l.subscription, sum(l.messages)::bigint, extract(epoch FROM clock_timestamp() - max(l.lost_at))::float8
FROM outbox.lost l GROUP BY l.subscription ORDER BY l.subscription
"""

#: A TRUNCATE waits for any lock; those that have just begun will have ended by the next time. A prepared transaction
#: has no pid, but a lock on its own xid.
_USERS = """
SELECT u.pid, u.gid, u.age, u.application_name FROM (
    SELECT DISTINCT l.pid, x.gid, coalesce(a.application_name, '') AS application_name,
           extract(epoch FROM statement_timestamp() - coalesce(a.xact_start, t.xact_start, x.prepared))::float8 AS age
    FROM pg_locks l
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN outbox.open_transactions() t ON t.pid = l.pid
    LEFT JOIN pg_locks own ON l.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
                          AND own.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts x ON x.transaction = own.transactionid
    WHERE l.locktype = 'relation' AND l.relation = %s AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
) AS u
WHERE u.age IS NULL OR u.age > %s
ORDER BY u.age DESC
"""

CHECKS = (
    Check("slot-due", "every slot that is due has been emptied, or is about to be", _look),
    Check("class-too-large", "no retention class is larger than its limit", _too_large),
    Check("messages-lost", "no subscription lost messages", _lost),
)
