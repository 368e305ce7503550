"""Capture: the changes of a table are published by triggers, for applications that can't be changed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from outbox.operations import Operation, Statement

Change = Literal["insert", "update", "delete", "truncate"]

ALL: tuple[Change, ...] = ("insert", "update", "delete", "truncate")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes of a table are to be published, and how."""

    #: As SQL names it: orders, shop.orders, "Order Items".
    table: str
    operations: tuple[Change, ...] = ALL
    #: What messages show, beside the key; None: all columns that there are, and will be.
    columns: list[str] | None = None
    #: None: changes.SCHEMA.TABLE.
    topic: str | None = None
    #: The columns that are the key; None: the primary key; []: messages have none.
    key: list[str] | None = None


class Capture(Wanted, frozen=True, kw_only=True):
    """A capture as it stands in the database."""

    topic: str
    created_at: datetime


_ARGUMENTS = "CAST(%s AS regclass), CAST(%s AS text[]), CAST(%s AS text[]), CAST(%s AS text), CAST(%s AS text[])"


def install(wanted: Wanted) -> Operation[str]:
    """Publish the changes of a table from the caller's commit on; returns the topic. Again: changes how.

    Needs the privilege TRIGGER on the table; waits two seconds at most for those who write to it.
    """
    rows = yield Statement(f"SELECT outbox.capture({_ARGUMENTS})", _arguments(wanted))
    return str(rows[0][0])


def statements(wanted: Wanted) -> Operation[list[str]]:
    """What `install` would do to the table, as SQL; checks it, and changes nothing."""
    rows = yield Statement(f"SELECT * FROM outbox.capture_statements({_ARGUMENTS})", _arguments(wanted))
    return [statement for (statement,) in rows]


def remove(table: str) -> Operation[bool]:
    """Publish no more changes of a table, from the caller's commit on; False: none were. Needs the table's owner."""
    rows = yield Statement("SELECT outbox.uncapture(CAST(%s AS regclass))", (table,))
    return bool(rows[0][0])


def every_one() -> Operation[list[Capture]]:
    """All captures, by table; those of tables that were dropped are left out."""
    rows = yield Statement(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(t.relname), c.topic, c.operations, c.columns, c.key, "
        "c.created_at FROM outbox.capture c "
        'JOIN pg_class t ON t.oid = c."table" JOIN pg_namespace n ON n.oid = t.relnamespace '
        "ORDER BY n.nspname, t.relname"
    )
    return [
        Capture(table=table, topic=topic, operations=tuple(operations), columns=columns, key=key, created_at=at)
        for table, topic, operations, columns, key, at in rows
    ]


def row_triggers(table: str) -> Operation[list[str]]:
    """The table's own AFTER triggers for each row: should one change the table, that is published first."""
    rows = yield Statement(
        "SELECT t.tgname FROM pg_trigger t WHERE t.tgrelid = CAST(%s AS regclass) AND NOT t.tgisinternal "
        "AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0 ORDER BY t.tgname",
        (table,),
    )
    return [name for (name,) in rows]


def _arguments(wanted: Wanted) -> tuple[object, ...]:
    return wanted.table, list(wanted.operations), wanted.columns, wanted.topic, wanted.key
