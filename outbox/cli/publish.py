"""`outbox publish`: append a message from the command line."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
import psycopg
import typer

from outbox.cli.options import DatabaseUrl, Headers, Json, duration, headers_of, json_text, print_json
from outbox.client import Outbox
from outbox.database import libpq_url


def publish(
    topic: Annotated[str, typer.Argument(help="Words between dots; declared if it does not exist.")],
    payload: Annotated[str, typer.Argument(help="JSON text; - reads it from standard input.")],
    database_url: DatabaseUrl,
    key: Annotated[str | None, typer.Option(help="Messages with the same key stay in order.")] = None,
    header: Headers = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="The higher is delivered first.")] = 0,
    ttl: Annotated[
        timedelta | None, typer.Option(parser=duration, help="How long it may wait for its delivery: 90s, 15m, 1h, 7d")
    ] = None,
    json: Json = False,
) -> None:
    """Publish one message and print its id."""
    value = msgspec.json.decode(json_text(payload))
    headers = headers_of(header)
    with psycopg.connect(libpq_url(database_url)) as connection:
        id = Outbox().publish(connection, topic, value, key=key, headers=headers, priority=priority, ttl=ttl)
    if json:
        print_json({"id": str(id), "topic": topic, "offset": id.offset})
    else:
        typer.echo(str(id))
