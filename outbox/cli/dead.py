"""`outbox dead`: list, group, show, redrive and purge dead letters."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox import dead_letters
from outbox.cli.letters import (
    After,
    Before,
    ErrorClass,
    ErrorText,
    Key,
    Place,
    Reason,
    Topic,
    chosen_by,
    parse,
    per_second,
    print_groups,
    print_letter,
    print_list,
)
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json, run, usage
from outbox.dead_letters import ALL, Filter
from outbox.model import MessageId

app = typer.Typer(
    help="Look at messages that were given up on, give them another life, or throw them away.", no_args_is_help=True
)

Subscription = Annotated[str, typer.Argument(help="The subscription that gave up on them.")]
OneOrAll = Annotated[str | None, typer.Argument(metavar="[SUBSCRIPTION]", help="Only of this subscription.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As `outbox dead list` shows them: 3-1042")]
All = Annotated[bool, typer.Option("--all", help="All dead letters of the subscription.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")]


@app.command("list")
def list_(
    database_url: DatabaseUrl,
    subscription: OneOrAll = None,
    error_class: ErrorClass = None,
    place: Place = None,
    reason: Reason = None,
    key: Key = None,
    topic: Topic = None,
    before: Before = None,
    after: After = None,
    text: ErrorText = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    json: Json = False,
) -> None:
    """List dead letters, newest first."""
    filter = chosen_by(error_class, place, reason, key, topic, before, after, text)
    letters = run(dead_letters.newest(subscription, limit, filter), database_url)
    if json:
        print_json(letters)
    elif letters:
        print_list(letters)
    else:
        console.print("no dead letters")


@app.command()
def groups(database_url: DatabaseUrl, subscription: OneOrAll = None, json: Json = False) -> None:
    """Show what they died of: how many of each class of error, raised at each place, the most frequent first."""
    found = run(dead_letters.groups(subscription), database_url)
    if json:
        print_json(found)
    elif found:
        print_groups(found)
    else:
        console.print("no dead letters")


@app.command()
def show(
    database_url: DatabaseUrl,
    id: Annotated[str, typer.Argument(help="As `outbox dead list` shows it: 3-1042")],
    json: Json = False,
) -> None:
    """Show a dead letter whole: payload, headers, and the history of its errors. Exit code 1 if there is none."""
    letters = run(dead_letters.find(parse([id])[0]), database_url)
    if not letters:
        complain(f"there is no dead letter {id}: `outbox dead list` shows those that there are")
        raise typer.Exit(1)
    if json:
        print_json(letters)
        return
    for letter in letters:
        print_letter(letter)


@app.command()
def redrive(
    database_url: DatabaseUrl,
    subscription: Subscription,
    ids: Ids = None,
    all: All = False,
    error_class: ErrorClass = None,
    place: Place = None,
    reason: Reason = None,
    key: Key = None,
    topic: Topic = None,
    before: Before = None,
    after: After = None,
    text: ErrorText = None,
    rate: Annotated[str | None, typer.Option(help="How fast they are due: 100/s, 30/m, 5/h. Default: at once.")] = None,
    payload: Annotated[str | None, typer.Option(help="JSON to replace the payload of a single one with.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Make dead letters due again, their attempts counted from 1; their history stays."""
    filter = chosen_by(error_class, place, reason, key, topic, before, after, text)
    chosen = _chosen(ids, all, filter)
    speed = per_second(rate)
    if payload is not None and (chosen is None or len(chosen) != 1):
        raise usage("--payload is for one dead letter: name its id")
    if dry_run:
        count = _count(subscription, chosen, filter, database_url)
        typer.echo(f"would be redriven: {count}" + (f", over {max(count - 1, 0) / speed:.0f} s" if speed else ""))
        return
    _report("redriven", run(dead_letters.redrive(subscription, chosen, filter, speed, payload), database_url), ids)


@app.command()
def purge(
    database_url: DatabaseUrl,
    subscription: Subscription,
    ids: Ids = None,
    all: All = False,
    error_class: ErrorClass = None,
    place: Place = None,
    reason: Reason = None,
    key: Key = None,
    topic: Topic = None,
    before: Before = None,
    after: After = None,
    text: ErrorText = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete dead letters for good."""
    filter = chosen_by(error_class, place, reason, key, topic, before, after, text)
    chosen = _chosen(ids, all, filter)
    if dry_run:
        typer.echo(f"would be purged: {_count(subscription, chosen, filter, database_url)}")
        return
    if not yes:
        which = len(chosen) if chosen else "all" if filter == ALL else "all those"
        typer.confirm(f"delete {which} dead letter(s) of {subscription!r}?", abort=True)
    _report("purged", run(dead_letters.purge(subscription, chosen, filter), database_url), ids)


def _chosen(ids: list[str] | None, all: bool, filter: Filter) -> list[MessageId] | None:
    """The ids, or None for a filter or all; one of the three must be said."""
    if (bool(ids), all, filter != ALL).count(True) != 1:
        raise usage("name the ids, or say --all, or which: --class, --place, --reason, --key, --topic, --text, …")
    return parse(ids) if ids else None


def _count(subscription: str, chosen: list[MessageId] | None, filter: Filter, database_url: str) -> int:
    if chosen is None:
        return run(dead_letters.count(subscription, filter), database_url)
    found = (run(dead_letters.find(id), database_url) for id in set(chosen))
    return sum(letter.subscription == subscription for letters in found for letter in letters)


def _report(what: str, count: int, ids: list[str] | None) -> None:
    """Exit code 1 if not all of the named ones were there."""
    typer.echo(f"{what}: {count}")
    if ids and count < len(set(ids)):
        complain(f"{len(set(ids)) - count} of them were not there")
        raise typer.Exit(1)
