"""Look after calls of handlers that take too long, from a thread of its own: a stuck event loop can't stop it.

over its limit ─► cancelled ─► still there after a grace time ─► given up: the worker must be replaced
the event loop stands still ─► the worker is replaced from here
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable

from outbox.chunks import Call, Chunk
from outbox.handling import Interrupted
from outbox.logs import log

#: Seconds that a cancelled call may take to end.
_GRACE = 5.0
#: Seconds between looks, at most.
_LONGEST_LOOK = 1.0


class Post:
    """A runner under the watchdog's eyes: what it is at work on, and since when.

    Args:
        limit: seconds that a call may take.
        interrupt: ends the call, as far as that is possible; called in the watchdog's thread.
        calm: takes an interrupt back that has not struck yet; called by the runner.
        give_up: told that the call did not end; called in the watchdog's thread.
    """

    def __init__(
        self,
        limit: float,
        interrupt: Callable[[Call], None],
        calm: Callable[[], None],
        give_up: Callable[[Chunk, Call], None],
    ) -> None:
        self.limit = limit
        self._interrupt, self._calm, self._give_up = interrupt, calm, give_up
        self._lock = threading.Lock()
        self.chunk: Chunk | None = None
        self.call: Call | None = None
        self._since = 0.0
        #: Was the call under way, or the last one, interrupted?
        self.interrupted = False

    def begin(self, chunk: Chunk, call: Call) -> None:
        self.interrupted = False
        self._since = time.monotonic()
        self.chunk, self.call = chunk, call

    def end(self) -> None:
        """From here on nothing interrupts; it may be called twice."""
        with self._lock:
            self.call = None
            if self.interrupted:
                self._calm()

    def look(self) -> None:
        """Interrupt what is over its limit; give up what goes on regardless."""
        with self._lock:
            call, age = self.call, time.monotonic() - self._since
            if call is None or age < self.limit:
                return
            if not self.interrupted:
                self.interrupted = True
                self._interrupt(call)
            elif age > self.limit + _GRACE:
                self.call = None
                assert self.chunk is not None
                self._give_up(self.chunk, call)


class Watchdog:
    """Looks at posts, and at the event loop.

    Args:
        ask: asks the event loop to call `answer`.
        stall: seconds without an answer after which the event loop counts as stuck.
        stuck: told so, once.
    """

    def __init__(self, ask: Callable[[Callable[[], None]], object], stall: float, stuck: Callable[[], None]) -> None:
        self._ask, self._stall, self._stuck = ask, stall, stuck
        self._posts: list[Post] = []
        self._answered = time.monotonic()
        self._ended = threading.Event()

    def start(self) -> None:
        self._answered = time.monotonic()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def watch(self, post: Post) -> Post:
        self._posts.append(post)
        return post

    def forget(self, post: Post) -> None:
        self._posts.remove(post)

    def _run(self) -> None:
        asked = time.monotonic()
        while not self._ended.wait(self._pause):
            if time.monotonic() - asked > 3 * _LONGEST_LOOK:  # we stood still ourselves: the process was stopped
                self._answered = time.monotonic()
            asked = time.monotonic()
            try:
                self._ask(self._answer)
            except RuntimeError:  # the loop has closed
                return
            for post in list(self._posts):
                post.look()
            if time.monotonic() - self._answered > self._stall:
                log(logging.CRITICAL, "the event loop stands still: the worker is replaced", seconds=self._stall)
                self._stuck()
                return

    def _answer(self) -> None:
        self._answered = time.monotonic()

    @property
    def _pause(self) -> float:
        return min([_LONGEST_LOOK, self._stall / 5, *(post.limit / 10 for post in list(self._posts))])


def interrupt_thread(ident: int) -> None:
    """Raise Interrupted in a thread, as soon as it runs Python code again."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Interrupted))


def calm_thread(ident: int) -> None:
    """Take back an interrupt that has not struck yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)
