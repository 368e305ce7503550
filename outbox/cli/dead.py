"""`outbox dead`: list, show, redrive and purge dead letters."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from outbox import dead_letters
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json, run, usage
from outbox.dead_letters import DeadLetter
from outbox.model import MessageId

app = typer.Typer(
    help="Look at messages that were given up on, give them another life, or throw them away.", no_args_is_help=True
)

Subscription = Annotated[str, typer.Argument(help="The subscription that gave up on them.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `outbox dead list` shows them: 3-1042")]
All = Annotated[bool, typer.Option("--all", help="All dead letters of the subscription.")]


@app.command("list")
def list_(
    database_url: DatabaseUrl,
    subscription: Annotated[str | None, typer.Argument(help="Only of this subscription.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    json: Json = False,
) -> None:
    """List dead letters, newest first."""
    letters = run(dead_letters.newest(subscription, limit), database_url)
    if json:
        print_json(letters)
        return
    if not letters:
        console.print("no dead letters")
        return
    table = Table(header_style="dim")
    for column in ("id", "subscription", "topic", "key", "reason", "attempts", "died at", "last error"):
        table.add_column(
            column, no_wrap=True, overflow="ellipsis", min_width=8 if column in ("id", "last error") else None
        )
    for one in letters:
        table.add_row(
            *(
                Text(str(value))
                for value in (one.id, one.subscription, one.topic, one.key or "", one.reason, one.attempts)
            ),
            f"{one.died_at:%Y-%m-%d %H:%M:%S}",
            Text(_last_error(one)),
        )
    console.print(table)


@app.command()
def show(
    database_url: DatabaseUrl,
    id: Annotated[str, typer.Argument(help="As `outbox dead list` shows it: 3-1042")],
    json: Json = False,
) -> None:
    """Show a dead letter whole: payload, headers, and the history of its errors. Exit code 1 if there is none."""
    letters = run(dead_letters.find(_parse([id])[0]), database_url)
    if not letters:
        complain(f"there is no dead letter {id}: `outbox dead list` shows those that there are")
        raise typer.Exit(1)
    if json:
        print_json(letters)
        return
    for letter in letters:
        _show(letter)


@app.command()
def redrive(database_url: DatabaseUrl, subscription: Subscription, ids: Ids = None, all: All = False) -> None:
    """Make dead letters due again, their attempts counted from 1; their history stays."""
    redriven = run(dead_letters.redrive(subscription, _chosen(ids, all)), database_url)
    _report("redriven", redriven, ids)


@app.command()
def purge(
    database_url: DatabaseUrl,
    subscription: Subscription,
    ids: Ids = None,
    all: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete dead letters for good."""
    chosen = _chosen(ids, all)
    if not yes:
        typer.confirm(
            f"delete {'all' if chosen is None else len(chosen)} dead letter(s) of {subscription!r}?", abort=True
        )
    _report("purged", run(dead_letters.purge(subscription, chosen), database_url), ids)


def _chosen(ids: list[str] | None, all: bool) -> list[MessageId] | None:
    """The ids, or None for all; one of the two must be said."""
    if bool(ids) == all:
        raise usage("name the ids, or say --all")
    return None if all else _parse(ids or [])


def _parse(ids: list[str]) -> list[MessageId]:
    try:
        return [MessageId.parse(id) for id in ids]
    except ValueError as error:
        raise usage(str(error)) from error


def _report(what: str, count: int, ids: list[str] | None) -> None:
    """Exit code 1 if not all of the named ones were there."""
    typer.echo(f"{what}: {count}")
    if ids and count < len(set(ids)):
        complain(f"{len(set(ids)) - count} of them were not there")
        raise typer.Exit(1)


def _last_error(letter: DeadLetter) -> str:
    last = letter.errors[-1] if letter.errors else {}
    return f"{last.get('class', '')}: {last.get('text', '')}".splitlines()[0][:100] if last else ""


def _show(letter: DeadLetter) -> None:
    for name in ("id", "subscription", "topic", "key", "reason", "attempts", "published_at", "died_at"):
        console.print(Text(f"{name.replace('_', ' '):>14}  {getattr(letter, name)}"))
    console.print(Text(f"{'headers':>14}  {letter.headers}"))
    console.print(Text(f"{'payload':>14}  {msgspec.json.encode(letter.payload).decode()}"))
    before = None
    for error in letter.errors:
        where = f"attempt {error.get('attempt')} at {error.get('at')}, worker {error.get('worker')}"
        console.print(Text(f"\n{where}\n{error.get('class')}: {error.get('text')}", style="bold"))
        trace = error.get("traceback", "")
        console.print(Text("(the same traceback)" if trace and trace == before else trace))
        before = trace
