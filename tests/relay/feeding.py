"""Handlers on another system's log: applications for them, what is sent to them, and the books that they leave."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import aio_pika
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.relay.peers import servers
from tests.shop_floor import Database

EFFECTS = """CREATE TABLE effect (
    number bigint GENERATED ALWAYS AS IDENTITY, id text, n int, key text, taker text DEFAULT 'books')"""

EXACTLY_ONCE = """
from psycopg import Connection
from outbox import Outbox
app = Outbox()
@app.subscribe("books", "orders.*", guarantee="exactly-once"{more})
def book(message, connection: Connection):
    connection.execute("INSERT INTO effect (id, n, key) VALUES (%s, %s, %s)",
                       [str(message.id), message.payload, message.key])
"""

FAILING = """
from datetime import timedelta
import json
from psycopg import Connection
from outbox import Outbox, Retries
app = Outbox()
@app.subscribe("books", "orders.*", guarantee="exactly-once", retries=Retries.delays([timedelta(0)] * 2){more})
def book(message, connection: Connection):
    told = [message.topic, str(message.id), message.key, message.headers, message.published_at.isoformat(),
            message.attempt, message.partition]
    print("TOLD", json.dumps(told), flush=True)
    if connection.execute("SELECT 1 FROM broken WHERE n = %s", [message.payload]).fetchone():
        raise ValueError("broken")
    connection.execute("INSERT INTO effect (id, n, key) VALUES (%s, %s, %s)",
                       [str(message.id), message.payload, message.key])
"""

#: All that a handler of exactly-once effects may ask for: ordered or not, with offsets in its transaction or without.
#: Some fail at first when they have written, so that this must roll back.
TAKERS = ("sessions", "async_sessions", "async_connections", "lists", "coroutines")
EACH_KIND = """
from datetime import timedelta
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from outbox import Message, Outbox, Retries
app = Outbox()
INSERT = text("INSERT INTO effect (taker, id, n, key) VALUES (:taker, :id, :n, :key)")
def row(taker, message):
    return {"taker": taker, "id": str(message.id), "n": message.payload, "key": message.key}
def fail(*messages):
    if any(message.payload % 50 == 7 and message.attempt == 1 for message in messages):
        raise ValueError("not at once")
def takes(name, **settings):
    retries = Retries.delays([timedelta(0)] * 50)
    return app.subscribe(name, "orders.*", guarantee="exactly-once", retries=retries, **settings)
@takes("sessions", ordered=True, batch=20)
def sessions(message, session: Session):
    session.execute(INSERT, row("sessions", message))
    fail(message)
@takes("async_sessions", ordered=True, concurrency=3)
async def async_sessions(message, session: AsyncSession):
    await session.execute(INSERT, row("async_sessions", message))
    fail(message)
@takes("async_connections", concurrency=4)
async def async_connections(message, connection: AsyncConnection):
    values = [str(message.id), message.payload, message.key]
    await connection.execute("INSERT INTO effect (taker, id, n, key) VALUES ('async_connections', %s, %s, %s)", values)
    fail(message)
@takes("lists", batch=20)
def lists(messages: list[Message], session: Session):
    session.execute(INSERT, [row("lists", message) for message in messages])
    fail(*messages)
@takes("coroutines", concurrency=1, batch=7)
async def coroutines(message, session: AsyncSession):
    await session.execute(INSERT, row("coroutines", message))
    fail(message)
"""


def send(url: str, topic: str, numbers: Iterable[int], keys: int = 7, ids: Callable[[int], str] | None = str) -> None:
    """CloudEvents in binary mode, of the type orders.placed; without ids they are no events."""
    producer = Producer(servers(url) | {"enable.idempotence": True})
    for n in numbers:
        event = {"ce_specversion": "1.0", "ce_source": "/t", "ce_type": "orders.placed", "tenant": "eu"}
        event |= {"ce_id": ids(n), "ce_time": "2026-01-02T03:04:05.5Z"} if ids else {}
        headers = {name: value.encode() for name, value in event.items()}
        producer.produce(topic, str(n).encode(), key=f"k{n % keys}", headers=headers if ids else {})
        producer.poll(0)
    assert producer.flush(20) == 0


def effects(database: Database, taker: str = "books") -> list[tuple[int, str]]:
    with database.connect() as connection:
        rows = connection.execute("SELECT n, key FROM effect WHERE taker = %s ORDER BY number", [taker])
        return rows.fetchall()  # type: ignore[return-value]  # n and key


def count(database: Database) -> int:
    return int(database.value("SELECT count(*) FROM effect"))


def check_once(database: Database, wanted: Iterable[int], in_order: bool = True, taker: str = "books") -> None:
    """Each effect of a subscription once; of each key in order."""
    found = effects(database, taker)
    numbers = sorted(n for n, _ in found)
    wanted = sorted(wanted)
    missing, more = sorted(set(wanted) - set(numbers)), len(numbers) - len(set(numbers))
    assert numbers == wanted, f"{taker}: {len(missing)} are missing: {missing[:10]}; {more} came again"
    of_keys: dict[str, list[int]] = defaultdict(list)
    for n, key in found:
        of_keys[key].append(n)
    if in_order:
        for key, some in of_keys.items():
            assert some == sorted(some), f"{taker}: key {key} came out of order"


def check_each_kind(database: Database, wanted: range) -> None:
    """The books of EACH_KIND."""
    for taker in TAKERS:
        check_once(database, wanted, taker in ("sessions", "async_sessions"), taker)
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    assert database.value("SELECT count(*) FROM outbox.redelivery") == 0


def feeding(url: str, topic: str, *more: str) -> list[str]:
    return ["--from", f"{url}/{topic}", *more]


def told(*logs: str) -> list[list[Any]]:
    """What handlers were told of the messages that they got."""
    lines = [line.removeprefix("TOLD ") for log in logs for line in log.splitlines() if line.startswith("TOLD ")]
    return [json.loads(line) for line in lines]


def standing(database: Database) -> int:
    return int(database.value('SELECT coalesce(sum("offset"), 0) FROM outbox.source_position'))


def ends(url: str, topic: str) -> int:
    consumer = Consumer(servers(url) | {"group.id": "ends"})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in partitions)
    finally:
        consumer.close()


def send_to_queue(url: str, queue: str, numbers: Iterable[int], keys: int = 7) -> None:
    """CloudEvents of the type orders.placed, to a queue that is made if there is none."""

    async def play() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True)
            await asyncio.gather(*(channel.default_exchange.publish(_event(n, keys), queue) for n in numbers))

    asyncio.run(play())


def _event(n: int, keys: int) -> aio_pika.Message:
    attributes = {
        "specversion": "1.0",
        "source": "/t",
        "type": "orders.placed",
        "id": str(n),
        "subject": f"k{n % keys}",
    }
    headers = {f"cloudEvents_{name}": value for name, value in attributes.items()}
    return aio_pika.Message(str(n).encode(), headers=headers, content_type="application/json", delivery_mode=2)  # type: ignore[arg-type]  # texts are fine


def left(url: str, queue: str) -> int:
    async def play() -> int:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            declared = await channel.declare_queue(queue, passive=True)
            return declared.declaration_result.message_count or 0

    return asyncio.run(play())
