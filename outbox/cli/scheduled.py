"""`outbox scheduled`: list, show, cancel and edit messages to come."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from outbox import scheduled
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json, run, usage
from outbox.cli.times import moment

app = typer.Typer(
    help="Look at messages that are to be published later, change them, call them off.", no_args_is_help=True
)

Id = Annotated[int, typer.Argument(help="As `outbox scheduled list` shows it.")]


@app.command("list")
def list_(
    database_url: DatabaseUrl,
    topic: Annotated[str | None, typer.Argument(help="Only of this topic.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    json: Json = False,
) -> None:
    """List messages to come, the next first."""
    found = run(scheduled.next_ones(topic, limit), database_url)
    if json:
        print_json(found)
        return
    if not found:
        console.print("nothing is to come")
        return
    table = Table(header_style="dim")
    for column in ("id", "topic", "due at", "key", "schedule", "failed", "last error"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=8 if column == "id" else None)
    for one in found:
        texts = (one.id, one.topic, f"{one.due_at:%Y-%m-%d %H:%M:%S %Z}", one.key or "", one.schedule or "")
        failed = f"{one.attempts} times" if one.attempts else ""
        table.add_row(*(Text(str(text)) for text in (*texts, failed, (one.error or "")[:100])))
    console.print(table)


@app.command()
def show(database_url: DatabaseUrl, id: Id, json: Json = False) -> None:
    """Show a message to come whole: payload, headers, why it could not be published. Exit code 1 if there is none."""
    found = run(scheduled.find(id), database_url)
    if found is None:
        raise _gone(id)
    if json:
        print_json(found)
        return
    for name in (
        "id",
        "topic",
        "due_at",
        "priority",
        "key",
        "idempotency_key",
        "schedule",
        "created_at",
        "attempts",
        "error",
    ):
        console.print(Text(f"{name.replace('_', ' '):>15}  {getattr(found, name)}"))
    console.print(Text(f"{'headers':>15}  {found.headers}"))
    console.print(Text(f"{'payload':>15}  {msgspec.json.encode(found.payload).decode()}"))


@app.command()
def cancel(database_url: DatabaseUrl, id: Id) -> None:
    """Call a message off. Exit code 1 if it was published already."""
    if not run(scheduled.cancel(id), database_url):
        raise _gone(id)
    typer.echo(f"cancelled: {id}")


@app.command()
def edit(
    database_url: DatabaseUrl,
    id: Id,
    at: Annotated[str | None, typer.Option(help="Publish it then: 2026-12-24T18:00+01:00")] = None,
    payload: Annotated[str | None, typer.Option(help="JSON text.")] = None,
    key: Annotated[str | None, typer.Option(help="Another key.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="The higher is delivered first.")] = None,
) -> None:
    """Change what is named of a message to come. Exit code 1 if it was published already."""
    if (at, payload, key, priority) == (None,) * 4:
        raise usage("say what to change: --at, --payload, --key or --priority")
    if payload is not None:
        _check_json(payload)
    change = scheduled.edit(id, None if at is None else moment(at), payload, key, None, priority)
    if not run(change, database_url):
        raise _gone(id)
    typer.echo(f"changed: {id}")


def _check_json(payload: str) -> None:
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise usage(f"the payload is not JSON ({error}): a text needs double quotes inside the shell's") from error


def _gone(id: int) -> typer.Exit:
    """Say that it is not there any more; raise the result."""
    complain(f"there is no message {id} to come: it was published, or cancelled")
    return typer.Exit(1)
