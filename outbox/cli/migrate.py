"""`outbox migrate`: add our tables to a database, bring them up to date, or look whether they are."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy
import typer

from outbox import operations, schema
from outbox.cli.options import DatabaseUrl, run, usage
from outbox.database import sqlalchemy_url
from outbox.errors import SchemaOutdated
from outbox.version import SCHEMA_VERSION


def migrate(
    database_url: DatabaseUrl = "",
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is missing; exit code 1 if something is.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL instead of running it.")] = False,
    to: Annotated[str, typer.Option(help="The version to go to; 'base' removes all that is ours.")] = "head",
    since: Annotated[str | None, typer.Option("--from", help="With --sql: the version to start from.")] = None,
    inbox: Annotated[
        bool, typer.Option("--inbox", help="Only what outbox.once() needs, in a database that has no outbox.")
    ] = False,
    roles: Annotated[
        bool, typer.Option("--roles", help="Also create the roles outbox_publisher, _worker, _monitor and _admin.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --to base: don't ask.")] = False,
) -> None:
    """Add outbox's tables to a database, or bring them up to date.

    They are all in the schema [bold]outbox[/]; nothing else is touched. In your own Alembic history, call
    [bold]outbox.schema.upgrade()[/] in a revision instead.
    """
    if sql and check:
        raise usage("--sql and --check: one of them")
    if inbox and (check or roles or to != "head"):
        raise usage("--inbox goes with --sql or nothing else")
    if roles and (sql or check or to != "head"):
        raise usage("--roles goes with a migration to head; in SQL it is SELECT outbox.grant_roles(true)")
    if since is not None and not sql:
        raise usage("--from goes with --sql: a database knows which version it is at")
    if sql and inbox:
        typer.echo(schema.inbox_sql())
        return
    if sql:
        typer.echo(schema.sql(to, since or "base"))
        return
    if not database_url:
        raise usage("which database? Give --database-url or set OUTBOX_DATABASE_URL")
    if check:
        _check(database_url)
        return
    if to == "base" and not yes:
        typer.confirm("remove the schema outbox with all its messages?", abort=True)
    engine = sqlalchemy.create_engine(sqlalchemy_url(database_url), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        if inbox:
            schema.install_inbox(connection)
            typer.echo("the inbox is there: outbox.once() can be called in this database")
            return
        schema.migrate(connection, to)
        if roles:
            typer.echo(f"roles that can be granted: {', '.join(schema.create_roles(connection))}")
    typer.echo("the schema outbox is gone" if to == "base" else f"the schema outbox is at version {SCHEMA_VERSION}")


def _check(database_url: str) -> None:
    try:
        run(operations.check_schema(), database_url, check_schema=False)
    except SchemaOutdated as error:
        typer.echo(str(error))
        raise typer.Exit(1) from error
    typer.echo(f"the schema outbox is at version {SCHEMA_VERSION}: nothing is missing")
