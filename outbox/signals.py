"""SIGTERM and SIGINT: told to an event loop, and still seen when that loop stands still."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

_ASKED_TO_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Calls `stop` in the event loop for each SIGTERM or SIGINT, until the process ends. To be made in the main thread.

    Each signal also leaves a byte in a socket, which the loop takes out: one that lies there was not seen yet.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), stop
        self._seen, self._raised = socket.socketpair()
        for end in (self._seen, self._raised):
            end.setblocking(False)
        self._loop.add_reader(self._seen, self._take)
        for number in _ASKED_TO_STOP:
            signal.signal(number, self._tell)
        signal.set_wakeup_fd(self._raised.fileno(), warn_on_full_buffer=False)

    def is_waiting(self) -> bool:
        """Whether a signal came that the event loop has not seen; may be called from another thread."""
        with suppress(OSError):
            waiting = self._seen.recv(65536, socket.MSG_PEEK)
            return any(number in waiting for number in _ASKED_TO_STOP)
        return False

    def _tell(self, number: int, frame: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: we are ending anyway
            self._loop.call_soon_threadsafe(self._stop)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            self._seen.recv(65536)
