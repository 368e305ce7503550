"""Look after handlers that take too long, from a thread of its own: a stuck event loop can't stop it.

over its limit ─► interrupted ─► still there after a grace time ─► given up: the worker must be replaced
the event loop stands still ─► the worker is replaced from here
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from outbox.posts import Post

#: Seconds between looks, at most.
_LONGEST_LOOK = 1.0


class Watchdog:
    """Looks at posts, and at the event loop.

    Args:
        ask: asks the event loop to call `answer`.
        stall: seconds without an answer after which the event loop counts as stuck.
        stuck: told so; if it returns, we look on.
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

    @property
    def silence(self) -> float:
        """Seconds since the event loop answered."""
        return time.monotonic() - self._answered

    def watch(self, post: Post) -> None:
        self._posts.append(post)

    def forget(self, post: Post) -> None:
        self._posts.remove(post)

    def _run(self) -> None:
        asked = time.monotonic()
        while not self._ended.wait(self._pause):
            self._forgive(time.monotonic() - asked - 3 * _LONGEST_LOOK)
            asked = time.monotonic()
            try:
                self._ask(self._answer)
            except RuntimeError:  # the loop has closed
                return
            for post in list(self._posts):
                post.look()
            if time.monotonic() - self._answered > self._stall:
                self._stuck()
                self._answered = time.monotonic()

    def _forgive(self, seconds: float) -> None:
        """If we stood still ourselves, the process was stopped: nobody is to blame."""
        if seconds > 0:
            self._answered = time.monotonic()
            for post in list(self._posts):
                post.forgive(seconds)

    def _answer(self) -> None:
        self._answered = time.monotonic()

    @property
    def _pause(self) -> float:
        return min([_LONGEST_LOOK, self._stall / 5, *(post.limit / 10 for post in list(self._posts))])
