"""When a message that failed is tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Literal, get_args

from outbox.errors import InvalidDeclaration
from outbox.logs import log

Jitter = Literal["full", "equal", "none"]
#: How long to wait after an attempt (the first is 1) that failed with an error.
Wait = Callable[[int, Exception], timedelta]

#: The longest wait, and the oldest age.
_LONGEST = timedelta(days=3650)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Retries:
    """When a failed message is tried again, and when it is given up on. By itself exponential backoff:

        Retries(first=timedelta(seconds=1), factor=2, longest=timedelta(hours=1), max_attempts=20)

    waits up to 1, 2, 4, … seconds, an hour at most. `Retries.linear`, `Retries.delays` and `Retries.by` wait otherwise.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    #: The attempt that is the last, 1 to 32,766: when it fails, the message becomes a dead letter.
    max_attempts: int = 20
    #: The ceiling of the first wait.
    first: timedelta = timedelta(seconds=1)
    #: What the ceiling is multiplied by at each further attempt.
    factor: float = 2.0
    #: The highest ceiling.
    longest: timedelta = _HOUR
    #: "full": a random wait up to the ceiling; "equal": half of it and a random part of the rest; "none": all of it.
    jitter: Jitter = "full"
    #: A message that fails when it is older than this, since publish, becomes a dead letter. None: age does not matter.
    max_age: timedelta | None = None
    _wait: Wait | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.max_attempts, int) or not 1 <= self.max_attempts <= 32766:
            raise InvalidDeclaration(f"max_attempts is {self.max_attempts}, it must be 1 to 32766")
        for name, value in ("first", self.first), ("longest", self.longest), ("max_age", self.max_age):
            if value is not None:
                _check_duration(name, value)
        if self.longest < self.first or not self.factor >= 1:
            raise InvalidDeclaration("retries need 0 <= first (or step) <= longest and factor >= 1")
        if self.jitter not in get_args(Jitter):
            raise InvalidDeclaration(f"jitter is {self.jitter!r}, it must be one of {', '.join(get_args(Jitter))}")
        if self.max_age == timedelta(0):
            raise InvalidDeclaration("max_age is 0: for no retries at all, say max_attempts=1")

    @classmethod
    def linear(
        cls,
        step: timedelta,
        *,
        longest: timedelta = _HOUR,
        max_attempts: int = 20,
        jitter: Jitter = "full",
        max_age: timedelta | None = None,
    ) -> Retries:
        """Wait up to one step after the first attempt, up to two after the second, and so on, up to `longest`.

        Retries.linear(timedelta(seconds=10), longest=timedelta(minutes=5))
        """
        _check_duration("step", step)
        return cls(max_attempts, step, 1.0, longest, jitter, max_age, partial(_linear, step))

    @classmethod
    def delays(
        cls,
        delays: Sequence[timedelta],
        *,
        max_attempts: int | None = None,
        jitter: Jitter = "none",
        max_age: timedelta | None = None,
    ) -> Retries:
        """Wait as listed; the try after the last delay is the last. With more `max_attempts` the last delay repeats.

        Retries.delays([timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=10)])
        """
        listed = tuple(delays)
        if not listed:
            raise InvalidDeclaration("Retries.delays got no delay: for no retries at all, say Retries(max_attempts=1)")
        for delay in listed:
            _check_duration("a delay", delay)
        attempts = len(listed) + 1 if max_attempts is None else max_attempts
        return cls(attempts, timedelta(0), 1.0, max(listed), jitter, max_age, partial(_listed, listed))

    @classmethod
    def by(
        cls,
        wait: Wait,
        *,
        longest: timedelta = _LONGEST,
        max_attempts: int = 20,
        jitter: Jitter = "none",
        max_age: timedelta | None = None,
    ) -> Retries:
        """Wait as long as a function of the attempt (the first is 1) and its error says, `longest` at most.

        A function that raises, or returns no timedelta, loses nothing: the message waits as `Retries()` has it.

            def wait(attempt, error):
                return timedelta(minutes=15) if isinstance(error, RateLimited) else timedelta(seconds=attempt)

            Retries.by(wait)
        """
        if not callable(wait):
            raise InvalidDeclaration(f"Retries.by got {wait!r}, it must be a function of attempt and error")
        return cls(max_attempts, timedelta(0), 1.0, longest, jitter, max_age, wait)

    def ceiling(self, attempt: int, error: Exception | None = None) -> timedelta:
        """Return the longest wait after a failed attempt (the first is 1)."""
        if self._wait is not None:
            return min(self._asked(self._wait, attempt, error or Exception()), self.longest)
        try:
            growth = self.factor ** (attempt - 1)
        except OverflowError:
            return self.longest
        return timedelta(seconds=min(self.first.total_seconds() * growth, self.longest.total_seconds()))

    def delay(self, attempt: int, chance: random.Random, error: Exception | None = None) -> timedelta:
        """Return how long to wait after a failed attempt (the first is 1)."""
        ceiling = self.ceiling(attempt, error)
        if self.jitter == "none":
            return ceiling
        fixed = 0.5 if self.jitter == "equal" else 0.0
        return (fixed + (1 - fixed) * chance.random()) * ceiling

    def _asked(self, wait: Wait, attempt: int, error: Exception) -> timedelta:
        """What the user's function says, if it makes sense."""
        try:
            asked = wait(attempt, error)
            _check_duration("the wait", asked)
        except Exception as problem:
            log(logging.ERROR, "the function of Retries.by failed", attempt=attempt, reason=type(problem).__name__)
            return Retries().ceiling(attempt)
        return asked


def _linear(step: timedelta, attempt: int, _: Exception) -> timedelta:
    return min(step * attempt, _LONGEST)


def _listed(delays: tuple[timedelta, ...], attempt: int, _: Exception) -> timedelta:
    return delays[min(attempt, len(delays)) - 1]


def _check_duration(what: str, value: object) -> None:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST:
        raise InvalidDeclaration(f"{what} is {value!r}, it must be a timedelta from 0 to {_LONGEST.days} days")
