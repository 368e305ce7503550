"""`outbox seek`: move a subscription's cursors."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from outbox import seek as seeking
from outbox.cli.options import DatabaseUrl, Json, connected, console, print_json
from outbox.cli.times import start
from outbox.connection import run
from outbox.seek import MOST, Move

Subscription = Annotated[str, typer.Argument(help="Its name.")]
To = Annotated[str, typer.Option("--to", help="first, last, next, an offset, 2026-01-31T12:00, or how long ago: 2h")]
Topic = Annotated[str | None, typer.Option("--topic", help="Only its cursors on this topic, or on those of a pattern.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Only on the topic's partition so numbered.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how far it would be, and over how many messages.")]


def seek(
    database_url: DatabaseUrl,
    subscription: Subscription,
    to: To,
    topic: Topic = None,
    partition: Partition = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Move a subscription's cursors, all or none: back, to have messages again, or on, to skip some.

    "next" is the end of the log, "last" the newest message of each partition; an offset is that of the message that
    comes next. What is in workers' hands, or waits for another try, goes on. Messages are counted as the log holds
    them: conditions of bindings are not applied.
    """
    where = start(to)
    with connected(database_url) as connection:
        moves = run(seeking.seek(subscription, where, topic, partition, dry_run), connection)
        moves = run(seeking.counted(moves), connection)
    if json:
        print_json(moves)
        return
    console.print(_table(moves))
    again, skipped = (sum(m.messages or 0 for m in moves if m.is_back is back) for back in (True, False))
    typer.echo(f"{'would be ' if dry_run else ''}delivered again: {again}, skipped: {skipped}")


def _table(moves: list[Move]) -> Table:
    table = Table(header_style="dim")
    for column in ("topic", "partition", "priority", "from", "to", "messages"):
        table.add_column(column, no_wrap=True, justify="left" if column == "topic" else "right")
    for one in moves:
        numbers = (one.partition, one.priority, one.before, one.after)
        table.add_row(Text(one.topic), *map(str, numbers), _messages(one))
    return table


def _messages(move: Move) -> str:
    if move.before == move.after:
        return "stays"
    count = f"more than {MOST}" if (move.messages or 0) > MOST else str(move.messages)
    return f"{count} {'again' if move.is_back else 'skipped'}"
