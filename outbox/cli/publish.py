"""`outbox publish`: append a message from the command line, now or later."""

from __future__ import annotations

from typing import Annotated

import msgspec
import psycopg
import typer

from outbox.cli.options import DatabaseUrl, Headers, Json, headers_of, json_text, print_json, usage
from outbox.cli.times import duration, moment
from outbox.client import Outbox
from outbox.database import libpq_url
from outbox.scheduled import Later


def publish(
    topic: Annotated[str, typer.Argument(help="Words between dots; declared if it does not exist.")],
    payload: Annotated[str, typer.Argument(help="JSON text; - reads it from standard input.")],
    database_url: DatabaseUrl,
    key: Annotated[str | None, typer.Option(help="Messages with the same key stay in order.")] = None,
    header: Headers = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="The higher is delivered first.")] = 0,
    ttl: Annotated[str | None, typer.Option(help="How long it may wait for its delivery: 90s, 15m, 1h30m, 7d.")] = None,
    delay: Annotated[str | None, typer.Option(help="Publish it later: 90s, 10m, 1h30m, 2d.")] = None,
    at: Annotated[str | None, typer.Option(help="Publish it then: 2026-12-24T18:00+01:00")] = None,
    json: Json = False,
) -> None:
    """Publish one message and print its id; of one for later the id by which `outbox scheduled` finds it."""
    value, headers = msgspec.json.decode(json_text(payload)), headers_of(header)
    lives = duration(ttl) if ttl is not None else None
    if delay is not None or at is not None:
        later: Later = {"key": key, "headers": headers, "priority": priority, "ttl": lives, **_later(delay, at)}
        with psycopg.connect(libpq_url(database_url)) as connection:
            number: int = Outbox().publish_later(connection, topic, value, **later)
        print_json({"id": number, "topic": topic}) if json else typer.echo(str(number))
        return
    with psycopg.connect(libpq_url(database_url)) as connection:
        id = Outbox().publish(connection, topic, value, key=key, headers=headers, priority=priority, ttl=lives)
    if json:
        print_json({"id": str(id), "topic": topic, "offset": id.offset})
    else:
        typer.echo(str(id))


def _later(delay: str | None, at: str | None) -> Later:
    if delay is not None and at is not None:
        raise usage("publish it after a --delay, or --at a time, not both")
    return {"at": moment(at)} if at is not None else {"delay": duration(delay or "")}
