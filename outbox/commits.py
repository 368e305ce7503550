"""Run operations each in a transaction of its own, on a connection that the caller has and goes on to use."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext import asyncio as sqlalchemy_async

from outbox import connection as connections
from outbox.errors import NotOwnTransaction
from outbox.operations import Operation

T = TypeVar("T")


def outside_of_a_transaction(connection: Any, why: str) -> Any:
    """The connection or session, unless it is in a transaction; a scoped session's own one."""
    if isinstance(connection, orm.scoped_session | sqlalchemy_async.async_scoped_session):
        connection = connection()
    if _is_in_transaction(connection):
        raise NotOwnTransaction(
            f"the connection is in a transaction, and {why}. Commit before it, or give it a connection of its own"
        )
    return connection


def _is_in_transaction(connection: Any) -> bool:
    kinds = sqlalchemy.Connection, sqlalchemy_async.AsyncConnection, orm.Session, sqlalchemy_async.AsyncSession
    if isinstance(connection, kinds):
        return connection.in_transaction()
    if getattr(connection, "in_atomic_block", False):  # Django's
        return True
    if hasattr(connection, "in_atomic_block"):
        connection = connection.connection
        if connection is None:  # not connected yet
            return False
    try:
        return int(connection.info.transaction_status) != psycopg.pq.TransactionStatus.IDLE
    except AttributeError:
        raise TypeError(
            f"outbox can't see whether a {type(connection).__name__} is in a transaction: give it a psycopg, "
            "psycopg2, SQLAlchemy or Django connection, or a SQLAlchemy session"
        ) from None


def commit(operation: Operation[T], connection: Any) -> T:
    try:
        result = connections.run(operation, connection)
        connection.commit()
    except BaseException:
        with suppress(Exception):
            connection.rollback()
        raise
    return result


async def commit_async(operation: Operation[T], connection: Any) -> T:
    try:
        result = await connections.run_async(operation, connection)
        await connection.commit()
    except BaseException:
        with suppress(Exception):
            await connection.rollback()
        raise
    return result
