"""`outbox backfill`: give a new subscription the rows that are there, and then the log."""

from __future__ import annotations

from typing import Annotated

import psycopg
import typer
from psycopg import IsolationLevel

from outbox import backfill as rows
from outbox import connection as connections
from outbox import operations
from outbox.cli.options import DatabaseUrl, usage
from outbox.database import libpq_url


def backfill(
    database_url: DatabaseUrl,
    subscription: Annotated[str, typer.Argument(help="A new one: it must not read the topic yet.")],
    topic: Annotated[str, typer.Argument(help="What it reads when it has read the rows.")],
    table: Annotated[str | None, typer.Option(help="All rows of a table, by their primary key.")] = None,
    query: Annotated[
        str | None, typer.Option(help="SELECT id AS key, to_json(o) AS payload FROM orders o WHERE …")
    ] = None,
) -> None:
    """Let a new subscription read the rows of a table, or of a query, and then the topic from that moment on.

    Rows and log are cut by one snapshot: no change is missed, and none comes twice. Applications go on meanwhile.
    """
    if (table is None) == (query is None):
        raise usage("give --table or --query")
    with psycopg.connect(libpq_url(database_url), application_name="outbox") as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connections.run(operations.check_schema(), connection)
        wanted = query or connections.run(rows.rows_of(table or ""), connection)
        found = connections.run(rows.backfill(subscription, topic, wanted), connection)
    typer.echo(f"{subscription} reads {found:,} rows, and then {topic}")
