"""What the processes of a run note in pages that they share with the harness: how much is done, and when."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: Places in a page, each an 8-byte integer: messages done, the first and the last time (monotonic ns), is the process
#: ready, may it begin; then for each number the time at which it was done, 0 if it was not.
DONE, FIRST, LAST, READY, BEGIN, TIMES = range(6)


class Notes:
    """The page of one process: a publisher notes when COMMIT returned, a consumer when a message was handled."""

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self.page = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self._done = 0
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path, numbers: int) -> Notes:
        """Make the page, for messages with numbers from 0 to below `numbers`."""
        with open(path, "wb") as file:
            file.truncate(8 * (TIMES + numbers))  # sparse: what is never noted takes no space
        return cls(str(path))

    def wait_for_start(self) -> None:
        """Say that this process is ready, and wait until all are."""
        self.page[READY] = 1
        while not self.page[BEGIN]:
            time.sleep(0.001)

    def note(self, number: int) -> None:
        """The message is done, now; any thread may say so."""
        now, page = time.monotonic_ns(), self.page
        with self._lock:
            if not self._done:
                page[FIRST] = now
            self._done += 1
            page[TIMES + number] = now
            page[LAST] = now
            page[DONE] = self._done

    @property
    def done(self) -> int:
        return self.page[DONE]

    @property
    def first(self) -> int:
        """When the first message was done; 0: none was."""
        return self.page[FIRST]

    @property
    def last(self) -> int:
        return self.page[LAST]

    @property
    def is_ready(self) -> bool:
        return bool(self.page[READY])

    def begin(self) -> None:
        self.page[BEGIN] = 1

    def times(self, since: int = 0, until: int | None = None) -> memoryview:
        """When the messages of these numbers were done."""
        return self.page[TIMES + since : None if until is None else TIMES + until]


class Arrival(NamedTuple):
    """A message that was committed and handled."""

    number: int
    #: Monotonic ns, when COMMIT had returned.
    committed: int
    #: Milliseconds from then to the handler; a handler that began before the publisher had noted it: 0.
    latency: float


class Ledger(NamedTuple):
    """Whether every message arrived, and none that was not published; in messages."""

    published: int
    lost: int
    doubled: int
    #: Handled, and yet never committed.
    made_up: int


def ledger(published: Sequence[Notes], handled: Sequence[Notes]) -> Ledger:
    """Compare what publishers committed with what consumers handled."""
    sent, got = merged(published), merged(handled)
    lost = sum(1 for committed, at in zip(sent, got, strict=True) if committed and not at)
    made_up = sum(1 for committed, at in zip(sent, got, strict=True) if at and not committed)
    times = sum(notes.done for notes in handled)
    return Ledger(sum(map(bool, sent)), lost, times - sum(map(bool, got)), made_up)


def missing(handled: Sequence[Notes], messages: int) -> int:
    """How many of the messages 0 to below `messages` nobody handled."""
    return merged(handled)[:messages].count(0)


def arrivals(published: Sequence[Notes], handled: Sequence[Notes]) -> list[Arrival]:
    """By number; what did not arrive is left out."""
    return [
        Arrival(number, committed, max(0, at - committed) / 1e6)
        for number, (committed, at) in enumerate(zip(merged(published), merged(handled), strict=True))
        if committed and at
    ]


def merged(pages: Sequence[Notes]) -> list[int]:
    """When each number was first done, by whichever process; 0: by none."""
    found = list(pages[0].times())
    for notes in pages[1:]:
        for number, at in enumerate(notes.times()):
            if at and (not found[number] or at < found[number]):
                found[number] = at
    return found
