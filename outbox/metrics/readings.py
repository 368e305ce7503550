"""What the exporter reads from the database: statements, and the metrics that their columns are.

All describe the database and not the exporter, so several exporters show the same series: take `max by`, not `sum`.
"""

from __future__ import annotations

from dataclasses import dataclass

from outbox.metrics.catalog import Metric


@dataclass(frozen=True)
class Reading:
    """One statement: its first columns are labels, the others a metric each; NULL is no sample."""

    name: str
    statement: str
    metrics: tuple[Metric, ...]
    #: Does it show so many topics by name? Then the number is its parameter `topics`.
    limited: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The same for all its metrics."""
        return self.metrics[0].labels


_SUBSCRIPTION, _TABLE = ("subscription",), ("table",)

SUBSCRIPTIONS = Reading(
    "subscriptions",
    """
WITH alive AS (
    SELECT runs.subscription, count(*) AS workers
    FROM outbox.worker w CROSS JOIN unnest(w.subscriptions) AS runs (subscription)
    WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL GROUP BY runs.subscription
), lost AS (
    SELECT l.subscription_id, sum(l.messages) AS messages FROM outbox.loss l
    WHERE l.acknowledged_at IS NULL GROUP BY l.subscription_id
)
SELECT s.name, coalesce(w.workers, 0),
       CASE WHEN w.workers > 0 THEN 0
       ELSE (SELECT count(*) FROM outbox.cursor c WHERE c.subscription_id = s.id) END,
       (s.paused_at IS NOT NULL)::int, coalesce(n.messages, 0), s.max_backlog,
       (s.max_backlog IS NOT NULL AND s.overflow = 'reject-publish')::int
FROM outbox.subscription s
LEFT JOIN alive w ON w.subscription = s.name
LEFT JOIN lost n ON n.subscription_id = s.id
""",
    (
        Metric("outbox_subscription_workers", "Live workers that run it.", labels=_SUBSCRIPTION),
        Metric(
            "outbox_subscription_partitions_without_worker",
            "Its partitions, if no live worker runs it.",
            labels=_SUBSCRIPTION,
        ),
        Metric("outbox_subscription_paused", "1 while it is paused.", labels=_SUBSCRIPTION),
        Metric(
            "outbox_subscription_lost_messages",
            "Messages that expired before it took them, and nobody has acknowledged that.",
            labels=_SUBSCRIPTION,
        ),
        Metric(
            "outbox_subscription_backlog_limit_messages",
            "Its max_backlog; no series if it has none.",
            labels=_SUBSCRIPTION,
        ),
        Metric(
            "outbox_subscription_rejects_publishers",
            "1: when its backlog is full, publishes to its topics fail.",
            labels=_SUBSCRIPTION,
        ),
    ),
)

BACKLOG = Reading(
    "backlog",
    """
WITH behind AS MATERIALIZED (
    SELECT c.subscription_id, p.id AS partition_id, p.first_slot, p.last_slot, at."offset",
           greatest(outbox.log_end(p.sequence) - at."offset", 0) AS lag
    FROM outbox.cursor c
    JOIN outbox.partition p ON p.id = c.partition_id
    CROSS JOIN LATERAL (
        SELECT q."offset" FROM outbox.position q
        WHERE q.subscription_id = c.subscription_id AND q.partition_id = c.partition_id
        ORDER BY q."offset" DESC LIMIT 1
    ) AS at
), backlog AS (
    SELECT b.subscription_id, sum(b.lag) AS lag, sum(b."offset") AS taken, min(first.published_at) AS oldest
    FROM behind b
    LEFT JOIN LATERAL (
        SELECT m.published_at FROM outbox.message m
        WHERE b.lag > 0 AND m.slot BETWEEN b.first_slot AND b.last_slot
        AND m.partition_id = b.partition_id AND m."offset" > b."offset"
        ORDER BY m."offset" LIMIT 1
    ) AS first ON true
    GROUP BY b.subscription_id
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
)
SELECT s.name, coalesce(b.lag, 0), coalesce(b.taken, 0),
       coalesce(greatest(extract(epoch FROM clock_timestamp() - b.oldest), 0), 0),
       coalesce(greatest(extract(epoch FROM clock_timestamp() - least(b.oldest, l.oldest)), 0), 0),
       coalesce(l.messages, 0)
