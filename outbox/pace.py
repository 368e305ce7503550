"""How much a consumer takes at once: much of fast work, little of slow work."""

from __future__ import annotations

from collections import deque

from outbox.model import Message

#: Seconds of work to have in hand, so that handlers never wait for a pull.
_AHEAD = 0.25
#: Seconds of work to hand to a runner at a time, so that a fast handler pays no hop for each message.
_CHUNK = 0.02
_MOST = 4_000
#: So many times what should be in hand is too much, if it is so at so many looks in a row: a handler has become slow,
#: and not one call of it.
_FAR, _LOOKS = 4, 10
#: Bytes of payloads to have in hand at most, as far as handlers need no more to be busy.
_MOST_BYTES = 8 * 1024 * 1024


class Pace:
    """Watches how long handlers take.

    Args:
        concurrency: handlers at once.
        prefetch: messages in hand at most; None: by the handlers' speed.
        batch: messages that a handler takes at once.
        whole_leases: do handlers settle leases themselves, whole?
    """

    def __init__(self, concurrency: int, prefetch: int | None, batch: int = 1, whole_leases: bool = False) -> None:
        self._concurrency = concurrency
        self._least = 2 * concurrency * batch
        self._prefetch, self._whole_leases = prefetch, whole_leases
        self._seconds: float | None = None
        self._bytes = 1.0
        #: Looks in a row that found too much waiting.
        self._too_much = 0

    def note_size(self, messages: int, size: int) -> None:
        """Take into account how large the messages of a pull were."""
        self._bytes = max(1.0, 0.5 * self._bytes + 0.5 * size / messages)

    def fitting(self, size: int) -> int:
        """Messages of which so many bytes of payloads are to be expected, one at least."""
        return max(1, int(size / self._bytes))

    def note(self, messages: int, seconds: float) -> None:
        """Take into account that a runner handled so many messages in so much time."""
        each = seconds / messages
        self._seconds = each if self._seconds is None else 0.8 * self._seconds + 0.2 * each

    def surplus(self, waiting: deque[Message]) -> list[Message]:
        """Take from the right what is far more than there should be in hand: whole leases, if handlers settle them."""
        self._too_much = self._too_much + 1 if len(waiting) > max(_FAR * self.in_hand, self._prefetch or 0) else 0
        if self._too_much < _LOOKS:
            return []
        taken: list[Message] = []
        while len(waiting) > self.in_hand:
            taken.append(waiting.pop())
        while self._whole_leases and waiting and waiting[-1].lease_id == taken[-1].lease_id:
            taken.append(waiting.pop())
        return taken

    @property
    def in_hand(self) -> int:
        """Messages to have pulled and not yet handled."""
        return max(self._concurrency, min(self._wanted, self.fitting(_MOST_BYTES)))

    @property
    def _wanted(self) -> int:
        if self._prefetch is not None:
            return self._prefetch
        if self._seconds is None:
            return self._least
        by_speed = int(self._concurrency * _AHEAD / max(self._seconds, 1e-7))
        return max(self._least, min(by_speed, _MOST))

    @property
    def chunk(self) -> int:
        """Messages to hand to a runner at a time."""
        if self._seconds is None:
            return 1
        share = max(1, self.in_hand // (2 * self._concurrency))
        return max(1, min(int(_CHUNK / max(self._seconds, 1e-7)), share))
