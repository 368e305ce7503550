"""`outbox publish`: append a message from the command line."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import msgspec
import psycopg
import typer

from outbox.cli.options import DatabaseUrl, Json, print_json, usage
from outbox.client import Outbox
from outbox.database import libpq_url


def publish(
    topic: Annotated[str, typer.Argument(help="Words between dots; declared if it does not exist.")],
    payload: Annotated[str, typer.Argument(help="JSON text; - reads it from standard input.")],
    database_url: DatabaseUrl,
    key: Annotated[str | None, typer.Option(help="Messages with the same key stay in order.")] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="name=value; may be repeated.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="The higher is delivered first.")] = 0,
    json: Json = False,
) -> None:
    """Publish one message and print its id."""
    value, headers = json_of(payload), headers_of(header)
    with psycopg.connect(libpq_url(database_url)) as connection:
        id = Outbox().publish(connection, topic, value, key=key, headers=headers, priority=priority)
    if json:
        print_json({"id": str(id), "topic": topic, "offset": id.offset})
    else:
        typer.echo(str(id))


def json_of(payload: str) -> Any:
    """The value of an argument that is JSON text, or - for standard input."""
    text = sys.stdin.read() if payload == "-" else payload
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise usage(f"the payload is not JSON ({error}): a text needs double quotes inside the shell's") from error


def headers_of(arguments: list[str] | None) -> dict[str, str]:
    return dict(_header(text) for text in arguments or ())


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise usage(f"{text!r} is not a header: name=value")
    return name, value
