"""When a message that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from outbox.errors import InvalidDeclaration


@dataclass(frozen=True, slots=True)
class Retries:
    """Exponential backoff with full jitter: a random wait up to a ceiling that grows with each attempt.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    #: The attempt that is the last, 1 to 32,766: when it fails, the message becomes a dead letter.
    max_attempts: int = 20
    #: The ceiling of the first wait.
    first: timedelta = timedelta(seconds=1)
    #: What the ceiling is multiplied by at each further attempt.
    factor: float = 2.0
    #: The highest ceiling.
    longest: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 32766:
            raise InvalidDeclaration(f"max_attempts is {self.max_attempts}, it must be 1 to 32766")
        if self.first < timedelta(0) or self.longest < self.first or self.factor < 1:
            raise InvalidDeclaration("retries need 0 <= first <= longest and factor >= 1")

    def ceiling(self, attempt: int) -> timedelta:
        """Return the longest wait after a failed attempt (the first is 1)."""
        try:
            growth = self.factor ** (attempt - 1)
        except OverflowError:
            return self.longest
        return timedelta(seconds=min(self.first.total_seconds() * growth, self.longest.total_seconds()))

    def delay(self, attempt: int, chance: random.Random) -> timedelta:
        """Return how long to wait after a failed attempt (the first is 1)."""
        return chance.random() * self.ceiling(attempt)