FROM outbox.subscription s
LEFT JOIN backlog b ON b.subscription_id = s.id
LEFT JOIN leased l ON l.subscription_id = s.id
""",
    (
        Metric(
            "outbox_subscription_lag_messages",
            "Offsets between its cursors and the ends of their partitions: the messages that it has not pulled, and "
            "the holes of transactions that rolled back.",
            labels=_SUBSCRIPTION,
        ),
        Metric(
            "outbox_subscription_taken_messages_total",
            "Offsets that its cursors have passed. It goes down when somebody seeks back.",
            "counter",
            _SUBSCRIPTION,
        ),
        Metric(
            "outbox_subscription_lag_seconds",
            "Age of the oldest message that it has not pulled; 0 if there is none.",
            labels=_SUBSCRIPTION,
        ),
        Metric(
            "outbox_subscription_oldest_unsettled_seconds",
            "Age of its oldest message that is waiting for its first try, or in it; 0 if there is none.",
            labels=_SUBSCRIPTION,
        ),
        Metric("outbox_subscription_in_flight_messages", "Messages in workers' hands.", labels=_SUBSCRIPTION),
    ),
)

REDELIVERIES = Reading(
    "redeliveries",
    """
SELECT s.name, count(r.due_at), count(r.due_at) FILTER (WHERE r.due_at <= clock_timestamp()),
       coalesce(greatest(extract(epoch FROM clock_timestamp()
                                            - min(r.due_at) FILTER (WHERE r.due_at <= clock_timestamp())), 0), 0)
FROM outbox.subscription s
LEFT JOIN outbox.redelivery r ON r.subscription_id = s.id AND r.lease_id IS NULL
GROUP BY s.id
""",
    (
        Metric("outbox_subscription_redeliveries", "Messages that wait for another try.", labels=_SUBSCRIPTION),
        Metric(
            "outbox_subscription_redeliveries_due",
            "Of these, those whose time has come.",
            labels=_SUBSCRIPTION,
        ),
        Metric(
            "outbox_subscription_redelivery_overdue_seconds",
            "For how long the first of these has been due; 0 if none is.",
            labels=_SUBSCRIPTION,
        ),
    ),
)

DEAD_LETTERS = Reading(
    "dead_letters",
    """
SELECT s.name, count(d.died_at), coalesce(extract(epoch FROM max(d.died_at)), 0)
FROM outbox.subscription s LEFT JOIN outbox.dead_letter d ON d.subscription_id = s.id
GROUP BY s.id
""",
    (
        Metric("outbox_subscription_dead_letters", "Dead letters that are kept.", labels=_SUBSCRIPTION),
        Metric(
            "outbox_subscription_last_dead_letter_timestamp_seconds",
            "When the newest of them died, since 1970; 0 if there is none.",
            labels=_SUBSCRIPTION,
        ),
    ),
)

TOPICS = Reading(
    "topics",
    """
WITH ended AS (
    SELECT t.id, t.name, sum(p.ended) AS offsets, max(p.ended) AS longest FROM outbox.topic t
    JOIN (SELECT q.topic_id, outbox.log_end(q.sequence) AS ended FROM outbox.partition q) AS p ON p.topic_id = t.id
    GROUP BY t.id
), named AS (
    SELECT e.*, row_number() OVER (ORDER BY e.id) <= %(topics)s AS named FROM ended e
)
SELECT CASE WHEN n.named THEN n.name ELSE 'other' END, sum(n.offsets), max(n.longest) / 9223372036854775807.0
FROM named n GROUP BY 1
""",
    (
        Metric(
            "outbox_topic_published_messages_total",
            "Offsets drawn: messages, and the holes of transactions that rolled back. The topics that were declared "
            "after the first --topics are together `other`.",
            "counter",
            ("topic",),
        ),
        Metric(
            "outbox_topic_offsets_used_ratio",
            "How far the offsets of its longest partition are used up: 0 to 1.",
            labels=("topic",),
        ),
    ),
    limited=True,
)

_SLOT = ("retention", "slot")

SLOTS = Reading(
    "slots",
    """
SELECT r.name, s::text, pg_total_relation_size(c.oid), coalesce(t.n_live_tup, 0)
FROM outbox.retention r
CROSS JOIN LATERAL generate_series(r.first_slot, r.first_slot + r.slots - 1) AS s
JOIN pg_class c ON c.oid = to_regclass(format('outbox.message_%s', s))
LEFT JOIN pg_stat_user_tables t ON t.relid = c.oid
""",
    (
        Metric("outbox_slot_bytes", "Size of a slot of the log, with its indexes.", labels=_SLOT),
        Metric("outbox_slot_rows", "Its rows, as Postgres estimates them.", labels=_SLOT),
    ),
)

_HOLDER = ("retention", "slot", "holder", "subscription")

ROTATION = Reading(
    "rotation",
    """
SELECT coalesce(d.class, d.log), d.slot::text,
       CASE WHEN d.held_by IS NULL THEN '' ELSE split_part(d.held_by, ' ', 1) END,
       coalesce(substring(d.held_by FROM '^subscription (.*) (?:stands at|has not yet taken) '), ''),
       (d.held_by IS NOT NULL)::int, greatest(extract(epoch FROM clock_timestamp() - d.due_at), 0)
