"""`outbox subscriptions`: list, show, bind, unbind, configure and delete subscriptions."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

import typer

from outbox import duration, operations
from outbox import settings as settings_of
from outbox import start as starts
from outbox.binding import Binding
from outbox.cli import times
from outbox.cli.options import DatabaseUrl, Json, complain, conditions_of, console, print_json, run, usage
from outbox.cli.status import subscriptions_table
from outbox.definitions import Definitions, files, subscriptions
from outbox.definitions.subscriptions import describe
from outbox.settings import Settings
from outbox.status import status

app = typer.Typer(help="Look at subscriptions, and change what they read and how.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The subscription.")]
Pattern = Annotated[str, typer.Argument(help="A topic, or words between dots: * is one word, # any number.")]
Header = Annotated[
    list[str] | None, typer.Option("--header", "-H", help="name=value; name alone: any value. May be repeated.")
]
Match = Annotated[Literal["all", "any"], typer.Option(help="All of the headers, or any.")]
Filter = Annotated[str | None, typer.Option(help="A predicate in SQL/JSON path: '$.total > 100'")]
Alternate = Annotated[bool, typer.Option("--alternate", help="Only what fits no binding of other subscriptions.")]


@app.command("list")
def list_(database_url: DatabaseUrl, json: Json = False) -> None:
    """List subscriptions, with their lag, and what is in flight, retrying and dead."""
    found = run(status(), database_url).subscriptions
    if json:
        print_json(found)
    else:
        console.print(subscriptions_table(found) if found else "no subscriptions")


@app.command()
def show(database_url: DatabaseUrl, name: Name, json: Json = False) -> None:
    """Show a subscription as a definitions file has it. Exit code 1 if there is none of that name."""
    found = run(subscriptions.read(), database_url).get(name)
    if found is None:
        complain(f"subscription {name!r} does not exist: `outbox subscriptions list` shows those that do")
        raise typer.Exit(1)
    if json:
        print_json({"name": name, **files.plain(found)})
    else:
        typer.echo(files.text(Definitions(subscriptions={name: found})), nl=False)


@app.command()
def bind(
    database_url: DatabaseUrl,
    name: Name,
    pattern: Pattern,
    start: Annotated[
        str,
        typer.Option(help="first (all history that is kept), next, last, an offset, 2026-01-31T12:00, or 2h (ago)."),
    ] = "first",
    header: Header = None,
    match: Match = "all",
    filter: Filter = None,
    alternate: Alternate = False,
) -> None:
    """Let a subscription read more topics, or more of their messages."""
    binding = Binding(pattern, conditions_of(header), match, filter, alternate)
    cursors = run(operations.bind(name, binding, starts.text(times.start(start))), database_url)
    typer.echo(f"{name}: {describe(binding)}, {cursors} new cursors")


@app.command()
def unbind(
    database_url: DatabaseUrl,
    name: Name,
    pattern: Pattern,
    header: Header = None,
    match: Match = "all",
    filter: Filter = None,
    alternate: Alternate = False,
) -> None:
    """End a binding. Cursors that no other binding needs go: bound again, the subscription starts anew there.

    What is in flight, or waits for another try, is handled as usual. Exit code 1 if there is no such binding.
    """
    binding = Binding(pattern, conditions_of(header), match, filter, alternate)
    cursors = run(operations.unbind(name, binding), database_url)
    if cursors is None:
        complain(f"{name} has no {describe(binding)}: `outbox subscriptions show {name}` shows those that it has")
        raise typer.Exit(1)
    typer.echo(f"{name}: no {describe(binding)} any more, {cursors} cursors went")


@app.command()
def configure(
    database_url: DatabaseUrl,
    name: Name,
    settings: Annotated[list[str], typer.Argument(metavar="SETTING=VALUE...", help="ttl=1h rate=50; ttl=default")],
) -> None:
    """Change settings of a subscription. A worker whose handler names the same ones sets them when it starts."""
    wanted: Settings = dict(_setting(text) for text in settings)  # type: ignore[assignment]  # their names are checked
    changed = run(operations.configure(name, wanted), database_url)
    typer.echo(f"{name}: {'changed' if changed else 'nothing to change'}")


@app.command()
def delete(
    database_url: DatabaseUrl,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="Even if live workers run it, and with its dead letters.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Remove a subscription, with all that waits for it. Messages stay in the log for others."""
    if not yes:
        typer.confirm(f"remove the subscription {name}, and forget what it has not handled?", abort=True)
    run(operations.unsubscribe(name, force), database_url)
    typer.echo(f"{name}: removed")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise usage(f"{text!r} is not a setting: name=value")
    if name not in settings_of.KINDS:
        raise usage(f"there is no setting {name!r}; there are {', '.join(settings_of.KINDS)}")
    try:
        return name, None if value == "default" else _value(settings_of.KINDS[name], value)
    except ValueError as error:
        raise usage(f"{name}: {error}") from error


def _value(kind: type | tuple[type, ...], text: str) -> Any:
    if kind is timedelta:
        return duration.parse(text)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is not true or false")
        return text == "true"
    if kind is str:
        return text
    return (int if kind is int else float)(text)
