"""What the exporter reads from the database: statements, and the metrics that their columns are.

All describe the database and not the exporter, so several exporters show the same series: take `max by`, not `sum`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    name: str
    help: str
    kind: str = "gauge"


@dataclass(frozen=True)
class Reading:
    """One statement: its first columns are labels, the others a metric each; NULL is no sample."""

    name: str
    statement: str
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...]
    #: Does it show so many topics by name? Then the number is its parameter `topics`.
    limited: bool = False


SUBSCRIPTIONS = Reading(
    "subscriptions",
    """
WITH behind AS MATERIALIZED (
    SELECT l.subscription, l.partition_id, l."offset", l.lag FROM outbox.lag l
), backlog AS (
    SELECT b.subscription, sum(b.lag) AS lag, count(*) AS partitions, min(first.published_at) AS oldest
    FROM behind b
    JOIN outbox.partition p ON p.id = b.partition_id
    LEFT JOIN LATERAL (
        SELECT m.published_at FROM outbox.message m
        WHERE b.lag > 0 AND m.slot BETWEEN p.first_slot AND p.last_slot
        AND m.partition_id = b.partition_id AND m."offset" > b."offset"
        ORDER BY m."offset" LIMIT 1
    ) AS first ON true
    GROUP BY b.subscription
), leased AS (
    SELECT l.subscription_id,
           sum((SELECT sum(upper(r) - lower(r)) FROM unnest(l.offsets) AS r)) AS messages,
           min(first.published_at) AS oldest
    FROM outbox.lease l
    JOIN outbox.partition p ON p.id = l.partition_id
    LEFT JOIN LATERAL (
        SELECT m.published_at FROM outbox.message m
        WHERE NOT l.redelivered AND m.slot BETWEEN p.first_slot AND p.last_slot
        AND m.partition_id = l.partition_id AND m."offset" >= lower(l.offsets)
        ORDER BY m."offset" LIMIT 1
    ) AS first ON true
    GROUP BY l.subscription_id
), again AS (
    SELECT r.subscription_id, count(*) FILTER (WHERE r.lease_id IS NULL) AS waiting,
           count(*) FILTER (WHERE r.lease_id IS NULL AND r.due_at <= clock_timestamp()) AS due,
           extract(epoch FROM clock_timestamp() - min(r.due_at) FILTER (WHERE r.lease_id IS NULL)) AS overdue,
           min(r.published_at) AS oldest
    FROM outbox.redelivery r GROUP BY r.subscription_id
), dead AS (
    SELECT d.subscription_id, count(*) AS letters FROM outbox.dead_letter d GROUP BY d.subscription_id
), lost AS (
    SELECT l.subscription_id, sum(l.messages) AS messages FROM outbox.loss l
    WHERE l.acknowledged_at IS NULL GROUP BY l.subscription_id
), alive AS (
    SELECT runs.subscription, count(*) AS workers
    FROM outbox.worker w CROSS JOIN unnest(w.subscriptions) AS runs (subscription)
    WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL GROUP BY runs.subscription
)
SELECT s.name, coalesce(b.lag, 0),
       greatest(extract(epoch FROM clock_timestamp() - b.oldest), 0),
       greatest(extract(epoch FROM clock_timestamp() - least(b.oldest, l.oldest, a.oldest)), 0),
       coalesce(l.messages, 0), coalesce(a.waiting, 0), coalesce(a.due, 0), greatest(a.overdue, 0),
       coalesce(d.letters, 0), coalesce(n.messages, 0), coalesce(w.workers, 0),
       CASE WHEN w.workers > 0 THEN 0 ELSE coalesce(b.partitions, 0) END, (s.paused_at IS NOT NULL)::int
FROM outbox.subscription s
LEFT JOIN backlog b ON b.subscription = s.name
LEFT JOIN leased l ON l.subscription_id = s.id
LEFT JOIN again a ON a.subscription_id = s.id
LEFT JOIN dead d ON d.subscription_id = s.id
LEFT JOIN lost n ON n.subscription_id = s.id
LEFT JOIN alive w ON w.subscription = s.name
""",
    ("subscription",),
    (
        Metric("outbox_subscription_lag_messages", "Offsets between its cursors and the ends of their partitions."),
        Metric(
            "outbox_subscription_lag_seconds", "Age of the oldest message that it has not pulled; 0 if there is none."
        ),
        Metric("outbox_subscription_oldest_unsettled_seconds", "Age of its oldest message that is not settled."),
        Metric("outbox_subscription_in_flight_messages", "Messages in workers' hands."),
        Metric("outbox_subscription_redeliveries", "Messages that wait for another try."),
        Metric("outbox_subscription_redeliveries_due", "Of these, those whose time has come."),
        Metric("outbox_subscription_redelivery_overdue_seconds", "For how long the first of these has been due."),
        Metric("outbox_subscription_dead_letters", "Dead letters that are kept."),
        Metric("outbox_subscription_lost_messages", "Messages that expired before it took them, not acknowledged."),
        Metric("outbox_subscription_workers", "Live workers that run it."),
        Metric("outbox_subscription_partitions_without_worker", "Its partitions, if no live worker runs it."),
        Metric("outbox_subscription_paused", "1 while it is paused."),
    ),
)

TOPICS = Reading(
    "topics",
    """
