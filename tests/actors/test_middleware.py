"""All of dramatiq's standard middleware works over the broker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker, group, pipeline
from dramatiq.middleware import (
    AsyncIO,
    CurrentMessage,
    GroupCallbacks,
    Shutdown,
    SkipMessage,
    TimeLimitExceeded,
)
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.results import ResultFailure, Results

from outbox.dramatiq import PostgresBroker
from outbox.dramatiq.rate_limits import PostgresBackend as Counters
from outbox.dramatiq.results import PostgresBackend
from tests.actors.work import working
from tests.shop_floor import Database, wait_for


@pytest.fixture
def results(broker: PostgresBroker) -> PostgresBackend:
    backend = PostgresBackend(broker.pool.url)
    broker.add_middleware(Results(backend=backend))
    return backend


def test_retries_end_after_their_limit_and_tell_another_actor(
    broker: PostgresBroker, worker: Worker, seen: list[Any]
) -> None:
    @dramatiq.actor(max_retries=2, min_backoff=5, max_backoff=10, on_retry_exhausted="mourn")
    def fail() -> None:
        seen.append("tried")
        raise RuntimeError

    @dramatiq.actor
    def mourn(message: dict[str, Any], retries: dict[str, int]) -> None:
        seen.append((message["actor_name"], retries["retries"]))

    fail.send()
    broker.join("default", timeout=120_000, fail_fast=False)
    assert seen == ["tried"] * 3 + [("fail", 2)]
    assert broker.count("default").dead == 1


def test_a_time_limit_ends_an_actor(broker: PostgresBroker, worker: Worker) -> None:
    @dramatiq.actor(max_retries=0, time_limit=100)
    def hang() -> None:
        while True:
            time.sleep(0.01)

    hang.send()
    with pytest.raises(TimeLimitExceeded):
        broker.join("default", timeout=120_000)


def test_a_time_limit_that_strikes_in_the_middle_of_a_send_leaves_the_broker_whole(
    broker: PostgresBroker, worker: Worker, seen: list[Any]
) -> None:
    note = dramatiq.actor(seen.append, actor_name="note", queue_name="notes")

    @dramatiq.actor(max_retries=0, time_limit=1000)
    def send_for_ever() -> None:
        while True:
            note.send(1)

    for _ in range(8):
        send_for_ever.send()
    with pytest.raises(TimeLimitExceeded):
        broker.join("default", timeout=120_000)
    broker.join("default", timeout=120_000, fail_fast=False)
    broker.join("notes", timeout=120_000)
    assert broker.count("default").dead == 8
    assert seen


def test_an_actor_is_told_of_a_shutdown_and_its_message_is_tried_again(broker: PostgresBroker, seen: list[Any]) -> None:
    @dramatiq.actor(notify_shutdown=True, min_backoff=10, max_backoff=10)
    def work() -> None:
        if not seen:
            try:
                seen.append("began")
                while True:
                    time.sleep(0.01)
            except Shutdown:
                seen.append("told")
                raise
        seen.append("again")

    work.send()
    with working(broker):
        wait_for(lambda: seen, "it began")
    assert seen[:2] == ["began", "told"]  # another thread of the same worker may try it again before that has stopped
    with working(broker):
        broker.join("default", timeout=120_000)
    assert seen == ["began", "told", "again"]


def test_what_is_older_than_its_age_limit_is_given_up_on(broker: PostgresBroker) -> None:
    actor = dramatiq.actor(lambda: None, actor_name="a", max_age=1, max_retries=0)
    actor.send_with_options(delay=50)
    with working(broker), pytest.raises(SkipMessage):
        broker.join("default", timeout=120_000)


def test_callbacks_are_sent_of_success_and_of_failure(broker: PostgresBroker, worker: Worker, seen: list[Any]) -> None:
    @dramatiq.actor
    def succeeded(message: dict[str, Any], result: int) -> None:
        seen.append((message["actor_name"], result))

    @dramatiq.actor
    def failed(message: dict[str, Any], error: dict[str, str]) -> None:
        seen.append((message["actor_name"], error["type"]))

    @dramatiq.actor(max_retries=0)
    def divide(number: int) -> int:
        return 42 // number

    for number in (2, 0):
        divide.send_with_options(args=(number,), on_success=succeeded, on_failure=failed)
    broker.join("default", timeout=120_000, fail_fast=False)
    assert set(seen) == {("divide", 21), ("divide", "ZeroDivisionError")}


def test_pipelines_hand_results_on_and_the_next_step_commits_with_the_settlement(
    one_database: Database, broker: PostgresBroker, worker: Worker, results: PostgresBackend
) -> None:
    @dramatiq.actor(store_results=True)
    def add(a: int, b: int) -> int:
        return a + b

    steps = pipeline([add.message(1, 2), add.message(3), add.message_with_options(args=(4,), delay=50)]).run()
    assert steps.get_result(block=True, timeout=120_000) == 10
    assert [*steps.get_results()] == [3, 6, 10]
    broker.join("default", timeout=120_000)
    assert one_database.value("SELECT count(*) FROM outbox.message") == 3


def test_groups_collect_results_and_call_back_once(
    broker: PostgresBroker, worker: Worker, results: PostgresBackend, seen: list[Any]
) -> None:
    broker.add_middleware(GroupCallbacks(Counters(broker.pool.url)))
    double = dramatiq.actor(lambda number: 2 * number, actor_name="double", store_results=True)
    finished = dramatiq.actor(lambda: seen.append("finished"), actor_name="finished")
    of_ten = group([double.message(number) for number in range(10)])
    of_ten.add_completion_callback(finished.message())
    of_ten.run()
    of_ten.wait(timeout=120_000)
    assert [*of_ten.get_results()] == [2 * number for number in range(10)]
    broker.join("default", timeout=120_000)
    assert seen == ["finished"]


def test_a_group_in_a_transaction_is_sent_as_a_whole(
    one_database: Database, broker: PostgresBroker, worker: Worker, seen: list[Any]
) -> None:
    note = dramatiq.actor(seen.append, actor_name="note")
    db = one_database.connect()
    for commits in (False, True):
        with broker.transaction(db):
            group([note.message((commits, number)) for number in range(5)]).run()
        (db.commit if commits else db.rollback)()
    broker.join("default", timeout=120_000)
    assert sorted(seen) == [[True, number] for number in range(5)]


def test_results_tell_of_failure(broker: PostgresBroker, worker: Worker, results: PostgresBackend) -> None:
    @dramatiq.actor(max_retries=0, store_results=True)
    def fail() -> None:
        raise RuntimeError("so it is")

    with pytest.raises(ResultFailure, match="actor raised RuntimeError: so it is"):
        fail.send().get_result(block=True, timeout=120_000)
    broker.join("default", timeout=120_000, fail_fast=False)


def test_a_rate_limiter_makes_actors_take_turns(broker: PostgresBroker, worker: Worker, seen: list[Any]) -> None:
    limiter = ConcurrentRateLimiter(Counters(broker.pool.url), "one", limit=1)
    at_once: list[int] = []

    @dramatiq.actor(min_backoff=5, max_backoff=50, max_retries=None)
    def work(number: int) -> None:
        with limiter.acquire():
            at_once.append(number)
            assert at_once == [number]
            time.sleep(0.005)
            at_once.remove(number)
            seen.append(number)

    for number in range(20):
        work.send(number)
    broker.join("default", timeout=120_000, fail_fast=False)
    assert sorted(seen) == [*range(20)]


def test_coroutines_run_as_actors_and_send(broker: PostgresBroker, seen: list[Any]) -> None:
    broker.add_middleware(AsyncIO())
    note = dramatiq.actor(seen.append, actor_name="note")

    @dramatiq.actor
    async def nap(number: int) -> None:
        await asyncio.sleep(0.001)
        note.send(number)

    for number in range(20):
        nap.send(number)
    with working(broker):
        broker.join("default", timeout=120_000)
    assert sorted(seen) == [*range(20)]


def test_the_current_message_is_known_and_says_whether_it_came_before(broker: PostgresBroker, seen: list[Any]) -> None:
    broker.add_middleware(CurrentMessage())

    @dramatiq.actor
    def look() -> None:
        message = CurrentMessage.get_current_message()
        seen.append((message.message_id, message.redelivered))

    message = look.send()
    with working(broker):
        broker.join("default", timeout=120_000)
    assert seen == [(message.message_id, False)]