FROM outbox.slots_due() d
""",
    (
        Metric(
            "outbox_rotation_blocked",
            "1: the slot's time is over, and a `holder` (subscription, or lease) still needs messages of it.",
            labels=_HOLDER,
        ),
        Metric("outbox_rotation_overdue_seconds", "For how long the slot's time has been over.", labels=_HOLDER),
    ),
)

TABLES = Reading(
    "tables",
    r"""
SELECT regexp_replace(t.relname, '_[0-9]+$', ''), sum(t.n_dead_tup), sum(pg_total_relation_size(t.relid))
FROM pg_stat_user_tables t WHERE t.schemaname = 'outbox' GROUP BY 1
""",
    (
        Metric("outbox_table_dead_rows", "Rows that vacuum has yet to remove.", labels=_TABLE),
        Metric("outbox_table_bytes", "Size of a table, with its indexes; that of all its slots.", labels=_TABLE),
    ),
)

SERVER = Reading(
    "server",
    """
SELECT (SELECT count(id) FROM outbox.scheduled),
       (SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(d.due_at)), 0), 0) FROM outbox.scheduled d),
       (SELECT count(*) FROM outbox.worker w WHERE w.alive_until > clock_timestamp() AND w.retired_at IS NULL),
       (SELECT max(outbox.log_end(q.seqrelid)::float8 / q.seqmax)
        FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid
        WHERE c.relnamespace = 'outbox'::regnamespace AND c.relname !~ '^partition_[0-9]+_offset$'),
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
    (
        Metric("outbox_scheduled_messages", "Messages to come, that were published for later."),
        Metric(
            "outbox_scheduled_overdue_seconds",
            "For how long the first of them has been due: nobody publishes it, or it can't be published; 0 if none is.",
        ),
        Metric("outbox_workers_alive", "Workers whose heartbeat is not overdue."),
        Metric(
            "outbox_ids_used_ratio",
            "How far the fullest sequence of ids is used up: 0 to 1.",
        ),
        Metric("outbox_oldest_transaction_with_xid_seconds", "Age of the oldest open transaction that writes."),
        Metric("outbox_oldest_transaction_without_xid_seconds", "Age of the oldest open transaction that only reads."),
        Metric("outbox_prepared_transactions", "Prepared transactions of this database."),
        Metric("outbox_oldest_prepared_transaction_seconds", "Age of the oldest of these."),
        Metric("outbox_notification_queue_used_ratio", "How full the server's queue of notifications is: 0 to 1."),
        Metric("outbox_wal_bytes_total", "Write-ahead log that the server has written.", "counter"),
    ),
)

_ACTOR = ("queue", "actor")

ACTORS = Reading(
    "actors",
    "SELECT queue_name, actor, waiting, retrying, in_flight, delayed, dead FROM outbox.actors()",
    (
        Metric(
            "outbox_actor_waiting_messages",
            "Of dramatiq's actor, for their first try; 10,000 a priority at most.",
            labels=_ACTOR,
        ),
        Metric("outbox_actor_retrying_messages", "Given back by a worker, or left by one that died.", labels=_ACTOR),
        Metric("outbox_actor_in_flight_messages", "In workers' hands.", labels=_ACTOR),
        Metric(
            "outbox_actor_delayed_messages",
            "To be delivered later: sent with a delay, or to be retried.",
            labels=_ACTOR,
        ),
        Metric("outbox_actor_dead_letters", "Dead letters that are kept.", labels=_ACTOR),
    ),
)

READINGS = (SUBSCRIPTIONS, BACKLOG, REDELIVERIES, DEAD_LETTERS, TOPICS, ACTORS, SLOTS, ROTATION, TABLES, SERVER)

UP = Metric("outbox_up", "1: the database answers, and has our schema.")
READING_UP = Metric(
    "outbox_reading_up",
    "1: this statement of the exporter succeeded; 0: a permission, or a time limit.",
    labels=("reading",),
)
READING_AGE = Metric(
    "outbox_reading_age_seconds",
    "How old what it read is: a statement is run no more often than its --share of the time allows.",
    labels=("reading",),
)
OUTDATED = Metric("outbox_schema_outdated", "1: the schema is older than this package needs: run `outbox migrate`.")
SCHEMA = Metric(
    "outbox_schema_info",
    "The schema's version in the database, and the one that this package wants.",
    labels=("installed", "wanted"),
)
BUILD = Metric("outbox_build_info", "The version of the package that exports.", labels=("version",))

#: What the exporter says of itself, beside what it reads.
OWN = (UP, READING_UP, READING_AGE, OUTDATED, SCHEMA, BUILD)

#: All that it shows.
DATABASE = (*OWN, *(metric for reading in READINGS for metric in reading.metrics))
