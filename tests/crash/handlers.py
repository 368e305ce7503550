"""The application under test: each subscription notes every message as an effect, and stumbles now and then."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import timedelta
from typing import Any

import psycopg

from outbox import Message, Outbox, Retries

app = Outbox()

SOON = Retries(first=timedelta(milliseconds=50), longest=timedelta(milliseconds=200), max_attempts=10_000)


class Stumble(Exception):
    """Raised by a handler for no reason."""


@app.subscribe("exact", "orders", guarantee="exactly-once", concurrency=4, retries=SOON)
def book(message: Message, connection: psycopg.Connection[Any]) -> None:
    connection.execute(*_effect("exact", message))
    time.sleep(_dawdling())
    _stumble()


@app.subscribe("least", "orders", concurrency=4, retries=SOON)
async def mail(message: Message, connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(*_effect("least", message))
    await asyncio.sleep(_dawdling())
    _stumble()


@app.subscribe("ordered", "orders", guarantee="exactly-once", ordered=True, on_failure="park", retries=SOON)
def follow(message: Message, connection: psycopg.Connection[Any]) -> None:
    connection.execute(*_effect("ordered", message))
    _stumble()


@app.subscribe("batches", "orders", guarantee="exactly-once", batch=20, concurrency=2, retries=SOON)
def post(messages: list[Message], connection: psycopg.Connection[Any]) -> None:
    for message in messages:
        connection.execute(*_effect("batches", message))
    _stumble()


def _effect(subscription: str, message: Message) -> tuple[str, tuple[Any, ...]]:
    order = message.payload
    return (
        "INSERT INTO effect (subscription, id, key, turn, message, attempt, lease) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (subscription, order["id"], message.key, order["turn"], str(message.id), message.attempt, message.lease_id),
    )


def _dawdling() -> float:
    """Seconds: mostly none, sometimes a few milliseconds."""
    return random.random() * 0.02 if random.random() < 0.1 else 0


def _stumble() -> None:
    if random.random() < 0.02:
        raise Stumble("now and then")
