"""The application that `outbox worker` runs in the benchmark: its one handler does what the environment says."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

import psycopg

from outbox import Message, Outbox, Retries, Retry
from tests.benchmark.competitors.competitor import Work
from tests.benchmark.competitors.outbox import reader

app = Outbox()
work = Work.from_json(os.environ["BENCHMARK_WORK"])
_INSERT = "INSERT INTO effect VALUES (%s)"


def handle(message: Message) -> None:
    work.handle(message.payload)


def handle_or_retry(message: Message) -> None:
    if message.attempt == 1 and message.payload["id"] % work.retry_one_in == 0:
        raise Retry(after=timedelta(seconds=1))
    work.handle(message.payload)


def insert(message: Message, connection: psycopg.Connection[Any]) -> None:
    connection.execute(_INSERT, (message.payload["id"],))
    work.handle(message.payload)


def insert_many(messages: list[Message], connection: psycopg.Connection[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT, [(message.payload["id"],) for message in messages])
    for message in messages:
        work.handle(message.payload)


def wait(message: Message) -> None:
    time.sleep(work.seconds)
    work.handle(message.payload)


async def wait_async(message: Message) -> None:
    await asyncio.sleep(work.seconds)
    work.handle(message.payload)


def _subscribe() -> None:
    settings: dict[str, Any] = {"concurrency": work.concurrency, "retries": Retries()}
    handler: Any = handle_or_retry if work.retry_one_in else handle
    if work.kind in ("effect", "effects"):
        settings["guarantee"] = "exactly-once"
        settings["pipeline"] = bool(os.environ.get("BENCHMARK_PIPELINE"))
        handler = insert
    if work.kind == "effects":
        settings |= {"batch": work.batch, "pipeline": True}
        handler = insert if os.environ.get("BENCHMARK_ONE_BY_ONE") else insert_many
    if work.kind == "wait":
        handler = wait_async if work.is_async else wait
    app.subscribe(reader(work.reader), "orders.*", **settings)(handler)


_subscribe()
work.wait_for_start()
