"""`outbox retention`: for how long messages are kept, how large that is, who holds it up, and who lost something."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.table import Table

from outbox import duration, retention
from outbox.cli import times
from outbox.cli.options import DatabaseUrl, Json, console, print_json, run, usage
from outbox.retention import Loss, RetentionClass

app = typer.Typer(help="For how long messages are kept, how large that is, and who holds it up.", no_args_is_help=True)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@app.command("list")
def list_(database_url: DatabaseUrl, json: Json = False) -> None:
    """List the retention classes, and who keeps their slots from being emptied."""
    found = run(retention.classes(), database_url)
    if json:
        print_json(found)
        return
    table = Table(header_style="dim")
    for column in ("class", "keeps", "at most", "size", "slots", "topics", ""):
        table.add_column(column, no_wrap=column != "")
    for one in found:
        table.add_row(*_columns(one))
    console.print(table)
    for one in found:
        for holder in one.held_by:
            console.print(f"{one.name}, {holder}", markup=False, soft_wrap=True)


@app.command("set")
def set_(
    database_url: DatabaseUrl,
    name: Annotated[str, typer.Argument(metavar="CLASS", help="As `outbox retention list` shows it.")],
    keep: Annotated[str | None, typer.Option(help="How long, at least: 12h, 90d.")] = None,
    max_size: Annotated[str | None, typer.Option(help="How large, with indexes: 5GB; none: no limit.")] = None,
) -> None:
    """Change for how long a class keeps messages, and how large it may become. What is not named stays as it is.

    By size, the oldest messages go first, and never those that the slot holds that is written now.
    """
    if keep is None and max_size is None:
        raise usage("nothing to set: --keep, --max-size")
    asked = None if keep is None else times.duration(keep)
    changed = run(retention.set_class(name, asked, None if max_size is None else _bytes(max_size)), database_url)
    typer.echo(f"{name}: {'changed' if changed else 'nothing to change'}")


@app.command()
def lost(database_url: DatabaseUrl, json: Json = False) -> None:
    """List what subscriptions lost, since their backlog expires. Exit code 1 if there is something."""
    found = run(retention.losses(), database_url)
    if json:
        print_json(found)
    else:
        console.print(_losses(found) if found else "nothing was lost")
    if found:
        raise typer.Exit(1)


@app.command()
def acknowledge(
    database_url: DatabaseUrl, subscription: Annotated[str, typer.Argument(help="The subscription.")]
) -> None:
    """Take note of what a subscription lost: `lost`, `outbox status` and `outbox doctor` show it no more."""
    typer.echo(f"acknowledged: {run(retention.acknowledge(subscription), database_url)}")


def _columns(one: RetentionClass) -> tuple[str, ...]:
    return (
        one.name,
        duration.text(one.keep),
        "–" if one.max_bytes is None else _size(one.max_bytes),
        _size(one.bytes),
        f"{one.filled} of {one.slots}",
        f"{one.topics:,}",
        one.description,
    )


def _losses(found: list[Loss]) -> Table:
    table = Table(header_style="dim")
    for column in ("subscription", "topic", "partition", "offsets", "messages", "lost at"):
        table.add_column(column, no_wrap=True)
    for one in found:
        offsets = f"{one.first_offset} to {one.last_offset}"
        when = f"{one.lost_at.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(one.subscription, one.topic, str(one.partition_id), offsets, f"{one.messages:,}", when)
    return table


def _bytes(text: str) -> int:
    """5GB, 500 MB, a number of bytes, in powers of 1,024; "none" is 0: no limit."""
    if text == "none":
        return 0
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * 1024 ** _POWERS[found[2].lower()]) if found else 0
    if size <= 0:
        raise usage(f"{text!r} is not a size: 500MB, 5GB, a number of bytes, or none")
    return size


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 10_240:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:,.0f} TB"