WITH ended AS (
    SELECT t.name, sum(outbox.log_end(p.sequence)) AS offsets FROM outbox.topic t
    JOIN outbox.partition p ON p.topic_id = t.id GROUP BY t.id
), ranked AS (
    SELECT e.*, row_number() OVER (ORDER BY e.offsets DESC, e.name) <= %(topics)s AS named FROM ended e
)
SELECT CASE WHEN r.named THEN r.name ELSE '' END, sum(r.offsets) FROM ranked r GROUP BY 1
""",
    ("topic",),
    (
        Metric(
            "outbox_topic_offsets",
            "Offsets drawn, holes included; the topics beyond --topics together as an empty name.",
        ),
    ),
    limited=True,
)

SLOTS = Reading(
    "slots",
    """
SELECT r.name, s::text, pg_total_relation_size(c.oid), coalesce(t.n_live_tup, 0)
FROM outbox.retention r
CROSS JOIN LATERAL generate_series(r.first_slot, r.first_slot + r.slots - 1) AS s
JOIN pg_class c ON c.oid = to_regclass(format('outbox.message_%s', s))
LEFT JOIN pg_stat_user_tables t ON t.relid = c.oid
""",
    ("retention", "slot"),
    (
        Metric("outbox_slot_bytes", "Size of a slot of the log, with its indexes."),
        Metric("outbox_slot_rows", "Its rows, as Postgres estimates them."),
    ),
)

ROTATION = Reading(
    "rotation",
    """
SELECT coalesce(d.class, d.log), d.slot::text,
       CASE WHEN d.held_by IS NULL THEN '' ELSE split_part(d.held_by, ' ', 1) END,
       coalesce(substring(d.held_by FROM '^subscription (.*) (?:stands at|has not yet taken) '), ''),
       (d.held_by IS NOT NULL)::int, greatest(extract(epoch FROM clock_timestamp() - d.due_at), 0)
FROM outbox.slots_due() d
""",
    ("retention", "slot", "holder", "subscription"),
    (
        Metric("outbox_rotation_blocked", "1: a slot is due, and a subscription or lease still needs messages of it."),
        Metric("outbox_rotation_overdue_seconds", "Since when a slot could be emptied."),
    ),
)

TABLES = Reading(
    "tables",
    r"""
SELECT regexp_replace(t.relname, '_[0-9]+$', ''), sum(t.n_dead_tup), sum(pg_total_relation_size(t.relid))
FROM pg_stat_user_tables t WHERE t.schemaname = 'outbox' GROUP BY 1
""",
    ("table",),
    (
        Metric("outbox_table_dead_rows", "Rows that vacuum has yet to remove."),
        Metric("outbox_table_bytes", "Size of a table, with its indexes; that of all its slots."),
    ),
)

SERVER = Reading(
    "server",
    """
SELECT (SELECT count(*) FROM outbox.scheduled),
       (SELECT count(*) FROM outbox.worker w WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL),
       (SELECT coalesce(max(q.last_value::float8 / q.max_value), 0) FROM pg_sequences q WHERE q.schemaname = 'outbox'),
       open.with_xid, open.without_xid, prepared.number, prepared.age, pg_notification_queue_usage(),
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() - '0/0'::pg_lsn END
FROM (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - o.xact_start))
                      FILTER (WHERE a.backend_xid IS NOT NULL), 0)
             AS with_xid,
             coalesce(max(extract(epoch FROM clock_timestamp() - o.xact_start)) FILTER (WHERE a.backend_xid IS NULL), 0)
             AS without_xid
      FROM outbox.open_transactions() o JOIN pg_stat_activity a ON a.pid = o.pid
      WHERE o.pid <> pg_backend_pid()) AS open,
     (SELECT count(*) AS number, coalesce(max(extract(epoch FROM clock_timestamp() - x.prepared)), 0) AS age
      FROM pg_prepared_xacts x WHERE x.database = current_database()) AS prepared
""",
    (),
    (
        Metric("outbox_scheduled_messages", "Messages to come, that were published for later."),
        Metric("outbox_workers_alive", "Workers whose heartbeat is not overdue."),
        Metric("outbox_sequence_used_ratio", "How far the fullest of our sequences is used up: 0 to 1."),
        Metric("outbox_oldest_transaction_with_xid_seconds", "Age of the oldest open transaction that writes."),
        Metric("outbox_oldest_transaction_without_xid_seconds", "Age of the oldest open transaction that only reads."),
        Metric("outbox_prepared_transactions", "Prepared transactions of this database."),
        Metric("outbox_oldest_prepared_transaction_seconds", "Age of the oldest of these."),
        Metric("outbox_notification_queue_used_ratio", "How full the server's queue of notifications is: 0 to 1."),
        Metric("outbox_wal_bytes_total", "Write-ahead log that the server has written.", "counter"),
    ),
)

ACTORS = Reading(
    "actors",
    "SELECT queue_name, actor, waiting, retrying, in_flight, delayed, dead FROM outbox.actors()",
    ("queue", "actor"),
    (
        Metric("outbox_actor_waiting_messages", "Of dramatiq's actor, for their first try; 10,000 a priority at most."),
        Metric("outbox_actor_retrying_messages", "Given back by a worker, or left by one that died."),
        Metric("outbox_actor_in_flight_messages", "In workers' hands."),
        Metric("outbox_actor_delayed_messages", "To be delivered later: sent with a delay, or to be retried."),
        Metric("outbox_actor_dead_letters", "Dead letters that are kept."),
    ),
)

READINGS = (SUBSCRIPTIONS, TOPICS, ACTORS, SLOTS, ROTATION, TABLES, SERVER)

#: What the exporter says of itself, beside what it reads.
OWN = (
    Metric("outbox_up", "1: the database answers, and has our schema."),
    Metric("outbox_reading_up", "1: this statement of the exporter succeeded; 0: a permission or a time limit."),
    Metric("outbox_schema_info", "The schema's version in the database, and the one that this package wants."),
    Metric("outbox_build_info", "The version of the package that exports."),
)
