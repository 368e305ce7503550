"""What dramatiq's rate limiters and barriers count with, kept in Postgres."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from dramatiq.rate_limits import RateLimiterBackend

from outbox.dramatiq.pool import Pool
from outbox.operations import Operation, Statement

#: Seconds between looks for an event that is waited for: the first, and at most.
_FIRST, _SLOWEST = 0.005, 0.1


class PostgresBackend(RateLimiterBackend):
    """Counts in Postgres: each call is one statement, and atomic.

    Its commits don't wait for the disk: a crash may take back the last moments, and with them the settlements that
    came after.

    Args:
        url: the database; None: `OUTBOX_DATABASE_URL`.
        pool_size: connections at most, 1 or more.
    """

    def __init__(self, url: str | None = None, *, pool_size: int = 10) -> None:
        self.pool = Pool(url, pool_size)

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Set a counter for `ttl` milliseconds, unless it exists."""
        return self.pool.run(_ask("SELECT outbox.add_counter(%s, %s, %s)", key, value, _milliseconds(ttl)))

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Add to a counter, unless it would exceed the maximum; false: it would."""
        return self._move(key, amount, None, maximum, ttl)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Take from a counter, unless it would fall below the minimum; false: it would."""
        return self._move(key, -amount, minimum, None, ttl)

    def incr_and_sum(self, key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: int) -> bool:
        """Add to a counter, unless the sum of many would exceed the maximum; false: it would."""
        return self.pool.run(_move_within(key, keys, amount, maximum, _milliseconds(ttl)))

    def wait(self, key: str, timeout: int | None) -> bool:
        """Wait until `wait_notify` was called for a key; false: it was not, within so many milliseconds."""
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        pause = _FIRST
        while not self.pool.run(_ask("SELECT outbox.counter_value(%s) IS NOT NULL", _event(key))):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _SLOWEST)
        return True

    def wait_notify(self, key: str, ttl: int) -> None:
        """End the waits for a key, those too that begin within `ttl` milliseconds."""
        self.pool.run(_ask("SELECT outbox.add_counter(%s, 1, %s)", _event(key), _milliseconds(ttl)))

    def _move(self, key: str, amount: int, lowest: int | None, highest: int | None, ttl: int) -> bool:
        return self.pool.run(
            _ask("SELECT outbox.move_counter(%s, %s, %s, %s, %s)", key, amount, lowest, highest, _milliseconds(ttl))
        )


def _event(key: str) -> str:
    return f"{key}@event"


def _milliseconds(ttl: int) -> timedelta:
    return timedelta(milliseconds=ttl)


def _move_within(key: str, keys: Callable[[], list[str]], amount: int, maximum: int, ttl: timedelta) -> Operation[bool]:
    """The keys are asked for when there is a connection: they may be of the present second."""
    return (
        yield from _ask("SELECT outbox.move_counter_within(%s, %s, %s, %s, %s)", key, [*keys()], amount, maximum, ttl)
    )


def _ask(sql: str, *args: object) -> Operation[bool]:
    rows = yield Statement(sql, args)
    return bool(rows[0][0])
