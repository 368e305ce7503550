"""What has been open for long, and so keeps dead rows, history and locks."""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, duration, literal, warning
from outbox.operations import Operation, Statement

#: Dead rows in one of our small tables that are too many.
_MANY = 100_000


def _long(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_LONG, (limits.long_transaction,))
    found = [_open(*row) for row in rows]
    ((unseen, owner),) = yield Statement(_UNSEEN)
    if unseen:
        what = (
            f"{unseen} sessions are in transactions whose age neither you nor the owner of the schema, {owner}, may see"
        )
        mend = f"as a superuser: `GRANT pg_read_all_stats TO {owner}`"
        found.append(warning("long-transaction", what, mend, sessions=unseen))
    return found


def _open(
    pid: int,
    age: float,
    application: str,
    state: str | None,
    user: str,
    xid: str | None,
    xmin: str | None,
    timeout: bool,
) -> Finding:
    holds = f"xid {xid}" if xid else "a snapshot" if xmin else "locks only"
    what = (
        f"pid {pid} ({application or 'no name'}, user {user}, {state or 'state unknown'}) has had a "
        "transaction open for "
        f"{duration(age)}; it holds {holds}"
    )
    idle = (state or "").startswith("idle")
    hint = "; idle_in_transaction_session_timeout would end such sessions, it is 0" if idle and not timeout else ""
    return warning(
        "long-transaction",
        what,
        f"let it end, or `SELECT pg_terminate_backend({pid})`" + hint,
        pid=pid,
        age_seconds=age,
        application_name=application,
        state=state,
        user=user,
        holds="xid" if xid else "snapshot" if xmin else "locks",
    )


def _prepared(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_PREPARED, (limits.long_transaction,))
    return [
        warning(
            "prepared-transaction",
            f"the prepared transaction {gid!r} of {owner} has been open for {duration(age)}: it holds xid "
            f"{xid} and its locks",
            f"`COMMIT PREPARED {literal(gid)}` or `ROLLBACK PREPARED {literal(gid)}`",
            gid=gid,
            age_seconds=age,
            user=owner,
            xid=int(xid),
        )
        for gid, age, owner, xid in rows
    ]


def _dead_rows(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_DEAD_ROWS, (_MANY,))
    if not rows:
        return []
    holders = yield Statement(_HOLDERS)
    holder, xids = holders[0] if holders else (None, None)
    return [_dead(table, dead, holder, xids) for table, dead in rows]


def _dead(table: str, dead: int, holder: str | None, xids: int | None) -> Finding:
    fields = {"table": table, "dead_rows": dead, "holder": holder}
    what = f"outbox.{table} has {dead} dead rows"
    if holder is None:
        mend = f"`VACUUM outbox.{table}`, and see that autovacuum runs"
        return warning("dead-rows", f"{what}; no transaction holds them back", mend, **fields)
    return warning("dead-rows", f"{what}; {holder} holds back the last {xids} transactions", f"end {holder}", **fields)


_LONG = """
SELECT a.pid, extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, t.xact_start))::float8,
       coalesce(a.application_name, ''), coalesce(a.state, t.state), coalesce(a.usename, '?'), a.backend_xid::text,
       a.backend_xmin::text, current_setting('idle_in_transaction_session_timeout') <> '0'
FROM pg_stat_activity a
LEFT JOIN outbox.open_transactions() t ON t.pid = a.pid
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND coalesce(a.backend_type, t.backend_type) IN ('client backend', 'background worker', 'logical replication worker')
  AND coalesce(a.xact_start, t.xact_start) < clock_timestamp() - make_interval(secs => %s)
ORDER BY 2 DESC
"""

#: Sessions that have an xid or a snapshot, and whose state is hidden; xid and snapshot are shown to everybody.
_UNSEEN = """
SELECT count(*), (SELECT quote_ident(pg_get_userbyid(n.nspowner)) FROM pg_namespace n WHERE n.nspname = 'outbox')
FROM pg_stat_activity a
LEFT JOIN outbox.open_transactions() t ON t.pid = a.pid
WHERE a.datname = current_database() AND a.usesysid IS NOT NULL
  AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL)
  AND a.state IS NULL AND a.backend_type IS NULL AND t.pid IS NULL
"""

_PREPARED = """
SELECT x.gid, extract(epoch FROM clock_timestamp() - x.prepared)::float8, x.owner, x.transaction::text
FROM pg_prepared_xacts x
WHERE x.database = current_database() AND x.prepared < clock_timestamp() - make_interval(secs => %s)
ORDER BY x.prepared
"""

_DEAD_ROWS = """
SELECT t.relname, t.n_dead_tup FROM pg_stat_user_tables t
WHERE t.schemaname = 'outbox' AND t.relname IN ('position', 'lease', 'redelivery', 'worker') AND t.n_dead_tup > %s
ORDER BY t.n_dead_tup DESC
"""

#: Who keeps rows from being vacuumed: the oldest of sessions of this database, prepared transactions and replication.
_HOLDERS = """
SELECT h.holder, h.xids FROM (
    SELECT 'pid ' || a.pid || ' (' || coalesce(nullif(a.application_name, ''), 'no name') || ')' AS holder,
           greatest(age(a.backend_xmin), age(a.backend_xid)) AS xids
    FROM pg_stat_activity a
    WHERE a.pid <> pg_backend_pid() AND (a.datname = current_database() OR a.datname IS NULL)
    UNION ALL
    SELECT 'the prepared transaction ' || quote_literal(x.gid), age(x.transaction) FROM pg_prepared_xacts x
    WHERE x.database = current_database()
    UNION ALL
    SELECT 'the replication slot ' || s.slot_name, age(s.xmin) FROM pg_replication_slots s
) AS h
WHERE h.xids > 0 ORDER BY h.xids DESC LIMIT 1
"""

CHECKS = (
    Check("long-transaction", "no transaction has been open for long", _long),
    Check("prepared-transaction", "no prepared transaction is left over", _prepared),
    Check("dead-rows", "dead rows are vacuumed", _dead_rows),
)
