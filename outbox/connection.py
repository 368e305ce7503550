"""Say it to the database: run an operation on whatever connection the caller has, sync or async.

Known are psycopg's and SQLAlchemy's connections and sessions, their async kinds, and any DB-API connection. Nothing
here begins, commits or rolls back.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg.rows import tuple_row
from psycopg.types.numeric import Int8BinaryLoader
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox.errors import BY_SQLSTATE, SchemaOutdated
from outbox.operations import Operation, Row, Statement
from outbox.version import SCHEMA_VERSION

T = TypeVar("T")
Execute = Callable[[Statement], list[Row]]
ExecuteAsync = Callable[[Statement], Awaitable[list[Row]]]
AsyncTransaction = psycopg.AsyncConnection[Any] | sqlalchemy_async.AsyncConnection | sqlalchemy_async.AsyncSession

#: SQLSTATEs of a function, schema or table that does not exist.
_NOT_THERE = {"42883", "3F000", "42P01"}

_ASYNC = (
    psycopg.AsyncConnection,
    sqlalchemy_async.AsyncConnection,
    sqlalchemy_async.AsyncSession,
    sqlalchemy_async.async_scoped_session,
)


def is_async(connection: Any) -> bool:
    """Is it a connection or session whose methods must be awaited?"""
    return isinstance(connection, _ASYNC)


def run(operation: Operation[T], connection: Any) -> T:
    """Run an operation on a sync connection, in whatever transaction it is in."""
    execute = _executor(connection)
    try:
        statement = next(operation)
        while True:
            with our_errors():
                rows = execute(statement)
            statement = operation.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(operation: Operation[T], connection: Any) -> T:
    """Run an operation on an async connection, in whatever transaction it is in."""
    execute = _async_executor(connection)
    try:
        statement = next(operation)
        while True:
            with our_errors():
                rows = await execute(statement)
            statement = operation.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def send(operation: Operation[None], connection: psycopg.Connection[Any]) -> None:
    """Send an operation of one statement, whose rows nobody needs; in pipeline mode without waiting for it."""
    statement = next(operation)
    connection.execute(statement.sql, statement.args)


async def send_async(operation: Operation[None], connection: psycopg.AsyncConnection[Any]) -> None:
    """Send an operation of one statement, as `send` does."""
    statement = next(operation)
    await connection.execute(statement.sql, statement.args)


def _executor(connection: Any) -> Execute:
    if isinstance(connection, psycopg.Connection):
        return functools.partial(_on_psycopg, connection)
    if isinstance(connection, sqlalchemy.Connection):
        return functools.partial(_on_sqlalchemy, connection)
    if isinstance(connection, orm.Session | orm.scoped_session):
        return functools.partial(_on_sqlalchemy, connection.connection())
    if not is_async(connection) and callable(getattr(connection, "cursor", None)):
        return functools.partial(_on_dbapi, connection)
    raise TypeError(
        f"outbox can't use a {type(connection).__name__} as a connection: give it a psycopg or SQLAlchemy connection, "
        "a SQLAlchemy session, or a DB-API connection"
    )


def _async_executor(connection: Any) -> ExecuteAsync:
    if isinstance(connection, psycopg.AsyncConnection):
        return functools.partial(_on_async_psycopg, connection)
    return functools.partial(_on_async_sqlalchemy, connection)


def _on_psycopg(connection: psycopg.Connection[Any], statement: Statement) -> list[Row]:
    with connection.cursor(row_factory=tuple_row, binary=statement.raw) as cursor:
        if statement.raw:
            _load_raw(cursor)
        cursor.execute(statement.sql, statement.args)
        return cursor.fetchall()  # type: ignore[return-value]  # tuples are rows


async def _on_async_psycopg(connection: psycopg.AsyncConnection[Any], statement: Statement) -> list[Row]:
    async with connection.cursor(row_factory=tuple_row, binary=statement.raw) as cursor:
        if statement.raw:
            _load_raw(cursor)
        await cursor.execute(statement.sql, statement.args)
        return await cursor.fetchall()  # type: ignore[return-value]  # tuples are rows


def _on_sqlalchemy(connection: sqlalchemy.Connection, statement: Statement) -> list[Row]:
    sql = _placeholders(statement.sql, connection.dialect.paramstyle, connection.dialect.driver)
    return list(connection.exec_driver_sql(sql, statement.args))


async def _on_async_sqlalchemy(connection: Any, statement: Statement) -> list[Row]:
    if not isinstance(connection, sqlalchemy_async.AsyncConnection):
        connection = await connection.connection()
    sql = _placeholders(statement.sql, connection.dialect.paramstyle, connection.dialect.driver)
    return list(await connection.exec_driver_sql(sql, statement.args))


def _on_dbapi(connection: Any, statement: Statement) -> list[Row]:
    cursor = connection.cursor()
    try:
        cursor.execute(_placeholders(statement.sql, "format", "dbapi"), statement.args)
        rows = cursor.fetchall()
        return [tuple(row.values()) if isinstance(row, Mapping) else row for row in rows]
    finally:
        cursor.close()


@functools.cache
def _placeholders(sql: str, style: str, driver: str) -> str:
    """The statement with the driver's placeholders; only psycopg knows binary ones."""
    if style in ("format", "pyformat"):
        return sql if driver == "psycopg" else sql.replace("%b", "%s")
    if style == "numeric_dollar":
        numbers = iter(range(1, sql.count("%") + 1))
        return re.sub("%[sb]", lambda _: f"${next(numbers)}", sql)
    raise TypeError(f"outbox does not know how the driver {driver!r} writes placeholders ({style})")


def _load_raw(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    """No loader in Python: a message costs a microsecond or two, all in all."""
    for kind in ("json", "jsonb"):
        cursor.adapters.register_loader(kind, ByteaBinaryLoader)
    cursor.adapters.register_loader("timestamptz", Int8BinaryLoader)


@contextmanager
def our_errors() -> Iterator[None]:
    """Turn the SQLSTATEs of our functions into our exceptions; all other errors pass through."""
    try:
        yield
    except Exception as error:
        cause, state = _cause(error)
        if state in BY_SQLSTATE:
            raise BY_SQLSTATE[state](_message(cause)) from error
        if state in _NOT_THERE and "outbox." in str(cause):
            raise SchemaOutdated(None, SCHEMA_VERSION) from error
        raise


def _cause(error: BaseException) -> tuple[BaseException, str | None]:
    """The error that knows its SQLSTATE: SQLAlchemy and Django wrap the driver's, each in its own way."""
    found: BaseException | None = error
    while found is not None:
        state = getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)
        if state and not hasattr(found, "orig"):
            wrapped = found.__cause__  # SQLAlchemy's copy of asyncpg's error has the state, but not the hint
            return (wrapped if hasattr(wrapped, "hint") else found), state  # type: ignore[return-value]  # not None
        found = getattr(found, "orig", None) or found.__cause__
    return error, None


def _message(cause: Any) -> str:
    """The message and the hint, as psycopg, psycopg2 and asyncpg keep them."""
    diagnostic = getattr(cause, "diag", None)
    message = getattr(diagnostic, "message_primary", None) or getattr(cause, "message", None) or str(cause)
    hint = getattr(diagnostic, "message_hint", None) or getattr(cause, "hint", None)
    return f"{message} ({hint})" if hint else message
