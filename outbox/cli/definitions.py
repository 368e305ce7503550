"""`outbox apply` and `outbox export`: definitions to the database, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import psycopg
import typer

from outbox import definitions
from outbox.cli.importing import find
from outbox.cli.options import DatabaseUrl, Json, complain, print_json, usage
from outbox.database import libpq_url
from outbox.definitions import Definitions, Plan


def apply(
    source: Annotated[
        str, typer.Argument(metavar="FILE|MODULE:NAME", help="TOML, YAML, or a Definitions, as in shop.bus:everything")
    ],
    database_url: DatabaseUrl,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only show what would be changed.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Like --dry-run; exit code 1 if anything would be changed.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove subscriptions and bindings that are not in the file.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --prune: even with live workers, or dead letters.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring topics and subscriptions to what a file defines, in one transaction.

    Applied again, it changes nothing. What the file does not name is left alone.
    """
    if force and not prune:
        raise usage("--force goes with --prune")
    wanted = _load(source)
    # at READ COMMITTED, whatever the database's default is
    with psycopg.connect(libpq_url(database_url), application_name="outbox") as connection:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        plan = definitions.plan(connection, wanted, prune=prune, force=force)
        if not (plan.problems or dry_run or check):
            connection.rollback()
            plan = definitions.apply(connection, wanted, prune=prune, force=force)
    _show(plan, json)
    if plan.problems:
        complain(f"nothing was changed: {'; '.join(plan.problems)}")
    if plan.problems or (check and plan.pending):
        raise typer.Exit(1)


def export(
    database_url: DatabaseUrl,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; default: print it.")] = None,
    format: Annotated[
        Literal["toml", "yaml"] | None, typer.Option(help="By default as the file's name says, or toml.")
    ] = None,
) -> None:
    """Write the topics and subscriptions of a database as definitions."""
    with psycopg.connect(libpq_url(database_url), autocommit=True, application_name="outbox") as connection:
        found = definitions.export(connection)
    is_yaml = output is not None and output.suffix.lower() in (".yaml", ".yml")
    text = definitions.text(found, format or ("yaml" if is_yaml else "toml"))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _load(source: str) -> Definitions:
    """From a file, or MODULE:NAME if there is no such file."""
    if os.path.exists(source) or ":" not in source:
        return definitions.read(source)
    found = find(source, "a Definitions, as in shop.bus:everything")
    if not isinstance(found, Definitions):
        what = "missing" if found is None else f"a {type(found).__name__}"
        raise usage(f"{source!r} is {what}, not an outbox.definitions.Definitions")
    return found


def _show(plan: Plan, json: bool) -> None:
    if not json:
        typer.echo(str(plan))
        return
    fields = ("section", "name", "action", "lines", "extra", "problem")
    print_json([{field: getattr(change, field) for field in fields} for change in plan.changes])
