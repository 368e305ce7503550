"""`outbox read`: print messages straight from the log."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psycopg
import typer

from outbox import database
from outbox.cli import times
from outbox.cli.options import DatabaseUrl, Headers, complain, console, headers_of
from outbox.client import Outbox
from outbox.model import Message, MessageId
from outbox.reader import Reader
from outbox.start import Start

#: Messages after which the position is kept, of a reading that ends.
_KEEP_EVERY = 1_000

Messages = Generator[tuple[Message, str], None, None]
Open = Callable[[psycopg.Connection[Any], str | None], Reader]


def read(
    topic: Annotated[str, typer.Argument(help="A topic, or a pattern: 'orders.*', '#'.")],
    database_url: DatabaseUrl,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="first, last, next; 2h (ago), 2026-12-24T18:00; a message's id, or an offset of the only partition.",
            show_default="next with --follow, else first",
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Only what was published before: 2026-12-24T18:00, 10m (ago).")] = None,
    partition: Annotated[int | None, typer.Option(help="Only the partitions of this number.")] = None,
    key: Annotated[str | None, typer.Option(help="Only messages with this key.")] = None,
    header: Headers = None,
    filter: Annotated[str | None, typer.Option(help="Only if it is true for the payload: '$.total > 100'")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Keep in this file how far it came, and go on there the next time.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, for scripts.")] = False,
) -> None:
    """Print messages from the log, without a subscription: nothing is written, and nobody else is affected.

    It ends where the log ends, or waits for more with --follow. Exit code 130 after Ctrl-C.
    """
    began = _start(start) if start is not None else None
    before = _time(to) if to is not None else None
    headers: dict[str, str | None] = dict(headers_of(header))
    app = Outbox()

    def open_at(connection: psycopg.Connection[Any], token: str | None) -> Reader:
        return app.read(
            connection, topic, start=began, to=before, partition=partition, key=key, headers=headers or None,
            filter=filter, follow=follow, resume=token,
        )  # fmt: skip

    shown = _json_line if json else _line_with_topic if set(topic) & set("*#") else _line
    try:
        with contextlib.closing(_messages(database_url, open_at, resume, follow)) as found:
            _print(itertools.islice(found, limit), shown, resume, follow)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # who reads our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(
    found: Iterator[tuple[Message, str]], shown: Callable[[Message], bytes], resume: Path | None, follow: bool
) -> None:
    """Print messages, and keep the position of what has been printed."""
    token, out = None, sys.stdout.buffer
    try:
        for number, (message, token) in enumerate(found, 1):
            out.write(shown(message) + b"\n")
            if follow or number % _KEEP_EVERY == 0:
                _keep(token, resume)
    finally:
        _keep(token, resume)


def _keep(token: str | None, resume: Path | None) -> None:
    sys.stdout.buffer.flush()
    if resume is not None and token is not None:
        new = resume.with_name(f"{resume.name}.new")
        new.write_text(token)
        new.replace(resume)


def _messages(url: str, open_at: Open, resume: Path | None, follow: bool) -> Messages:
    """Messages, and the position after each. Who follows goes on when the database was away."""
    token = resume.read_text() if resume is not None and resume.exists() else None
    pause = 0.1
    while True:
        reader = None
        try:
            with psycopg.connect(database.libpq_url(url), **database.options()) as connection:
                database.without_prepared_statements(connection)
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                reader = open_at(connection, token)
                for message in reader:
                    pause = 0.1
                    yield message, reader.token or ""
                return
        except database.AWAY as error:
            token = (reader and reader.token) or token
            if not follow or token is None:
                raise
            complain(f"the database is away, trying again: {str(error).strip().splitlines()[0]}")
            time.sleep(pause)
            pause = min(pause * 2, 5)


def _start(text: str) -> Start | MessageId:
    """What --from says."""
    return MessageId.parse(text) if re.fullmatch(r"\d+-\d+", text) else times.start(text)


def _time(text: str) -> datetime | None:
    """What --to says."""
    found = times.moment_or_ago(text)
    return datetime.now(UTC) - found if isinstance(found, timedelta) else found


def _line(message: Message) -> bytes:
    return _cut(message, [])


def _line_with_topic(message: Message) -> bytes:
    return _cut(message, [message.topic])


def _cut(message: Message, more: list[str]) -> bytes:
    """A line as wide as the terminal: local time, id, key, payload."""
    at = message.published_at.astimezone()
    payload = message.raw.decode() if message._body is None else f"({len(message._body)} bytes)"
    columns = [f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}", str(message.id), *more, message.key or "-"]
    line = "  ".join([*columns, payload[: console.width]])
    line = "".join(c if c.isprintable() else " " if c in "\n\t\r" else "\ufffd" for c in line)
    return (line if len(line) <= console.width else line[: console.width - 1] + "…").encode(errors="replace")


def _json_line(message: Message) -> bytes:
    """One object; numbers of the payload as they were published, raw bytes in base64."""
    content: dict[str, Any] = {"payload": None}
    if message._body is not None:
        content["body"] = base64.b64encode(message._body).decode()
    else:  # a line break in JSON is only ever white space
        content["payload"] = msgspec.Raw(message.raw.replace(b"\r", b" ").replace(b"\n", b" "))
    return msgspec.json.encode(
        {
            "id": str(message.id),
            "topic": message.topic,
            "partition": message.partition,
            "priority": message.priority,
            "offset": message.offset,
            "published_at": message.published_at,
            "key": message.key,
            "headers": message.headers,
            **content,
        }
    )
