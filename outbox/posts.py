"""Where a handler is at work: since when it is called, and how that call can be ended.

A post interrupts nothing but the handler: not what waits for a connection before it, nor the commit after it.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from outbox.chunks import Call, Chunk

#: Seconds that a call which was interrupted may take to end.
_GRACE = 5.0
#: Seconds that the database may take to hear that a query is not wanted any more.
_CANCEL = 2.0

GiveUp = Callable[[Chunk, Call], None]


class Interrupted(BaseException):
    """Raised in a handler that is over its time limit; no `except Exception` swallows it."""


class Post:
    """One runner, and the call that it is at.

    Args:
        limit: seconds that a handler may take; infinite if it has no limit.
        give_up: told, in the watchdog's thread, of a call that went on although it was interrupted.
    """

    def __init__(self, limit: float, give_up: GiveUp) -> None:
        self.limit, self._give_up = limit, give_up
        self._lock = threading.Lock()
        #: What the runner is at, whether or not its handler has been called yet.
        self.chunk: Chunk | None = None
        self.call: Call | None = None
        #: The handler's transaction, if it has one whose query can be cancelled.
        self.connection: psycopg.Connection[Any] | None = None
        #: When the handler was called; None: it is not at work.
        self.since: float | None = None
        self._interrupted_at = 0.0
        #: Was the handler of this call interrupted?
        self.interrupted = False

    def take(self, chunk: Chunk, call: Call) -> None:
        """The runner begins with a call."""
        self.chunk, self.call, self.interrupted = chunk, call, False

    def begin(self) -> None:
        """From here on the handler runs."""
        self.since = time.monotonic()

    def end(self) -> None:
        """From here on nothing interrupts; it may be called twice."""
        with self._lock:
            self.since = self.connection = None
            if self.interrupted:
                self._calm()

    def is_over(self) -> bool:
        """Has the handler that is at work had its time? If not, an interrupt was meant for the one before it."""
        return self.since is not None and time.monotonic() - self.since >= self.limit

    def go_on(self) -> None:
        """What was interrupted has ended, and the call goes on with its next message."""
        self.end()
        self.interrupted = False

    def look(self) -> None:
        """Interrupt a handler that is over its limit; give up what goes on regardless. In the watchdog's thread."""
        with self._lock:
            if self.call is None or not self.is_over():
                return
            if not self.interrupted:
                self.interrupted, self._interrupted_at = True, time.monotonic()
                self._interrupt()
            elif time.monotonic() - self._interrupted_at > _GRACE and self.chunk is not None:
                self.since = None
                self._give_up(self.chunk, self.call)

    def forgive(self, seconds: float) -> None:
        """The whole process stood still for so long."""
        with self._lock:
            if self.since is not None:
                self.since += seconds
            self._interrupted_at += seconds

    def _interrupt(self) -> None:
        raise NotImplementedError

    def _calm(self) -> None:
        raise NotImplementedError


class ThreadPost(Post):
    """That of the thread that makes it."""

    def __init__(self, limit: float, give_up: GiveUp) -> None:
        super().__init__(limit, give_up)
        self._ident = ctypes.c_ulong(threading.get_ident())

    def _interrupt(self) -> None:
        """It strikes as soon as the thread runs Python code; a query is cancelled, so that it does."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(self._ident, ctypes.py_object(Interrupted))
        if self.connection is not None:
            with suppress(psycopg.Error):
                self.connection.cancel_safe(timeout=_CANCEL)

    def _calm(self) -> None:
        """Take back what has not struck yet."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(self._ident, None)


class TaskPost(Post):
    """That of a task of the event loop."""

    task: asyncio.Task[None]

    def _interrupt(self) -> None:
        self.task.get_loop().call_soon_threadsafe(self._cancel, self.call)

    def _cancel(self, call: Call | None) -> None:
        if self.call is call and self.is_over():
            self.task.cancel()
        elif self.call is call:  # it has ended meanwhile
            self.interrupted = False

    def _calm(self) -> None:
        """A task is cancelled only while its handler runs."""
