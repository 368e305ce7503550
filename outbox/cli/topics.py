"""`outbox topics`: list, show and declare topics."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from outbox import duration, operations
from outbox.cli.options import DatabaseUrl, Json, complain, console, print_json, run, usage
from outbox.definitions import Definitions, Topic, topics
from outbox.definitions.change import Change
from outbox.definitions.definition import check
from outbox.operations import Operation
from outbox.status import TopicStatus, status

app = typer.Typer(help="Look at topics, or declare one.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Words between dots.")]


@app.command("list")
def list_(database_url: DatabaseUrl, json: Json = False) -> None:
    """List topics: partitions, priorities, retention, offsets drawn, and how many subscriptions read each."""
    found = [_plain(name, *one) for name, one in _look(database_url).items()]
    if json:
        print_json(found)
        return
    table = Table(header_style="dim")
    for column in (
        "topic",
        "partitions",
        "max_priority",
        "retention",
        "compact",
        "deduplication_window",
        "offsets",
        "subscriptions",
    ):
        table.add_column(column.replace("_", " "), no_wrap=True)
    for one in found:
        table.add_row(*(str(value) for value in one.values()))
    console.print(table if found else "no topics")


@app.command()
def show(database_url: DatabaseUrl, name: Name, json: Json = False) -> None:
    """Show a topic. Exit code 1 if there is none of that name."""
    found = _look(database_url).get(name)
    if found is None:
        complain(f"topic {name!r} does not exist: `outbox topics list` shows those that do")
        raise typer.Exit(1)
    plain = _plain(name, *found)
    if json:
        print_json(plain)
        return
    for field, value in plain.items():
        typer.echo(f"{field.replace('_', ' '):>20}  {value}")


@app.command()
def declare(
    database_url: DatabaseUrl,
    name: Name,
    partitions: Annotated[int, typer.Option(help="1 to 1,024 ordered sub-logs.")] = 1,
    max_priority: Annotated[int, typer.Option(help="0 to 9; the higher is delivered first.")] = 0,
    retention: Annotated[str, typer.Option(help="A retention class.")] = "standard",
    deduplication_window: Annotated[str, typer.Option(help="How long idempotency keys are remembered.")] = "7d",
    compact: Annotated[bool, typer.Option(help="Keep the newest message of each key for ever.")] = False,
) -> None:
    """Create a topic; the same again changes nothing. `outbox topics alter` gives one other partitions."""
    try:
        window = duration.parse(deduplication_window)
    except ValueError as error:
        raise usage(f"--deduplication-window: {error}") from error
    topic = Topic(
        partitions=partitions,
        max_priority=max_priority,
        retention=retention,
        deduplication_window=window,
        compact=compact,
    )
    check(Definitions(topics={name: topic}))
    change = run(_change(name, topic), database_url)
    if change is None:
        typer.echo(f"topic {name} is there as it is")
    elif change.problem:
        complain(f"topic {name}: {'; '.join((*change.lines, change.problem))}")
        raise typer.Exit(1)
    elif change.action == "change" and not all(line.startswith("deduplication_window") for line in change.lines):
        complain(f"topic {name} exists ({'; '.join(change.lines)}): `outbox topics alter` changes it")
        raise typer.Exit(1)
    else:
        run(topics.apply([change]), database_url)
        typer.echo(f"topic {name} {change.action}d")


@app.command()
def alter(
    database_url: DatabaseUrl,
    name: Name,
    partitions: Annotated[int | None, typer.Option(help="1 to 1,024 ordered sub-logs.")] = None,
    max_priority: Annotated[int | None, typer.Option(help="0 to 9; the higher is delivered first.")] = None,
    retention: Annotated[str | None, typer.Option(help="A retention class.")] = None,
) -> None:
    """Give a topic other partitions, priorities or retention, while it is in use.

    What is published from now on lies in new partitions; subscriptions read it when they have read all of the old ones,
    so that the messages of a key stay in order.
    """
    changed = run(operations.alter_topic(name, partitions, max_priority, retention), database_url)
    typer.echo(f"topic {name} {'altered' if changed else 'is so already'}")


def _change(name: str, topic: Topic) -> Operation[Change | None]:
    changes = yield from topics.changes({name: topic})
    return next((change for change in changes if change.name == name), None)


def _look(database_url: str) -> dict[str, tuple[Topic, TopicStatus]]:
    declared = run(topics.read(), database_url)
    found = {one.name: one for one in run(status(), database_url).topics}
    return {name: (topic, found[name]) for name, topic in declared.items() if name in found}


def _plain(name: str, topic: Topic, now: TopicStatus) -> dict[str, Any]:
    return {
        "name": name,
        "partitions": topic.partitions,
        "max_priority": topic.max_priority,
        "retention": topic.retention,
        "compact": topic.compact,
        "deduplication_window": duration.text(topic.deduplication_window),
        "offsets": now.offsets,
        "subscriptions": now.subscriptions,
    }
