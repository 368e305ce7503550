"""Handlers on Kafka (`outbox worker --from`) beside a bare consumer with offsets in Postgres, and through the log.

python -m tests.benchmark.feeds                     # a broker and a Postgres of its own, two minutes or so
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from tests.benchmark.relays import database
from tests.relay.brokers import Tansu
from tests.relay.peers import create_topic, servers
from tests.relay.running import RelayProcess
from tests.shop_floor import WorkerProcess

MESSAGES, PARTITIONS = 20_000, 4
BODY = b'{"id": 4711, "what": "' + b"x" * 200 + b'"}'
TABLES = "CREATE TABLE effect (id int, what text); CREATE TABLE reached (partition int PRIMARY KEY, next bigint)"
INSERT = "INSERT INTO effect VALUES (%s, %s)"
REACHED = "INSERT INTO reached VALUES (%s, %s) ON CONFLICT (partition) DO UPDATE SET next = excluded.next"

APP = """
from psycopg import Connection
from outbox import Outbox
app = Outbox()
{handler}
"""
NONE = "@app.subscribe('bench', 'bench')\ndef take(message):\n    pass"
EFFECT = f"""@app.subscribe('bench', 'bench', guarantee='exactly-once', batch={{batch}})
def take(message, connection: Connection):
    connection.execute({INSERT!r}, (message.payload['id'], message.payload['what']))"""

#: Work → its handler, and how many effects share a transaction.
WORKS: dict[str, tuple[str, int]] = {
    "no effect": (NONE, 0),
    "one INSERT each": (EFFECT.format(batch=1), 1),
    "100 INSERTs a transaction": (EFFECT.format(batch=100), 100),
}


def fill(url: str, topic: str) -> None:
    create_topic(servers(url), topic, PARTITIONS)
    producer = Producer(servers(url) | {"linger.ms": 5})
    for n in range(MESSAGES):
        event = {"ce_specversion": "1.0", "ce_source": "/bench", "ce_type": "bench", "ce_id": f"1-{n + 1}"}
        producer.produce(topic, BODY, key=str(n), headers={name: value.encode() for name, value in event.items()})
        producer.poll(0)
    producer.flush()


def bare(broker: Tansu, topic: str, url: str, batch: int) -> float:
    """Messages a second of a consumer that is told its partitions and keeps its offsets with its effects."""
    import json

    consumer = Consumer(servers(broker.url) | {"group.id": "bare", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(PARTITIONS)])
    done, began = 0, time.perf_counter()
    with psycopg.connect(url) as connection:
        while done < MESSAGES:
            records = [record for record in consumer.consume(batch or 500, 0.5) if record.error() is None]
            reached = {}
            for record in records:
                if batch:
                    payload = json.loads(record.value())
                    connection.execute(INSERT, (payload["id"], payload["what"]))
                reached[record.partition()] = record.offset() + 1
            for partition, offset in reached.items():
                connection.execute(REACHED, (partition, offset))
            connection.commit()
            done += len(records)
    seconds = time.perf_counter() - began
    consumer.close()
    return MESSAGES / seconds


def paced(count: Callable[[], int]) -> float:
    """Messages a second, from the first to the last."""
    first, began, done, until = 0, 0.0, 0, time.perf_counter() + 120
    while done < MESSAGES:
        assert time.perf_counter() < until, f"{done} of {MESSAGES}"
        time.sleep(0.01)
        done = count()
        if done and not first:
            first, began = done, time.perf_counter()
    return (MESSAGES - first) / (time.perf_counter() - began)


def counted(url: str, query: str) -> Callable[[], int]:
    connection = psycopg.connect(url, autocommit=True)
    return lambda: int(connection.execute(query).fetchone()[0])  # type: ignore[index]  # a count has a row


def fed(broker: Tansu, topic: str, url: str, handler: str) -> float:
    """Messages a second of `outbox worker --from`."""
    with tempfile.TemporaryDirectory() as folder:
        worker = WorkerProcess(url, Path(folder), APP.format(handler=handler), "--from", f"{broker.url}/{topic}")
        try:
            return paced(counted(url, 'SELECT coalesce(sum("offset"), 0) FROM outbox.source_position'))
        finally:
            worker.kill()


def through_the_log(broker: Tansu, topic: str, url: str, handler: str, batch: int) -> float:
    """Messages a second of a source and a worker at once."""
    text = f"[sources.bench]\nurl = '{broker.url}'\naddress = '{topic}'\ntopic = 'bench'\n"
    settled = 'SELECT coalesce(sum("offset"), 0) FROM outbox.position'
    with psycopg.connect(url) as connection:
        connection.execute("SELECT outbox.declare_topic('bench', 4)")
    with tempfile.TemporaryDirectory() as folder:
        relay = RelayProcess(url, Path(folder), text)
        worker = WorkerProcess(url, Path(folder), APP.format(handler=handler))
        try:
            return paced(counted(url, "SELECT count(*) FROM effect" if batch else settled))
        finally:
            relay.kill()
            worker.kill()


def main() -> None:
    broker = Tansu()
    try:
        fill(broker.url, "bench")
        print("| work | bare consumer /s | --from /s | ratio | through the log /s |\n|---|---|---|---|---|", flush=True)
        for name in sys.argv[1:] or WORKS:
            handler, batch = WORKS[name]
            rates = []
            for way in range(3):
                with database() as url:
                    with psycopg.connect(url) as connection:
                        connection.execute(TABLES)
                    if way == 0:
                        rates.append(bare(broker, "bench", url, batch))
                    elif way == 1:
                        rates.append(fed(broker, "bench", url, handler))
                    else:
                        rates.append(through_the_log(broker, "bench", url, handler, batch))
            a, b, c = rates
            print(f"| {name} | {a:,.0f} | {b:,.0f} | {b / a:.2f} | {c:,.0f} |", flush=True)
    finally:
        broker.remove()


if __name__ == "__main__":
    main()
