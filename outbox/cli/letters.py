"""How dead letters are chosen on the command line, and how they are shown."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from outbox.cli.options import console, usage
from outbox.dead_letters import DeadLetter, Filter, Group
from outbox.model import MessageId

ErrorClass = Annotated[str | None, typer.Option("--class", help="The class of their last error.")]
Place = Annotated[str | None, typer.Option("--place", help="Where it was raised, as `outbox dead groups` shows it.")]
Reason = Annotated[str | None, typer.Option("--reason", help="'rejected', 'attempts exhausted', 'worker died', …")]
Key = Annotated[str | None, typer.Option("--key", help="The messages' key.")]
Topic = Annotated[str | None, typer.Option("--topic", help="Their topic, or a pattern.")]
Before = Annotated[str | None, typer.Option("--before", help="They died before: 2026-01-31T12:00, in local time.")]
After = Annotated[str | None, typer.Option("--after", help="They died after that.")]
ErrorText = Annotated[str | None, typer.Option("--text", help="A part of the last error's text, in any case.")]

#: Messages a second, a minute or an hour.
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|m|h))?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def chosen_by(
    error_class: str | None, place: str | None, reason: str | None, key: str | None, topic: str | None,
    before: str | None, after: str | None, text: str | None,
) -> Filter:  # fmt: skip
    """The filter that a command's options make; exit code 2 for a time that is none."""
    return Filter(error_class, place, reason, key, topic, _time("--before", before), _time("--after", after), text)


def _time(option: str, text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone() if text is not None else None
    except ValueError as error:
        raise usage(f"{option} {text} is not a time: it looks like 2026-01-31T12:00") from error


def per_second(text: str | None) -> float | None:
    """Read `100/s`, `30/m` or `5/h`; a number alone is a second's."""
    if text is None:
        return None
    found = _RATE.fullmatch(text)
    if not found or not float(found[1]):
        raise usage(f"--rate {text} is not a rate: it looks like 100/s, 30/m or 5/h")
    return float(found[1]) / _SECONDS[found[2] or "s"]


def parse(ids: list[str]) -> list[MessageId]:
    try:
        return [MessageId.parse(id) for id in ids]
    except ValueError as error:
        raise usage(str(error)) from error


def print_list(letters: list[DeadLetter]) -> None:
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


def print_groups(groups: list[Group]) -> None:
    table = Table(header_style="dim")
    for column in ("letters", "subscription", "class", "place", "first died at", "last died at", "example"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", min_width=8 if column == "example" else None)
    for one in groups:
        times = (f"{at:%Y-%m-%d %H:%M:%S}" for at in (one.first_died_at, one.last_died_at))
        values = (str(one.letters), one.subscription, one.error_class, one.place, *times, one.example)
        table.add_row(*(Text(value) for value in values))
    console.print(table)


def print_letter(letter: DeadLetter) -> None:
    for name in ("id", "subscription", "topic", "key", "reason", "attempts", "published_at", "died_at"):
        console.print(Text(f"{name.replace('_', ' '):>14}  {getattr(letter, name)}"))
    console.print(Text(f"{'headers':>14}  {letter.headers}"))
    console.print(Text(f"{'payload':>14}  {msgspec.json.encode(letter.payload).decode()}"))
    before = None
    for error in letter.errors:
        where = f"attempt {error.get('attempt')} at {error.get('at')}, worker {error.get('worker')}"
        console.print(Text(f"\n{where}\n{error.get('class')}: {error.get('text')}", style="bold"))
        if place := error.get("place"):
            console.print(Text(f"raised at {place}"))
        trace = error.get("traceback", "")
        console.print(Text("(the same traceback)" if trace and trace == before else trace))
        before = trace


def _last_error(letter: DeadLetter) -> str:
    last = letter.errors[-1] if letter.errors else {}
    return f"{last.get('class', '')}: {last.get('text', '')}".splitlines()[0][:100] if last else ""
