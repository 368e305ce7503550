"""What is handled in order: a partition of another log, or a part of a queue, and how far it has come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from outbox.chunks import Chunk
from outbox.relay.feeding.message import Fed


class Lane:
    """The messages of one lane that are in hand, in their order.

    Args:
        number: which partition of the subscription's own topic its detours go by.
        stands: the offset that our database has for it; None: it has none.
        untried: messages before this offset are not tried here: whoever began with them died.
        parked: what waits on a detour: keys, or an empty text for all of the lane.
    """

    def __init__(
        self, name: str, number: int, stands: int | None, untried: int = 0, parked: Iterable[str] = ()
    ) -> None:
        self.name, self.number, self.stands, self.untried = name, number, stands, untried
        self.parked = set(parked)
        #: The offset behind the last message that came.
        self.next = stands or 0
        #: All that is not settled, and of that what no handler has begun with.
        self.window: deque[Fed] = deque()
        self.waiting: deque[Fed] = deque()
        #: The size of the payloads of all that is not settled.
        self.bytes = 0
        self.chunks: set[Chunk] = set()
        #: Held while it is settled: what is on a detour changes meanwhile.
        self.settling = asyncio.Lock()
        #: Nothing more of it is begun; it is another's soon.
        self.is_ending = False
        #: It is none of ours any more.
        self.is_over = False

    def enter(self, message: Fed) -> bool:
        """Take in a message, unless it is in hand already."""
        if self.is_ending or message.offset < self.next:
            return False
        self.next = message.offset + 1
        self.window.append(message)
        self.bytes += message.batch.bytes
        return True

    def closed(self) -> tuple[list[Fed], int]:
        """The first messages, up to one of which nothing is known yet; and where the lane stands behind them."""
        closed: list[Fed] = []
        for message in self.window:
            if message.outcome is None:
                return closed, message.offset
            closed.append(message)
        return closed, self.next

    def closed_anywhere(self) -> list[Fed]:
        """All of which something is known."""
        return [message for message in self.window if message.outcome is not None]

    def forget(self, settled: list[Fed]) -> None:
        """They are settled."""
        self.bytes -= sum(message.batch.bytes for message in settled)
        if settled and self.window and settled[-1] is self.window[len(settled) - 1]:
            for _ in settled:
                self.window.popleft()
            return
        gone = set(map(id, settled))
        self.window = deque(message for message in self.window if id(message) not in gone)

    def park(self, message: Fed, on_failure: str | None) -> None:
        """It goes round: what must stay behind it waits, or follows it."""
        if on_failure == "park" and message.key is not None:
            self.parked.add(message.key)
        elif on_failure in ("block", "dead-letter"):
            self.parked.add("")

    @property
    def has_failures(self) -> bool:
        """Has something failed that is not settled yet?"""
        return any(isinstance(message.outcome, Exception) for message in self.window)

    def put_back(self, messages: Iterable[Fed]) -> None:
        """They were not tried: they are the next again."""
        if not self.is_ending:
            self.waiting = deque(sorted({*messages, *self.waiting}, key=lambda message: message.offset))

    def halt(self) -> None:
        """Begin with nothing more."""
        self.is_ending = True
        self.waiting.clear()
        for chunk in self.chunks:
            chunk.halt()
