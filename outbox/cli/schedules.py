"""`outbox schedules`: list, show, preview, pause, resume, run and delete what is published again and again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from outbox import schedules
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json, run
from outbox.schedules import ScheduleStatus

app = typer.Typer(help="Look after schedules: messages that are published again and again.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="As `outbox schedules list` shows it.")]


@app.command("list")
def list_(database_url: DatabaseUrl, json: Json = False) -> None:
    """List schedules, with their last tick and the next."""
    found = run(schedules.every_one(), database_url)
    if json:
        print_json(found)
        return
    if not found:
        console.print("no schedules")
        return
    table = Table(header_style="dim")
    for column in ("schedule", "when", "topic", "last", "next", "error"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=8 if column == "schedule" else None)
    for one in found:
        following = "paused" if one.paused_at else _time(one.next_at)
        texts = (one.name, _when(one), one.topic, _time(one.last_at), following, (one.error or "")[:100])
        table.add_row(*map(Text, texts))
    console.print(table)


@app.command()
def show(database_url: DatabaseUrl, name: Name, json: Json = False) -> None:
    """Show a schedule whole, with the message that it publishes."""
    found = run(schedules.find(name), database_url)
    if json:
        print_json(found)
        return
    console.print(Text(f"{'schedule':>10}  {found.name}\n{'when':>10}  {_when(found)}"))
    for field in (
        "missed",
        "paused_at",
        "last_at",
        "next_at",
        "waiting",
        "error",
        "topic",
        "priority",
        "key",
        "headers",
    ):
        console.print(Text(f"{field.replace('_', ' '):>10}  {getattr(found, field)}"))
    console.print(Text(f"{'payload':>10}  {msgspec.json.encode(found.payload).decode()}"))


@app.command()
def preview(
    database_url: DatabaseUrl,
    name: Name,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=1000, help="How many.")] = 5,
    json: Json = False,
) -> None:
    """Print the next ticks, in the schedule's time zone."""
    found = run(schedules.preview(name, number), database_url)
    if json:
        print_json(found)
        return
    for tick in found:
        typer.echo(f"{tick:%a} {tick.isoformat(sep=' ')}")


@app.command()
def pause(database_url: DatabaseUrl, name: Name) -> None:
    """Let it tick no more, whatever the application declares, until it is resumed."""
    typer.echo("paused" if run(schedules.pause(name), database_url) else "it was paused already")


@app.command()
def resume(database_url: DatabaseUrl, name: Name) -> None:
    """Let it tick again, from now on; ticks while it was paused are not made up for."""
    typer.echo("resumed" if run(schedules.resume(name), database_url) else "it was not paused")


@app.command("run-now")
def run_now(database_url: DatabaseUrl, name: Name) -> None:
    """Publish its message now, beside its ticks. Exit code 1 if that failed and is tried again."""
    if not run(schedules.run_now(name), database_url):
        complain("it could not be published, and is tried again: `outbox scheduled list` says why")
        raise typer.Exit(1)
    typer.echo("published")


@app.command()
def delete(
    database_url: DatabaseUrl,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete a schedule; a worker whose application declares it brings it back when it starts."""
    if not yes:
        typer.confirm(f"delete the schedule {name!r}?", abort=True)
    run(schedules.delete(name), database_url)
    typer.echo("deleted")


def _when(schedule: ScheduleStatus) -> str:
    if schedule.cron is None:
        return f"every {schedule.timing.every}"
    return f"{schedule.cron}, {schedule.timezone}"


def _time(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S %Z}"
