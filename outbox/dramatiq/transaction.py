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

    def __init__(self, connection: Any, outer: Scope | None) -> None:
        self.connection, self.outer = connection, outer
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
        scope = self._innermost()
        return scope.connection if scope else None

    @property
    def processed(self) -> PostgresMessage | None:
        """The message whose actor has ended, and whose middleware is at work."""
        return self._processed.get()

    @contextmanager
    def on(self, connection: Any) -> Iterator[None]:
        """Send in the transaction of a connection.

        Raises:
            RuntimeError: the block is left in another thread or task than it was entered in.
        """
        if connections.is_async(connection):
            raise TypeError(
                f"actors are sent messages by blocking calls: in a transaction of {type(connection).__name__} "
                "use its run_sync, or Outbox.publish"
            )
        scope = Scope(connection, self._innermost())
        self._scope.set(scope)
        try:
            yield
        finally:
            scope.is_open = False
            is_known = self._knows(scope)
            if is_known:
                self._scope.set(self._innermost())
        if not is_known:
            raise RuntimeError(
                "broker.transaction was entered in one thread or task and left in another, as a generator does that a "
                "framework runs in threads: what was sent in between was not part of it; use it where you send"
            )

    def _innermost(self) -> Scope | None:
        """Blocks of generators may end in any order."""
        scope = self._scope.get()
        while scope is not None and not scope.is_open:
            scope = scope.outer
        return scope

    def _knows(self, scope: Scope) -> bool:
        known = self._scope.get()
        while known is not None and known is not scope:
            known = known.outer
        return known is scope

    @contextmanager
    def noting_refusals(self) -> Iterator[None]:
        """What can't be sent after an actor has ended is noted at its message: who sends it is middleware."""
        try:
            yield
        except Exception as error:
            if (processed := self._processed.get()) is not None:
                processed.refused = error
            raise

    @contextmanager
    def after(self, message: PostgresMessage) -> Iterator[None]:
        """Send with the settlement of a message."""
        token = self._processed.set(message)
        try:
            yield
        finally:
            self._processed.reset(token)
