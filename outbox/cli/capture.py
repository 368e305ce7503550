"""`outbox capture`, `captures`, `uncapture`: publish the changes of tables whose application can't be changed."""

from __future__ import annotations

from typing import Annotated, get_args

import typer
from rich.table import Table
from rich.text import Text

from outbox import captures as captures_of
from outbox.captures import ALL, Capture, Change, Wanted
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json, run, usage

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="As SQL names it: orders, shop.orders.")]


def capture(
    database_url: DatabaseUrl,
    table: TableName,
    on: Annotated[str, typer.Option(help="Which changes.")] = ",".join(ALL),
    columns: Annotated[
        str | None, typer.Option(help="What messages show, beside the key: a,b; all columns by default.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Where they are published; changes.SCHEMA.TABLE by default.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The columns that are the key: a,b; the primary key by default.")
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Messages have no key, and so no order.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would be run, and stop.")] = False,
) -> None:
    """Publish the changes of a table from now on, by triggers, in the transactions that make them.

    Captured before, it is captured so from now on.
    """
    if key is not None and no_key:
        raise usage("either --key or --no-key")
    wanted = Wanted(
        table=table,
        operations=_operations(on),
        columns=_names(columns),
        topic=topic,
        key=[] if no_key else _names(key),
    )
    if dry_run:
        for statement in run(captures_of.statements(wanted), database_url):
            typer.echo(f"{statement};")
        return
    typer.echo(f"captured: {table}, published to {run(captures_of.install(wanted), database_url)}")
    if triggers := run(captures_of.row_triggers(table), database_url):
        complain(
            f"{table} has AFTER ROW triggers ({', '.join(triggers)}): if one changes {table} itself, what it does is "
            "published before the statement that fired it"
        )


def captures(database_url: DatabaseUrl, json: Json = False) -> None:
    """List the tables whose changes are published."""
    found = run(captures_of.every_one(), database_url)
    if json:
        print_json(found)
        return
    if not found:
        console.print("no captures")
        return
    table = Table(header_style="dim")
    for column in ("table", "topic", "operations", "columns", "key"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=8 if column == "table" else None)
    for one in found:
        table.add_row(*map(Text, _texts(one)))
    console.print(table)


def uncapture(database_url: DatabaseUrl, table: TableName) -> None:
    """Publish no more changes of a table. What was published stays."""
    removed = run(captures_of.remove(table), database_url)
    typer.echo(f"not captured any more: {table}" if removed else f"it was not captured: {table}")


def _texts(one: Capture) -> tuple[str, ...]:
    columns = "all" if one.columns is None else ", ".join(one.columns)
    key = "primary key" if one.key is None else ", ".join(one.key) or "none"
    return one.table, one.topic, ", ".join(one.operations), columns, key


def _operations(text: str) -> tuple[Change, ...]:
    names = _names(text) or []
    for name in names:
        if name not in get_args(Change):
            raise usage(f"{name!r} is no change: {', '.join(ALL)}")
    return tuple(change for change in ALL if change in names)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]
