"""What relays and sources have come to in this process: the one place where metrics and `outbox status` look."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Literal
from urllib.parse import urlsplit

from outbox.relay.circuit import Circuit

#: delivered: the other side has it; retried: it refused it, or was away, and an attempt is spent; rejected: for ever.
Verdict = Literal["delivered", "retried", "rejected"]

#: Seconds, upper ends of a histogram.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Tally:
    """Counts one relay's or source's outcomes; `circuit` tells how it stands."""

    def __init__(self, name: str, target: str, circuit: Circuit) -> None:
        self.name, self.target, self.circuit = name, shown(target), circuit
        self.outcomes: Counter[Verdict] = Counter()
        #: Rounds by how long they took to be confirmed, a count for each of BUCKETS and one beyond.
        self.rounds = [0] * (len(BUCKETS) + 1)
        #: Seconds of all rounds.
        self.seconds = 0.0

    def note(self, verdict: Verdict, messages: int = 1) -> None:
        self.outcomes[verdict] += messages

    def note_round(self, seconds: float) -> None:
        """Messages that went out together have all been confirmed, or given up."""
        self.rounds[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    @property
    def failed(self) -> int:
        return self.outcomes["retried"] + self.outcomes["rejected"]

    @property
    def delivered(self) -> int:
        return self.outcomes["delivered"]


def shown(url: str) -> str:
    """A URL without what may be a secret in it: its path and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
