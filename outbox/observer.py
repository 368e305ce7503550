"""Who is told what a consumer does: what metrics are made of. Nobody, if nobody asks."""

from __future__ import annotations

import time
from typing import Literal, Protocol

from outbox.chunks import Chunk
from outbox.operations import Pulled

#: Seconds within which an answer says what time it is.
_PROMPT = 0.5


class Clock:
    """The database's clock, as far as this machine knows it."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def compare(self, asked: float, told: float, heard: float) -> None:
        """Take into account what the database said, unless it took so long that it says little."""
        if heard - asked < _PROMPT:
            self._ahead = told - (asked + heard) / 2

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead


class Observer(Protocol):
    """Told of one subscription, by the batch and not by the message; in its event loop, so it must be quick."""

    def pulled(self, pulled: Pulled | Literal["away", "lost"], seconds: float) -> None:
        """A pull ended; "away": there was no database; "lost": the worker must register anew."""

    def handled(self, chunk: Chunk) -> None:
        """A runner came to the end of a chunk, or was given up on it; its `failed` are told one by one, too."""

    def failed(self, outcome: Literal["retry", "dead", "deferred", "dropped"], reason: str | None) -> None:
        """A message was not done; a reason has only what is dead."""

    def settled(self, leases: int, seconds: float) -> None:
        """A settlement committed; those in handlers' own transactions are not told."""

    def lost(self) -> None:
        """A lease is in other hands."""


class Nobody:
    """An observer that looks away."""

    def pulled(self, pulled: Pulled | Literal["away", "lost"], seconds: float) -> None: ...

    def handled(self, chunk: Chunk) -> None: ...

    def failed(self, outcome: str, reason: str | None) -> None: ...

    def settled(self, leases: int, seconds: float) -> None: ...

    def lost(self) -> None: ...


#: Shared by all consumers that nobody observes.
NOBODY = Nobody()
