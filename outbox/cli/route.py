"""`outbox route`, `cancel`, `edit`: where a message would go; keep it from going there, or change it before it does."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Annotated

import typer
from rich.text import Text

from outbox import routing
from outbox.cli.options import (
    DatabaseUrl,
    Headers,
    Json,
    complain,
    console,
    headers_of,
    json_text,
    print_json,
    run,
    usage,
)
from outbox.model import MessageId
from outbox.payload import check_topic

Id = Annotated[str, typer.Argument(help="The message's id, as `outbox publish` prints it: 3-1042")]


def route(
    database_url: DatabaseUrl,
    topic: Annotated[str, typer.Argument(help="A topic; it need not exist.")],
    header: Headers = None,
    payload: Annotated[str | None, typer.Option(help="JSON text; - reads it from standard input.")] = None,
    json: Json = False,
) -> None:
    """Say who would get a message, and why, and why the others would not. Nothing is stored."""
    check_topic(topic)
    text = None if payload is None else json_text(payload)
    verdicts = run(routing.who_gets(topic, headers_of(header), text), database_url)
    if json:
        print_json(verdicts)
        return
    taken = False
    for subscription, of_one in groupby(verdicts, key=attrgetter("subscription")):
        bindings = list(of_one)
        takes = any(binding.takes for binding in bindings)
        taken = taken or takes
        console.print(Text(f"{'✓' if takes else '·'} {subscription}", style="bold green" if takes else "dim"))
        for binding in bindings:
            console.print(Text(f"    {binding.pattern}: {binding.why}", style="" if binding.takes else "dim"))
    if not taken:
        console.print(Text("nobody would get it", style="yellow"))


def cancel(database_url: DatabaseUrl, id: Id) -> None:
    """Keep a message from the subscriptions that have not been handed it yet. Exit code 1 if there are none."""
    _report("cancelled for", run(routing.cancel(*_parse(id)), database_url), id)


def edit(
    database_url: DatabaseUrl,
    id: Id,
    payload: Annotated[str, typer.Argument(help="JSON text; - reads it from standard input.")],
) -> None:
    """Change a message's payload for the subscriptions that have not had it yet. Exit code 1 if there are none."""
    _report("changed for", run(routing.edit(*_parse(id), json_text(payload)), database_url), id)


def _report(what: str, subscriptions: list[str], id: str) -> None:
    if not subscriptions:
        complain(f"no subscription waits for message {id}: each has had it in hand, or there is no such message")
        raise typer.Exit(1)
    typer.echo(f"{what}: {', '.join(subscriptions)}")


def _parse(id: str) -> MessageId:
    try:
        return MessageId.parse(id)
    except ValueError as error:
        raise usage(str(error)) from error
