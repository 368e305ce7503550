"""What a new reader gets first: the rows that are there, under the same snapshot as the beginning of the log."""

from __future__ import annotations

from outbox.errors import InvalidDeclaration
from outbox.operations import Operation, Statement

_KEY = """
SELECT format(
    'SELECT %%s AS key, to_json(t) AS payload FROM %%s AS t ORDER BY %%s',
    CASE WHEN count(*) = 1 THEN format('t.%%I::text', min(a.attname))
         ELSE format('json_build_array(%%s)::text', string_agg(format('t.%%I', a.attname), ', ' ORDER BY k.nth)) END,
    c.oid::regclass,
    string_agg(format('t.%%I', a.attname), ', ' ORDER BY k.nth))
FROM pg_class c
JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, nth)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE c.oid = to_regclass(%s)
GROUP BY c.oid
"""


def backfill(subscription: str, topic: str, query: str) -> Operation[int]:
    """Needs a REPEATABLE READ transaction that has written nothing; returns the number of rows."""
    rows = yield Statement(
        "SELECT outbox.backfill(CAST(%s AS text), CAST(%s AS text), CAST(%s AS text))", (subscription, topic, query)
    )
    return int(rows[0][0])


def rows_of(table: str) -> Operation[str]:
    """The query for a backfill by all rows of a table, each with its primary key as the key.

    Raises:
        InvalidDeclaration: there is no such table, or it has no primary key.
    """
    rows = yield Statement(_KEY, (table,))
    if not rows:
        raise InvalidDeclaration(
            f"there is no table {table!r} with a primary key: give a query with the columns key and payload instead"
        )
    return str(rows[0][0])
