"""The `outbox` command. Exit codes: 0 done, 1 it can't be done as things are, 2 wrong usage; `doctor` has its own."""

from __future__ import annotations

import sys
from typing import Annotated

import psycopg
import typer
from sqlalchemy.exc import DBAPIError

from outbox import __version__
from outbox.cli import (
    backfill,
    capture,
    dead,
    definitions,
    demo,
    doctor,
    exporter,
    flow,
    migrate,
    publish,
    read,
    relay,
    replay,
    request,
    retention,
    route,
    scheduled,
    schedules,
    seek,
    status,
    subscriptions,
    topics,
    worker,
)
from outbox.cli.options import complain
from outbox.errors import OutboxError

app = typer.Typer(
    name="outbox",
    help="A transactional outbox, queue and event log in the Postgres you already have.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"outbox {__version__}")
        raise typer.Exit


app.command("migrate")(migrate.migrate)
app.command("publish")(publish.publish)
app.command("read")(read.read)
app.command("route")(route.route)
app.command("cancel")(route.cancel)
app.command("edit")(route.edit)
app.command("request")(request.request)
app.command("worker")(worker.worker)
app.command("backfill")(backfill.backfill)
app.command("pause")(flow.pause)
app.command("resume")(flow.resume)
app.command("purge")(flow.purge)
app.command("seek")(seek.seek)
app.command("replay")(replay.replay)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("exporter")(exporter.exporter)
app.add_typer(relay.app, name="relay")
app.add_typer(dead.app, name="dead")
app.add_typer(schedules.app, name="schedules")
app.add_typer(scheduled.app, name="scheduled")
app.command("capture")(capture.capture)
app.command("captures")(capture.captures)
app.command("uncapture")(capture.uncapture)
app.command("apply")(definitions.apply)
app.command("export")(definitions.export)
app.add_typer(topics.app, name="topics")
app.add_typer(subscriptions.app, name="subscriptions")
app.add_typer(retention.app, name="retention")
app.command("demo")(demo.demo)


def main() -> None:
    """Run the command; an error that the user can mend is one line, not a traceback."""
    try:
        app()
    except OutboxError as error:
        complain(str(error))
        sys.exit(1)
    except (psycopg.Error, DBAPIError) as error:
        cause = getattr(error, "orig", error)
        what = "can't reach the database" if isinstance(cause, psycopg.OperationalError) else "the database refuses"
        complain(f"{what}: {str(cause).strip().splitlines()[0]}")
        sys.exit(1)
