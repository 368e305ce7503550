"""`outbox replay`: deliver messages again to one subscription."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from outbox.cli.letters import per_second
from outbox.cli.options import DatabaseUrl, conditions_of, connected, usage
from outbox.cli.subscriptions import Filter, Header
from outbox.cli.times import moment_or_ago
from outbox.connection import run
from outbox.replay import Chosen, Range, Replay

Subscription = Annotated[str, typer.Argument(help="Who gets them again; nobody else does.")]
Topic = Annotated[str | None, typer.Argument(help="A topic that it reads, or a pattern.")]
From = Annotated[str | None, typer.Option("--from", help="Published then or later: 2026-01-31T12:00, or 2h (ago).")]
To = Annotated[str | None, typer.Option("--to", help="Published before. Default: what it has taken until now.")]
Key = Annotated[str | None, typer.Option("--key", help="Only those with this key.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Only of the partition so numbered.")]
Ranges = Annotated[
    list[str] | None,
    typer.Option("--range", help="Instead of a topic: offsets of a partition, 3:1-500, as an interrupted replay says."),
]
Rate = Annotated[str | None, typer.Option(help="How fast they are due: 100/s, 30/m, 5/h. Default: at once.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")]

#: Seconds between lines that say how far it is.
_PROGRESS = 2.0


def replay(
    database_url: DatabaseUrl,
    subscription: Subscription,
    topic: Topic = None,
    from_: From = None,
    to: To = None,
    key: Key = None,
    filter: Filter = None,
    header: Header = None,
    partition: Partition = None,
    range: Ranges = None,
    rate: Rate = None,
    dry_run: DryRun = False,
) -> None:
    """Deliver messages again to one subscription, beside what is published meanwhile.

    Those that it has taken, and that its bindings let pass; what waits for another try, or is in a worker's hands, is
    skipped. They take at most half of its workers' time, and have no order. Interrupted, it says how to go on.
    """
    chosen: Chosen = {"key": key, "filter": filter, "headers": conditions_of(header), "partition": partition}
    chosen |= {"from_at": moment_or_ago(from_), "to_at": moment_or_ago(to)}
    work = Replay(subscription, topic, chosen, _ranges(topic, range), per_second(rate), dry_run)
    with _stopped_between_portions() as stop, connected(database_url) as connection:
        run(work.begin(), connection)
        _advance(work, connection, stop)
    what = "would be replayed" if dry_run else "replayed"
    typer.echo(f"{what}: {work.replayed}, skipped: {work.skipped}")
    if work.ranges:
        typer.echo(f"interrupted, go on with: {_rest(work, key, filter, header, rate, dry_run)}")
        raise typer.Exit(1)


def _advance(work: Replay, connection: Any, stop: list[int]) -> None:
    said, whole = time.monotonic(), work.left
    while work.ranges and not stop:
        run(work.advance(), connection)
        if time.monotonic() - said > _PROGRESS:
            said = time.monotonic()
            print(f"{whole - work.left} of {whole} offsets, replayed: {work.replayed}", file=sys.stderr)


@contextmanager
def _stopped_between_portions() -> Iterator[list[int]]:
    """The first signal that would end us is only listed: so a portion is done or not, and it is known which."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _rest(
    work: Replay, key: str | None, filter: str | None, header: list[str] | None, rate: str | None, dry_run: bool
) -> str:
    """The command for what is left, with the times as they were when it began."""
    words = ["outbox", "replay", work.subscription]
    words += [word for range in work.ranges for word in ("--range", str(range))]
    times = ((option, at) for option, at in (("--from", work.from_at), ("--to", work.to_at)) if at is not None)
    words += [word for option, at in times for word in (option, at.isoformat())]
    words += [word for text in header or () for word in ("--header", text)]
    for option, value in (("--key", key), ("--filter", filter), ("--rate", rate)):
        words += [option, value] if value is not None else []
    return shlex.join([*words, *(["--dry-run"] if dry_run else [])])


def _ranges(topic: str | None, texts: list[str] | None) -> list[Range] | None:
    if (topic is None) is not bool(texts):
        raise usage("name a topic, or ranges of offsets with --range")
    try:
        return [Range.parse(text) for text in texts] if texts else None
    except ValueError as error:
        raise usage(str(error)) from error
