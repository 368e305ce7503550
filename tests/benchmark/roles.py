"""The processes of a run: a consumer, and publishers of several habits. The harness starts them and reads their notes.

    python -m tests.benchmark.roles ROLE '{"competitor": …, "url": …, …}'

The last line that a publisher prints is what it measured, as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import psycopg

from tests.benchmark.competitors import named
from tests.benchmark.competitors.competitor import Work, insert_order, order
from tests.benchmark.figures import percentile
from tests.benchmark.notes import Notes


def consume(competitor: str, url: str, work: dict[str, Any]) -> None:
    """Handle messages until SIGTERM."""
    named(competitor).consume(url, Work(**work))


def transact(competitor: str, baseline: str, url: str, transactions: int, warm_up: int) -> dict[str, list[float]]:
    """Microseconds of each business transaction that also publishes, that also inserts, and that does nothing more.

    They take turns in random order, so that whatever else the machine does strikes all alike, and none always follows
    the same other. Postgres works on another core than we do, for all of them: where the kernel has put two processes
    is otherwise half of what a round trip costs.
    """
    with ExitStack() as stack:
        publisher = stack.enter_context(named(competitor).publisher(url))
        inserter = stack.enter_context(named(baseline).publisher(url))
        connection = stack.enter_context(psycopg.connect(url))

        def only_the_order(payload: dict[str, Any]) -> None:
            insert_order(connection, payload)
            connection.commit()

        _keep_apart(url)
        calls = {"publish": publisher.in_transaction, "insert": inserter.in_transaction, "nothing": only_the_order}
        times: dict[str, list[float]] = {kind: [] for kind in calls}
        numbers, chance = itertools.count(), random.Random(transactions)
        for _ in range(transactions + warm_up):
            for kind in chance.sample(list(calls), len(calls)):
                times[kind].append(1e6 * _timed(calls[kind], order(next(numbers))))
    return {kind: found[warm_up:] for kind, found in times.items()}


def _keep_apart(url: str) -> None:
    """Keep to one core, and the backends of the database, if they are here, to the others."""
    ours, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return
    with psycopg.connect(url) as db:
        backends = db.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()").fetchall()
    for (pid,) in backends:
        with suppress(OSError):
            os.sched_setaffinity(pid, others)
    os.sched_setaffinity(0, {ours})


def publish_in_bulk(competitor: str, url: str, messages: int, size: int) -> dict[str, list[float]]:
    """Seconds of each call that publishes `size` messages and commits."""
    times = []
    with named(competitor).publisher(url) as publisher:
        for start in range(0, messages, size):
            batch = [order(number) for number in range(start, min(start + size, messages))]
            times.append(_timed(publisher.many, batch))
    return {"seconds": times}


def publish_steadily(
    competitor: str,
    url: str,
    notes: str,
    messages: int,
    rate: float,
    start: int = 0,
    rolled_back: float = 0.0,
    seconds: float | None = None,
) -> dict[str, int]:
    """One transaction a message, `rate` a second, or as fast as it goes when behind; note when each COMMIT returned.

    Args:
        start: the first number.
        seconds: the end, even if not all is published by then.
        rolled_back: the share of transactions that roll back; their numbers are never committed.
    """
    page, chance, given_up = Notes(notes), random.Random(start), 0
    with named(competitor).publisher(url) as publisher:
        page.wait_for_start()
        began = time.monotonic()
        for nth in range(messages):
            elapsed = time.monotonic() - began
            if seconds is not None and elapsed > seconds:
                break
            if nth / rate > elapsed:
                time.sleep(nth / rate - elapsed)
            if chance.random() < rolled_back:
                publisher.in_transaction(order(start + nth), commit=False)
                given_up += 1
                continue
            publisher.in_transaction(order(start + nth))
            page.note(start + nth)
    return {"rolled_back": given_up}


def publish_at_full_speed(
    competitor: str, url: str, notes: str, seconds: float, start: int, step: int
) -> dict[str, float]:
    """One transaction a message, without a pause, with numbers start, start + step, …; note when COMMIT returned."""
    page, times = Notes(notes), []
    with named(competitor).publisher(url) as publisher:
        page.wait_for_start()
        until, number = time.monotonic() + seconds, start
        while time.monotonic() < until:
            times.append(1e6 * _timed(publisher.in_transaction, order(number)))
            page.note(number)
            number += step
    return {"p50_us": percentile(times, 50), "p99_us": percentile(times, 99), "max_us": max(times)}


def only_wait(
    competitor: str, url: str, messages: int, concurrency: int, seconds: float, is_async: bool
) -> dict[str, float]:
    """What handlers that wait would reach without any queue: bare threads, or a bare event loop."""
    began, numbers = time.monotonic(), iter(range(messages))

    def wait() -> None:
        for _ in numbers:
            time.sleep(seconds)

    async def wait_async() -> None:
        for _ in numbers:
            await asyncio.sleep(seconds)

    async def all_at_once() -> None:
        await asyncio.gather(*(wait_async() for _ in range(concurrency)))

    if is_async:
        asyncio.run(all_at_once())
    else:
        with ThreadPoolExecutor(concurrency) as pool:
            for _ in range(concurrency):
                pool.submit(wait)
    return {"rate": messages / (time.monotonic() - began)}


def _timed(call: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


ROLES: dict[str, Callable[..., Any]] = {
    role.__name__: role
    for role in (consume, transact, publish_in_bulk, publish_steadily, publish_at_full_speed, only_wait)
}

if __name__ == "__main__":
    print(json.dumps(ROLES[sys.argv[1]](**json.loads(sys.argv[2]))))
