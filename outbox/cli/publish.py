"""`outbox publish`: append a message from the command line."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import psycopg
import typer

from outbox.cli.options import DatabaseUrl, Json, print_json, usage
from outbox.cli.times import duration, moment
from outbox.client import Outbox
from outbox.database import libpq_url
from outbox.scheduled import Later


def publish(
    topic: Annotated[str, typer.Argument(help="Words between dots; declared if it does not exist.")],
    payload: Annotated[str, typer.Argument(help="JSON text; - reads it from standard input.")],
    database_url: DatabaseUrl,
    key: Annotated[str | None, typer.Option(help="Messages with the same key stay in order.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="name=value; may be repeated.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="The higher is delivered first.")] = 0,
    delay: Annotated[str | None, typer.Option(help="Publish it later: 90s, 10m, 1h30m, 2d.")] = None,
    at: Annotated[str | None, typer.Option(help="Publish it then: 2026-12-24T18:00+01:00")] = None,
    json: Json = False,
) -> None:
    """Publish one message and print its id; of one for later the id by which `outbox scheduled` finds it."""
    text = sys.stdin.read() if payload == "-" else payload
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise usage(f"the payload is not JSON ({error}): a text needs double quotes inside the shell's") from error
    headers = dict(_header(text) for text in header or ())
    if delay is not None or at is not None:
        later: Later = {"key": key, "headers": headers, "priority": priority, **_later(delay, at)}
        with psycopg.connect(libpq_url(database_url)) as connection:
            number: int = Outbox().publish_later(connection, topic, value, **later)
        print_json({"id": number, "topic": topic}) if json else typer.echo(str(number))
        return
    with psycopg.connect(libpq_url(database_url)) as connection:
        id = Outbox().publish(connection, topic, value, key=key, headers=headers, priority=priority)
    if json:
        print_json({"id": str(id), "topic": topic, "offset": id.offset})
    else:
        typer.echo(str(id))


def _later(delay: str | None, at: str | None) -> Later:
    if delay is not None and at is not None:
        raise usage("publish it after a --delay, or --at a time, not both")
    return {"at": moment(at)} if at is not None else {"delay": duration(delay or "")}


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise usage(f"{text!r} is not a header: name=value")
    return name, value
