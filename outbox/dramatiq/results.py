"""What actors return, kept in Postgres."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from dramatiq import Encoder, Message
from dramatiq.results import ResultBackend, ResultMissing, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT, Missing

from outbox.dramatiq.pool import Pool
from outbox.operations import Operation, Statement

#: Seconds between looks for a result that is waited for: the first, and at most.
_FIRST, _SLOWEST = 0.005, 0.1


class PostgresBackend(ResultBackend):
    """Keeps results until they expire, 24 days at most; old ones go by TRUNCATE.

    A result is stored before its message is settled, and does not wait for the disk: a crash that takes the one back
    takes back the other.

    Args:
        url: the database; None: `OUTBOX_DATABASE_URL`.
        namespace: applications that share a database have each its own.
        encoder: of results; dramatiq's by default.
        pool_size: connections at most, 1 or more.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "dramatiq-results",
        encoder: Encoder | None = None,
        pool_size: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(namespace=namespace, encoder=encoder, **options)
        self.pool = Pool(url, pool_size)

    def get_result(self, message: Message[Any], *, block: bool = False, timeout: int | None = None) -> Any:
        """What the message's actor returned.

        Args:
            block: wait for it.
            timeout: for so many milliseconds; None: 10 seconds.

        Raises:
            ResultMissing: it is not there, and `block` is false.
            ResultTimeout: it did not come in time.
            ResultFailure: the actor failed.
        """
        key = self.build_message_key(message)
        for _ in _looks((DEFAULT_TIMEOUT if timeout is None else timeout) / 1000 if block else None):
            if (result := self._get(key)) is not Missing:
                return self.unwrap_result(result)  # type: ignore[no-untyped-call]
        raise (ResultTimeout if block else ResultMissing)(message)

    def _get(self, message_key: str) -> Any:
        value = self.pool.run(_result_of(message_key))
        return Missing if value is None else self.encoder.decode(value)

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        self.pool.run(_store(message_key, self.encoder.encode(result), timedelta(milliseconds=ttl)))


def _looks(seconds: float | None) -> Iterator[None]:
    """Now, and then ever more seldom until the time is over; None: only now."""
    deadline = time.monotonic() + (seconds or 0)
    pause = _FIRST
    yield
    while seconds is not None and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, _SLOWEST)
        yield


def _result_of(key: str) -> Operation[bytes | None]:
    rows = yield Statement("SELECT outbox.result_of(%s)", (key,))
    return None if rows[0][0] is None else bytes(rows[0][0])


def _store(key: str, value: bytes, ttl: timedelta) -> Operation[None]:
    yield Statement("SELECT outbox.store_result(%s, %b, %s)", (key, value, ttl))
