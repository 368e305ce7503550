"""Do once what a message asks for, where its effects live in another database than the outbox.

The worker's transaction can't reach them, so the message may come again. `once` writes down what was done in the
transaction that does it. The other database needs a table for it: `outbox migrate --inbox`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, overload

import psycopg
from psycopg.pq import TransactionStatus

from outbox import connection as connections
from outbox import operations
from outbox.connection import AsyncTransaction
from outbox.errors import InvalidDeclaration, SchemaOutdated
from outbox.operations import Operation


@overload
def once(connection: AsyncTransaction, consumer: str, key: str, *, remembered: timedelta = ...) -> Awaitable[bool]: ...


@overload
def once(connection: Any, consumer: str, key: str, *, remembered: timedelta = ...) -> bool: ...


def once(
    connection: Any, consumer: str, key: str, *, remembered: timedelta = timedelta(days=7)
) -> bool | Awaitable[bool]:
    """Say whether this is the first time; await it if the connection is async.

    True once, if the caller's transaction commits; False ever after. Waits for a transaction that is just doing the
    same, until it has ended. Runs in the caller's transaction; does not commit.

    Args:
        connection: to the database of the effect, as `Outbox.publish` takes it, in the effect's transaction.
        consumer: who does it; each consumer has its own keys.
        key: names the effect, not the thing that it is about: "refund-81", not "order-4711". `str(message.id)` says
            "this message", and does not see that a publisher said the same twice.
        remembered: for how long, 1 second to 28 days. A message that comes later than that is done again.

    Raises:
        InvalidDeclaration: it can't be remembered for so long, or the connection is in no transaction.
        SchemaOutdated: the database has no inbox: run `outbox migrate --inbox`.
    """
    for what, value in ("consumer", consumer), ("key", key):
        if not isinstance(value, str) or not value.strip():
            raise InvalidDeclaration(f"once got {value!r} as its {what}: it must be a text that names something")
    if isinstance(connection, psycopg.Connection | psycopg.AsyncConnection) and (
        connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE
    ):
        raise InvalidDeclaration(
            "once needs a transaction, and this connection commits each statement: the mark and the effect must be one "
            "commit, so begin one (with connection.transaction())"
        )
    operation = operations.once(consumer, key, remembered)
    if connections.is_async(connection):
        return _run_async(operation, connection)
    with _our_advice():
        return connections.run(operation, connection)


async def _run_async(operation: Operation[bool], connection: Any) -> bool:
    with _our_advice():
        return await connections.run_async(operation, connection)


@contextmanager
def _our_advice() -> Iterator[None]:
    """A database without an inbox need not become an outbox."""
    try:
        yield
    except SchemaOutdated as error:
        error.args = ("the database has no inbox: run `outbox migrate --inbox` on it",)
        raise
