"""What several commands share: the database, JSON output, and how to say that something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import msgspec
import psycopg
import typer
from rich.console import Console

from outbox import connection as connections
from outbox import operations
from outbox.database import libpq_url
from outbox.operations import Operation

T = TypeVar("T")

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database-url",
        "-d",
        envvar="OUTBOX_DATABASE_URL",
        help="Where the tables are: postgresql://user:password@host:port/database",
        show_default=False,
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

Headers = Annotated[list[str] | None, typer.Option("--header", "-H", help="name=value; may be repeated.")]

#: As wide as the terminal; in a pipe as wide as it takes, for grep.
console = Console(width=None if sys.stdout.isatty() else 200)


@contextmanager
def connected(database_url: str, check_schema: bool = True) -> Iterator[psycopg.Connection[Any]]:
    """A connection in autocommit mode, after a look at the schema's version."""
    with psycopg.connect(libpq_url(database_url), autocommit=True, application_name="outbox") as connection:
        if check_schema:
            connections.run(operations.check_schema(), connection)
        yield connection


def run(operation: Operation[T], database_url: str, check_schema: bool = True) -> T:
    """Run an operation, each of its statements in a transaction of its own."""
    with connected(database_url, check_schema) as connection:
        return connections.run(operation, connection)


def print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def complain(text: str) -> None:
    """Say on standard error what is wrong, without markup."""
    print(f"outbox: {text}", file=sys.stderr)


def usage(text: str) -> typer.Exit:
    """Say that the command was used wrongly; raise the result."""
    complain(text)
    return typer.Exit(2)


def headers_of(given: list[str] | None) -> dict[str, str]:
    """What --header said."""
    headers = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise usage(f"{text!r} is not a header: name=value")
        headers[name] = value
    return headers


def conditions_of(given: list[str] | None) -> dict[str, str | None] | None:
    """The headers that --header asks for: a name alone stands for any value."""
    split = (text.partition("=") for text in given or ())
    return {name: value if equals else None for name, equals, value in split} or None


def json_text(payload: str) -> str:
    """A payload from the command line, or from standard input, checked."""
    text = sys.stdin.read() if payload == "-" else payload
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise usage(f"the payload is not JSON ({error}): a text needs double quotes inside the shell's") from error
    return text
