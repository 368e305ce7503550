"""Where a message that is sent goes: into the caller's transaction, or with the settlement of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from outbox import connection as connections
from outbox.dramatiq.consumer import PostgresMessage


class Scope:
    """The caller's connection, for as long as its block runs."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        #: A task that was begun in the block has a copy of its context, and may outlive it.
        self.is_open = True


class Sending:
    """What sends of a broker belong to, for each thread and task on its own."""

    def __init__(self) -> None:
        self._scope: ContextVar[Scope | None] = ContextVar("scope", default=None)
        self._processed: ContextVar[PostgresMessage | None] = ContextVar("processed", default=None)

    @property
    def connection(self) -> Any | None:
        """The connection of the innermost transaction; None: there is none."""
        scope = self._scope.get()
        return scope.connection if scope is not None and scope.is_open else None

    @property
    def processed(self) -> PostgresMessage | None:
        """The message whose actor has ended, and whose middleware is at work."""
        return self._processed.get()

    @contextmanager
    def on(self, connection: Any) -> Iterator[None]:
        """Send in the transaction of a connection."""
        if connections.is_async(connection):
            raise TypeError(
                f"actors are sent messages by blocking calls: in a transaction of {type(connection).__name__} "
                "use its run_sync, or Outbox.publish"
            )
        scope = Scope(connection)
        token = self._scope.set(scope)
        try:
            yield
        finally:
            scope.is_open = False
            self._scope.reset(token)

    @contextmanager
    def after(self, message: PostgresMessage) -> Iterator[None]:
        """Send with the settlement of a message."""
        token = self._processed.set(message)
        try:
            yield
        finally:
            self._processed.reset(token)
