"""Slots whose retention is over and that still hold something: who holds them?"""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, duration, warning
from outbox.operations import Operation, Statement

#: Seconds after which somebody should have rotated.
_ROTATED_WITHIN = 600


def _look(limits: Limits) -> Operation[list[Finding]]:
    """One who needs its messages; else the transactions that have used it for long; else nobody has rotated."""
    slots = yield Statement(_DUE)
    found = []
    for log, slot, leaf, age, held_by in slots:
        place = f"slot {slot} of outbox.{log}"
        fields = {"log": log, "slot": slot, "due_seconds": age}
        if held_by:
            found.append(_held(place, held_by, fields))
            continue
        users = yield Statement(_USERS, (leaf, limits.overdue))
        found += [_used(place, fields, *user) for user in users]
        if not users and age > _ROTATED_WITHIN:
            what = f"{place} has been due for {duration(age)}, nobody holds it, and nobody rotates"
            found.append(warning("slot-due", what, "`SELECT * FROM outbox.rotate()`, or start a worker", **fields))
    return found


def _held(place: str, held_by: str, fields: dict[str, object]) -> Finding:
    what = f"{place} can't be emptied: {held_by}"
    if held_by.startswith("lease"):
        mend = "let its worker settle it, or `SELECT outbox.recover()` if that is dead"
    else:
        mend = "let its workers catch up, or move it on: `SELECT outbox.seek(…, NULL)`"
    return warning("slot-due", what, mend, held_by=held_by, **fields)


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
SELECT d.log, d.slot, d.leaf::oid::bigint, extract(epoch FROM clock_timestamp() - d.due_at)::float8, d.held_by
FROM outbox.slots_due() d
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

CHECKS = (Check("slot-due", "every slot that is due has been emptied, or is about to be", _look),)
