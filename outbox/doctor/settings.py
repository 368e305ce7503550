"""Settings of the server with which messages are lost, or workers stop."""

from __future__ import annotations

from collections.abc import Callable

from outbox.doctor.finding import Check, Finding, Limits, critical, warning
from outbox.operations import Operation, Statement

#: Of the queue of notifications.
_FULL = 0.5


def _must_be_on(check: str, setting: str, risk: str) -> Callable[[Limits], Operation[list[Finding]]]:
    def look(limits: Limits) -> Operation[list[Finding]]:
        ((value,),) = yield Statement("SELECT current_setting(%s)", (setting,))
        if value == "on":
            return []
        mend = f"`ALTER SYSTEM SET {setting} = on` and `SELECT pg_reload_conf()`"
        return [critical(check, f"{setting} is {value}: {risk}", mend, setting=setting, value=value)]

    return look


def _autovacuum(limits: Limits) -> Operation[list[Finding]]:
    settings = yield Statement(_OFF)
    tables = yield Statement(_NOT_VACUUMED)
    return [
        warning(
            "autovacuum",
            f"{setting} is off: dead rows of leases and positions are never removed, and slow everything down",
            f"`ALTER SYSTEM SET {setting} = on` and `SELECT pg_reload_conf()`",
            setting=setting,
        )
        for (setting,) in settings
    ] + [
        warning(
            "autovacuum",
            f"autovacuum is switched off for {table}",
            f"`ALTER TABLE {table} RESET (autovacuum_enabled)`",
            table=table,
        )
        for (table,) in tables
    ]


def _locks(limits: Limits) -> Operation[list[Finding]]:
    ((per_transaction, room, connections, relations, workers, sequences),) = yield Statement(_LOCKS)
    needed = relations * connections + sequences * workers
    fields = {"max_locks_per_transaction": per_transaction, "room": room, "needed": needed, "sequences": sequences}
    if per_transaction >= 64 and needed <= room:
        return []
    what = (
        f"the lock table has room for {room} locks; {connections} connections that publish or pull may need "
        f"{relations} each, "
        f"and each of {workers} workers {sequences} for its partitions: {needed}. Beyond it statements fail: "
        "out of shared memory"
    )
    enough = max(64, -(-needed * per_transaction // room))
    mend = f"`ALTER SYSTEM SET max_locks_per_transaction = {enough}`, and restart the server"
    return [warning("max-locks", what, mend, **fields)]


def _synchronous_commit(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_SYNCHRONOUS_COMMIT)
    return [
        warning(
            "synchronous-commit",
            f"synchronous_commit is off for {whom}: an order that was confirmed, and its messages, may be "
            "lost in a crash",
            mend,
            whom=whom,
        )
        for whom, mend in rows
    ]


def _notifications(limits: Limits) -> Operation[list[Finding]]:
    ((usage,),) = yield Statement("SELECT pg_notification_queue_usage()")
    if usage <= _FULL:
        return []
    what = f"the queue of notifications is {usage:.0%} full: when it is full, every transaction that notifies fails"
    mend = (
        "end the session that LISTENs and has had a transaction open for longest: `outbox doctor` names it as "
        "long-transaction"
    )
    return [warning("notification-queue", what, mend, usage=usage)]


_OFF = """
SELECT s.name FROM pg_settings s WHERE s.name IN ('autovacuum', 'track_counts') AND s.setting = 'off' ORDER BY s.name
"""

_NOT_VACUUMED = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace = 'outbox'::regnamespace AND c.relkind = 'r' AND EXISTS (
    SELECT FROM pg_options_to_table(c.reloptions) AS o
    WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)
ORDER BY 1
"""

#: A pull locks every slot of the log with its indexes and the small tables, some of them in two modes, and the sequence
#: of each partition that its subscription reads. The table has two holders' room for each lock.
_LOCKS = """
SELECT current_setting('max_locks_per_transaction')::bigint,
       2 * current_setting('max_locks_per_transaction')::bigint
       * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint
          + current_setting('max_worker_processes')::bigint + current_setting('max_wal_senders')::bigint),
       current_setting('max_connections')::bigint,
       (SELECT count(*) + (SELECT count(*) FROM pg_index i WHERE i.indrelid = ANY (array_agg(t.id))) + 15
        FROM (SELECT relid::oid FROM pg_partition_tree('outbox.message')
              UNION ALL
              SELECT ('outbox.' || small)::regclass::oid
              FROM unnest('{topic,partition,subscription,cursor,position,lease,redelivery,worker}'::text[]) AS small
        ) AS t (id)),
       (SELECT count(*) FROM outbox.worker w WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL),
       (SELECT coalesce(max(c.count), 0) FROM (SELECT count(*) FROM outbox.cursor GROUP BY subscription_id) AS c)
"""

#: As it stands for the server, for databases and for roles that may publish.
_SYNCHRONOUS_COMMIT = """
SELECT 'the server', '`ALTER SYSTEM RESET synchronous_commit` and `SELECT pg_reload_conf()`'
FROM pg_settings s
WHERE s.name = 'synchronous_commit' AND s.setting = 'off' AND s.source IN ('configuration file', 'command line')
UNION ALL
SELECT 'the database ' || quote_ident(current_database()),
       '`ALTER DATABASE ' || quote_ident(current_database()) || ' RESET synchronous_commit`'
FROM pg_db_role_setting d
WHERE d.setrole = 0 AND d.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND 'synchronous_commit=off' = ANY (d.setconfig)
UNION ALL
SELECT 'the role ' || quote_ident(r.rolname),
       '`ALTER ROLE ' || quote_ident(r.rolname)
       || CASE d.setdatabase WHEN 0 THEN '' ELSE ' IN DATABASE ' || quote_ident(current_database()) END
       || ' RESET synchronous_commit`'
FROM pg_db_role_setting d
JOIN pg_roles r ON r.oid = d.setrole
WHERE d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND 'synchronous_commit=off' = ANY (d.setconfig)
  AND EXISTS (SELECT FROM pg_proc p
              WHERE p.pronamespace = 'outbox'::regnamespace AND p.proname IN ('publish', 'publish_many')
              AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
"""

_FSYNC = "a crash of the machine can lose or damage everything, whatever was confirmed"
_PAGES = "a crash of the machine can damage tables; only a file system that never tears a page allows it"

CHECKS = (
    Check("fsync", "fsync is on", _must_be_on("fsync", "fsync", _FSYNC)),
    Check("full-page-writes", "full_page_writes is on", _must_be_on("full-page-writes", "full_page_writes", _PAGES)),
    Check("autovacuum", "autovacuum is on, for all our tables", _autovacuum),
    Check("max-locks", "the lock table is large enough", _locks),
    Check("synchronous-commit", "whoever publishes waits for the disk", _synchronous_commit),
    Check("notification-queue", "the queue of notifications is less than half full", _notifications),
)
