"""What replication does to our tables: rows that are applied elsewhere, and rows that can't be vacuumed."""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, critical, warning
from outbox.operations import Operation, Statement

#: Transactions that an active slot may be behind.
_BEHIND = 1_000_000


def _publications(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_PUBLICATIONS)
    return [
        warning(
            "publication",
            f"the publication {name} sends {count} tables of the schema outbox ({tables}): what a subscriber "
            "applies did not go "
            "through outbox.publish(), and its xids and offsets mean nothing there",
            f"`ALTER PUBLICATION {name} DROP TABLE {named}`"
            if named
            else "leave the schema outbox out of it; run no worker where it is applied",
            publication=name,
            tables=count,
        )
        for name, count, tables, named in rows
    ]


def _subscribed(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_SUBSCRIBED)
    return [
        critical(
            "replicated-table",
            f"the logical replication subscription {name} writes into {count} tables of the schema outbox "
            f"({tables}): those rows "
            "did not go through outbox.publish(), and cursors can pass them by",
            "leave these tables out of its publication, and `ALTER SUBSCRIPTION … REFRESH PUBLICATION`",
            subscription=name,
            tables=count,
        )
        for name, count, tables in rows
    ]


def _slots(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_SLOTS, (_BEHIND,))
    return [
        warning(
            "replication-slot",
            f"the {'' if active else 'inactive '}replication slot {name} holds back {what}, {xids} transactions by now",
            "let its consumer catch up"
            if active
            else f"start its consumer, or `SELECT pg_drop_replication_slot({literal})`",
            slot=name,
            active=active,
            xids=xids,
        )
        for name, literal, active, xids, what in rows
    ]


#: "named": those that the publication names one by one.
_PUBLICATIONS = """
SELECT quote_ident(t.pubname), count(*),
       min(t.schemaname || '.' || t.tablename) || CASE count(*) WHEN 1 THEN '' ELSE ', …' END,
       (SELECT string_agg(r.prrelid::regclass::text, ', ' ORDER BY r.prrelid::regclass::text)
        FROM pg_publication_rel r
        JOIN pg_publication p ON p.oid = r.prpubid
        JOIN pg_class c ON c.oid = r.prrelid
        WHERE p.pubname = t.pubname AND c.relnamespace = 'outbox'::regnamespace)
FROM pg_publication_tables t
WHERE t.schemaname = 'outbox'
GROUP BY t.pubname ORDER BY t.pubname
"""

_SUBSCRIBED = """
SELECT quote_ident(s.subname), count(*), min(r.srrelid::regclass::text) || CASE count(*) WHEN 1 THEN '' ELSE ', …' END
FROM pg_subscription_rel r
JOIN pg_subscription s ON s.oid = r.srsubid
JOIN pg_class c ON c.oid = r.srrelid
WHERE c.relnamespace = 'outbox'::regnamespace
GROUP BY s.subname ORDER BY s.subname
"""

#: A slot's xmin holds back all tables of the cluster, its catalog_xmin the catalogs.
_SLOTS = """
SELECT s.slot_name, quote_literal(s.slot_name), s.active, greatest(age(s.xmin), age(s.catalog_xmin)),
       CASE WHEN s.xmin IS NULL THEN 'the vacuum of catalogs, and WAL' ELSE 'the vacuum of all tables' END
FROM pg_replication_slots s
WHERE (s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL)
  AND (NOT s.active OR greatest(age(s.xmin), age(s.catalog_xmin)) > %s)
ORDER BY 4 DESC
"""

CHECKS = (
    Check("publication", "no publication sends our tables", _publications),
    Check("replicated-table", "no replication writes into our tables", _subscribed),
    Check("replication-slot", "no replication slot holds rows back", _slots),
)
