"""Captures: are the changes of captured tables still published, and whole?"""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, critical, literal, warning
from outbox.operations import Operation, Statement


def _triggers(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_TRIGGERS)
    findings = []
    for table, operation, is_there, again in rows:
        state = "is disabled" if is_there else "is missing"
        mend = f"`ALTER TABLE {table} ENABLE TRIGGER outbox_capture_{operation}`" if is_there else f"`{again}`"
        findings.append(
            critical(
                "capture-trigger",
                f"the changes of {table} by {operation} are not published: trigger outbox_capture_{operation} {state}",
                f"{mend}; what was changed meanwhile was not published",
                table=table,
                operation=operation,
            )
        )
    return findings


def _columns(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_COLUMNS)
    return [
        warning(
            "capture-columns",
            f"columns of {table} that are to be published are gone: {', '.join(gone)}",
            f"capture it again with those that it has: `SELECT outbox.capture({literal(table)}, …)`",
            table=table,
            columns=gone,
        )
        for table, gone in rows
    ]


def _keys(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_KEYS)
    return [
        critical(
            "capture-key",
            f"writing to {table} fails: it is captured, and the key of its messages is gone",
            f"name one that it has: `SELECT outbox.capture({literal(table)}, …)`; or "
            f"`SELECT outbox.uncapture({literal(table)})`",
            table=table,
        )
        for (table,) in rows
    ]


#: Names as SQL has them; a table that was dropped is no captured one any more.
_CAPTURED = """
WITH captured AS (
    SELECT c.*, format('%%I.%%I', n.nspname, t.relname) AS name FROM outbox.capture c
    JOIN pg_class t ON t.oid = c."table" JOIN pg_namespace n ON n.oid = t.relnamespace
), present AS (
    SELECT a.attrelid, a.attname::text AS name FROM pg_attribute a WHERE a.attnum > 0 AND NOT a.attisdropped
)
"""

_TRIGGERS = f"""{_CAPTURED}
SELECT c.name, o.operation, t.oid IS NOT NULL,
       format('SELECT outbox.capture(%%L, %%L, %%L, %%L, %%L)', c.name, c.operations, c.columns, c.topic, c.key)
FROM captured c
CROSS JOIN LATERAL unnest(c.operations) AS o (operation)
LEFT JOIN pg_trigger t ON t.tgrelid = c."table" AND t.tgname = 'outbox_capture_' || o.operation
WHERE t.oid IS NULL OR t.tgenabled NOT IN ('O', 'A')
ORDER BY c.name, o.operation
"""

_COLUMNS = f"""{_CAPTURED}
SELECT c.name, array_agg(u.column ORDER BY u.column)
FROM captured c
CROSS JOIN LATERAL unnest(c.columns) AS u ("column")
WHERE NOT EXISTS (SELECT FROM present p WHERE p.attrelid = c."table" AND p.name = u.column)
GROUP BY c.name ORDER BY c.name
"""

_KEYS = f"""{_CAPTURED}
SELECT c.name
FROM captured c
WHERE CASE WHEN c.key IS NULL THEN NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c."table" AND i.indisprimary)
      ELSE EXISTS (SELECT FROM unnest(c.key) AS k (name) WHERE NOT EXISTS (
          SELECT FROM present p WHERE p.attrelid = c."table" AND p.name = k.name)) END
ORDER BY c.name
"""

CHECKS = (
    Check("capture-trigger", "the triggers of captured tables are there", _triggers),
    Check("capture-columns", "captured tables have the columns that are to be published", _columns),
    Check("capture-key", "captured tables have the key of their messages", _keys),
)
