"""Results and counters in Postgres."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.results import ResultMissing, ResultTimeout

from outbox.dramatiq.rate_limits import PostgresBackend as Counters
from outbox.dramatiq.results import PostgresBackend as ResultsBackend
from outbox.errors import InvalidDeclaration
from tests.shop_floor import Database, value


@pytest.fixture
def results(one_database: Database) -> Iterator[ResultsBackend]:
    backend = ResultsBackend(one_database.url)
    yield backend
    backend.pool.close()


@pytest.fixture
def counters(one_database: Database) -> Iterator[Counters]:
    backend = Counters(one_database.url)
    yield backend
    backend.pool.close()


def message(name: str = "a") -> Message[Any]:
    return Message(queue_name="default", actor_name=name, args=(), kwargs={}, options={}, message_id=name)


def test_a_result_is_kept_until_it_expires_and_the_newest_counts(results: ResultsBackend) -> None:
    with pytest.raises(ResultMissing):
        results.get_result(message())
    results.store_result(message(), {"answer": 42}, 60_000)
    results.store_result(message(), "day-long", 86_400_000)
    assert results.get_result(message()) == "day-long"
    results.store_result(message(), "newest", 60_000)
    assert results.get_result(message()) == "newest"
    results.store_result(message(), "gone", -1)
    with pytest.raises(ResultMissing):
        results.get_result(message())


def test_a_result_is_waited_for_and_no_longer_than_was_said(results: ResultsBackend) -> None:
    with pytest.raises(ResultTimeout):
        results.get_result(message(), block=True, timeout=50)
    timer = threading.Timer(0.2, results.store_result, (message(), None, 60_000))
    timer.start()
    assert results.get_result(message(), block=True, timeout=120_000) is None
    timer.join()


def test_results_can_be_pickled(one_database: Database) -> None:
    backend = ResultsBackend(one_database.url, encoder=dramatiq.PickleEncoder())
    backend.store_result(message(), {1, 2}, 60_000)
    assert backend.get_result(message()) == {1, 2}
    backend.pool.close()


def test_a_result_that_shall_be_kept_too_long_is_refused(results: ResultsBackend) -> None:
    with pytest.raises(InvalidDeclaration, match="24 days"):
        results.store_result(message(), 1, 25 * 86_400_000)


def test_old_results_go_by_truncate_and_living_ones_stay(one_database: Database, results: ResultsBackend) -> None:
    db = one_database.connect(autocommit=True)
    for name, ttl in (("short", 1_800_000), ("long", 20 * 86_400_000)):
        results.store_result(message(name), name, ttl)
    rotate = "SELECT count(*) FROM outbox.rotate_results(clock_timestamp() + %s::interval)"
    assert value(db, rotate, "5 minutes") == 0, "it may still be written to"
    assert value(db, rotate, "70 minutes") == 1
    assert value(db, "SELECT count(*) FROM outbox.result") == 1
    assert results.get_result(message("long")) == "long"
    assert value(db, rotate, "21 days") == 1
    assert value(db, "SELECT count(*) FROM outbox.result") == 0


def test_a_slot_of_results_is_never_written_while_it_is_due(one_database: Database) -> None:
    """Between the last expiry of what is in a slot and its next use there is time for rotation."""
    db = one_database.connect()
    gap = """
        SELECT min(n) FROM generate_series(1, 100) AS n
        WHERE outbox.result_slot(%s::timestamptz, %s::interval)
            = outbox.result_slot(%s::timestamptz + n * %s::interval, %s::interval)
    """
    for start in ("2026-01-01 00:00:00+00", "2026-11-29 23:59:59+00"):
        for ttl, width, slots in (("1 hour", "10 minutes", 8), ("24 days", "4 days", 8)):
            assert value(db, gap, start, ttl, start, width, ttl) == slots


def test_counters_begin_end_and_keep_their_bounds(counters: Counters) -> None:
    assert counters.add("k", 2, 60_000)
    assert not counters.add("k", 5, 60_000)
    assert counters.incr("k", 1, 3, 60_000)
    assert not counters.incr("k", 1, 3, 60_000)
    assert counters.decr("k", 3, 0, 60_000)
    assert not counters.decr("k", 1, 0, 60_000)
    assert not counters.incr("other", 2, 1, 60_000)
    assert counters.incr("other", 1, 1, 20)
    time.sleep(0.03)
    assert counters.incr("other", 1, 1, 60_000), "what expired is 0"
    assert counters.add("expired", 1, 1)
    time.sleep(0.01)
    assert counters.add("expired", 1, 60_000)


def test_expired_counters_are_deleted(one_database: Database, counters: Counters) -> None:
    counters.add("old", 1, 1)
    counters.add("young", 1, 60_000)
    time.sleep(0.01)
    assert one_database.value("SELECT outbox.expire_counters()") == 1
    assert not counters.add("young", 1, 60_000)


def test_many_that_count_at_once_never_exceed_the_maximum(counters: Counters) -> None:
    with ThreadPoolExecutor(8) as pool:
        granted = [*pool.map(lambda _: counters.incr("k", 1, 25, 60_000), range(100))]
    assert sum(granted) == 25


def test_many_that_count_at_once_over_several_keys_never_exceed_the_sum(counters: Counters) -> None:
    keys = [f"k{number}" for number in range(6)]
    windows = [(keys[n % 6], [keys[n % 6], *keys[: n % 6], *keys[n % 6 + 1 :]]) for n in range(120)]
    with ThreadPoolExecutor(8) as pool:
        granted = [*pool.map(lambda w: counters.incr_and_sum(w[0], lambda: w[1], 1, 20, 60_000), windows)]
    assert sum(granted) == 20


def test_an_event_ends_the_waits_for_it_and_those_that_begin_soon_after(counters: Counters) -> None:
    assert not counters.wait("k", 20)
    with ThreadPoolExecutor(3) as pool:
        waits = [pool.submit(counters.wait, "k", 20_000) for _ in range(3)]
        counters.wait_notify("k", 60_000)
        assert all(wait.result() for wait in waits)
    assert counters.wait("k", 1)


def test_dramatiqs_limiters_and_barrier_count_with_it(counters: Counters) -> None:
    mutex = ConcurrentRateLimiter(counters, "mutex", limit=1)
    with mutex.acquire(raise_on_failure=False) as first, mutex.acquire(raise_on_failure=False) as second:
        assert (first, second) == (True, False)
    with mutex.acquire(raise_on_failure=False) as again:
        assert again
    for limiter in (
        BucketRateLimiter(counters, "bucket", limit=2, bucket=3_600_000),
        WindowRateLimiter(counters, "window", limit=2, window=60),
    ):
        got = []
        for _ in range(3):
            with limiter.acquire(raise_on_failure=False) as acquired:
                got.append(acquired)
        assert got == [True, True, False]
    barrier = Barrier(counters, "barrier", ttl=60_000)
    assert barrier.create(parties=2)
    assert [barrier.wait(block=False), barrier.wait(block=False)] == [False, True]
