"""`outbox request`: ask from the command line, and print the reply."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import psycopg
import typer

from outbox.cli.options import DatabaseUrl, Headers, Json, headers_of, json_text, print_json
from outbox.cli.times import duration
from outbox.client import Outbox
from outbox.database import libpq_url


def request(
    topic: Annotated[str, typer.Argument(help="Where a subscription reads that replies.")],
    payload: Annotated[str, typer.Argument(help="JSON text; - reads it from standard input.")],
    database_url: DatabaseUrl,
    timeout: Annotated[str, typer.Option(help="How long to wait for the reply: 5, 500ms, 1m.")] = "5s",
    reply_topic: Annotated[
        str | None, typer.Option(help="Where the reply is published.", show_default="replies.TOPIC")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Messages with the same key stay in order.")] = None,
    header: Headers = None,
    json: Json = False,
) -> None:
    """Publish a request, wait for its reply and print it. Exit code 1: none came in time, or it says that it failed."""
    with psycopg.connect(libpq_url(database_url), autocommit=True, application_name="outbox") as connection:
        reply = Outbox().request(
            connection,
            topic,
            msgspec.json.decode(json_text(payload)),
            timeout=duration(timeout if timeout[-1:].isalpha() else f"{timeout}s"),
            reply_topic=reply_topic,
            key=key,
            headers=headers_of(header),
        )
    if isinstance(reply.payload, bytes):
        sys.stdout.buffer.write(reply.payload)
    elif json:
        print_json({"id": str(reply.id), "topic": reply.topic, "headers": reply.headers, "payload": reply.payload})
    else:
        typer.echo(reply.raw.decode())
