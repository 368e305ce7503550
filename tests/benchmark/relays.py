"""What a relay delivers beside its plain client in a bare loop; from commit to arrival; and what an idle relay costs.

python -m tests.benchmark.relays                    # all; brokers of its own, a minute or two
python -m tests.benchmark.relays rabbitmq nats
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy

from outbox import NewMessage, Outbox, schema
from outbox.database import sqlalchemy_url
from outbox.definitions import Definitions, Relay
from outbox.relay.process import Relays
from tests.relay.brokers import ActiveMQ, Nats, RabbitMQ, Tansu
from tests.relay.receiver import Receiver
from tests.relay.running import RelayProcess
from tests.servers import Postgres, embedded_binaries

#: Messages of a run, on their way at once, and bytes of each.
MESSAGES, AT_ONCE, BODY = 10_000, 500, b'{"id": 4711, "what": "' + b"x" * 200 + b'"}'
#: Of webhooks, which are slower.
POSTS, POSTS_AT_ONCE = 3_000, 16
PROBES = 200


class Peer:
    """A protocol: its server, its plain client in a bare loop, and who notes when something arrives."""

    messages, at_once, address = MESSAGES, AT_ONCE, "bench"

    def __init__(self) -> None:
        self.server = self.started()
        self.arrivals: dict[str, float] = {}

    def started(self) -> Any:
        raise NotImplementedError

    def relay(self) -> Relay:
        return Relay(url=self.server.url, bindings=("bench",), address=self.address)

    async def bare(self) -> float:
        """Seconds that the plain client takes."""
        raise NotImplementedError

    async def listen(self, until: asyncio.Event) -> None:
        """Note in `arrivals` when each body arrives."""
        raise NotImplementedError


async def in_parts(peer: Peer, send: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    for _ in range(0, peer.messages, peer.at_once):
        await asyncio.gather(*(send() for _ in range(peer.at_once)))
    return time.perf_counter() - began


class Rabbit(Peer):
    name = "rabbitmq"

    def started(self) -> Any:
        return RabbitMQ()

    async def _channel(self) -> tuple[Any, Any]:
        import aio_pika

        connection = await aio_pika.connect(self.server.url)
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue(self.address, durable=True)
        return connection, channel

    async def bare(self) -> float:
        import aio_pika

        connection, channel = await self._channel()

        def send() -> Awaitable[Any]:
            message = aio_pika.Message(BODY, delivery_mode=2, headers={"a": "b"}, content_type="application/json")
            return channel.default_exchange.publish(message, self.address)

        seconds = await in_parts(self, send)
        await connection.close()
        return seconds

    async def listen(self, until: asyncio.Event) -> None:
        connection, channel = await self._channel()
        queue = await channel.get_queue(self.address)
        await queue.purge()

        async def note(message: Any) -> None:
            self.arrivals[message.body.decode()] = time.perf_counter()

        await queue.consume(note, no_ack=True)
        await until.wait()
        await connection.close()


class JetStream(Peer):
    name = "nats"

    def started(self) -> Any:
        return Nats()

    async def _context(self) -> tuple[Any, Any]:
        import nats

        connection = await nats.connect(self.server.url)
        context = connection.jetstream()
        with suppress(Exception):
            await context.add_stream(name="bench", subjects=[self.address])
        return connection, context

    async def bare(self) -> float:
        connection, context = await self._context()
        seconds = await in_parts(self, lambda: context.publish(self.address, BODY, headers={"a": "b"}))
        await connection.close()
        return seconds

    async def listen(self, until: asyncio.Event) -> None:
        connection, _ = await self._context()

        async def note(message: Any) -> None:
            self.arrivals[message.data.decode()] = time.perf_counter()

        await connection.subscribe(self.address, cb=note)
        await until.wait()
        await connection.close()


class Kafka(Peer):
    name = "kafka"

    def started(self) -> Any:
        return Tansu()

    async def bare(self) -> float:
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self._servers, "enable.idempotence": True, "linger.ms": 2})
        began = time.perf_counter()
        for _ in range(0, self.messages, self.at_once):
            for _ in range(self.at_once):
                producer.produce(self.address, BODY, headers={"a": "b"})
            producer.flush()
        return time.perf_counter() - began

    @property
    def _servers(self) -> str:
        return str(self.server.url.removeprefix("kafka://"))

    async def listen(self, until: asyncio.Event) -> None:
        await asyncio.to_thread(self._poll, until)

    def _poll(self, until: asyncio.Event) -> None:
        from confluent_kafka import OFFSET_END, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "b", "fetch.wait.max.ms": 5})
        partitions = consumer.list_topics(self.address).topics[self.address].partitions
        consumer.assign([TopicPartition(self.address, n, OFFSET_END) for n in partitions])
        while not until.is_set():
            for record in consumer.consume(100, 0.01):
                if record.error() is None:
                    self.arrivals[record.value().decode()] = time.perf_counter()
        consumer.close()


class Stomp(Peer):
    name = "activemq"

    def started(self) -> Any:
        return ActiveMQ()

    def relay(self) -> Relay:
        return Relay(url=self.server.url, bindings=("bench",), address="/queue/bench")

    def _connected(self, listener: Any) -> Any:
        import stomp

        connection = stomp.Connection12([("127.0.0.1", self.server.port)])
        connection.set_listener("bench", listener)
        connection.connect(wait=True)
        return connection

    async def bare(self) -> float:
        import stomp

        confirmed = threading.Semaphore(0)

        class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # no types
            def on_receipt(self, frame: Any) -> None:
                confirmed.release()

        connection = self._connected(Listener())
        began = time.perf_counter()
        for _ in range(0, self.messages, self.at_once):
            for n in range(self.at_once):
                connection.send("/queue/bare", BODY, "application/json", {"persistent": "true", "receipt": str(n)})
            for _ in range(self.at_once):
                confirmed.acquire()
        seconds = time.perf_counter() - began
        connection.disconnect()
        return seconds

    async def listen(self, until: asyncio.Event) -> None:
        import stomp

        arrivals = self.arrivals

        class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # no types
            def on_message(self, frame: Any) -> None:
                arrivals[frame.body] = time.perf_counter()

        connection = self._connected(Listener())
        connection.subscribe("/queue/bench", "1", "auto")
        await until.wait()
        connection.disconnect()


class Webhooks(Peer):
    name = "webhooks"
    messages, at_once = POSTS, POSTS_AT_ONCE

    def started(self) -> Any:
        receiver = Receiver()
        receiver.remove = receiver.close  # type: ignore[attr-defined]  # as brokers have it
        return receiver

    def relay(self) -> Relay:
        return Relay(url=self.server.url, bindings=("bench",), allow_private=True)

    async def bare(self) -> float:
        import httpx2

        async with httpx2.AsyncClient() as client:
            return await in_parts(self, lambda: client.post(self.server.url, content=BODY, headers={"a": "b"}))

    async def listen(self, until: asyncio.Event) -> None:
        seen = len(self.server.accepted)
        while not until.is_set():
            now, posts = time.perf_counter(), self.server.accepted
            for post in posts[seen:]:
                self.arrivals[post.body.decode()] = now
            seen = len(posts)
            await asyncio.sleep(0.0005)


PEERS: dict[str, type[Peer]] = {kind.name: kind for kind in (Rabbit, JetStream, Kafka, Stomp, Webhooks)}  # type: ignore[attr-defined]


async def relayed(peer: Peer, url: str) -> float:
    """Messages a second: of a backlog, from when the first have been delivered until all are."""
    relays = Relays(lambda: Definitions(relays={"bench": peer.relay()}), url)
    running = asyncio.create_task(relays.run())
    first, began, delivered = 0, 0.0, 0
    while delivered < peer.messages:
        await asyncio.sleep(0.005)
        delivered = sum(tally.delivered for tally in relays.tallies)
        if delivered and not first:
            first, began = delivered, time.perf_counter()
    seconds = time.perf_counter() - began
    relays.stop()
    await running
    return (peer.messages - first) / seconds


async def latencies(peer: Peer, url: str) -> list[float]:
    """Milliseconds from the commit of each of some messages to its arrival."""
    until = asyncio.Event()
    listening = asyncio.create_task(peer.listen(until))
    await asyncio.sleep(1)
    committed: dict[str, float] = {}

    async def all_arrived() -> None:
        until_all = time.perf_counter() + 10
        while not committed.keys() <= peer.arrivals.keys() and time.perf_counter() < until_all:
            await asyncio.sleep(0.05)

    with psycopg.connect(url) as connection:
        for n in range(-1, PROBES):  # the first one makes the relay connect
            Outbox().publish(connection, "bench", n, key=str(n))
            connection.commit()
            committed[str(n)] = time.perf_counter()
            await (asyncio.sleep(0.02) if n >= 0 else all_arrived())
    await all_arrived()
    del committed["-1"]
    until.set()
    await listening
    return sorted(1000 * (peer.arrivals[n] - at) for n, at in committed.items())


@contextmanager
def database() -> Any:
    cluster = Postgres(embedded_binaries())
    try:
        engine = sqlalchemy.create_engine(sqlalchemy_url(cluster.url()), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            schema.migrate(connection)
        yield cluster.url()
    finally:
        cluster.remove()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill(url: str, messages: int) -> None:
    """A backlog for a relay named `bench`, in four partitions."""
    with psycopg.connect(url) as connection:
        bodies = [NewMessage({"id": 4711, "what": "x" * 200}, key=str(n)) for n in range(messages)]
        connection.execute("SELECT outbox.declare_topic('bench', 4)")
        connection.execute("SELECT outbox.subscribe('bench')")
        connection.commit()
        Outbox().publish_many(connection, "bench", bodies)


def measure(peer: Peer) -> str:
    with database() as url, tempfile.TemporaryDirectory() as folder:
        fill(url, peer.messages)
        bare = peer.messages / asyncio.run(peer.bare())
        rate = asyncio.run(relayed(peer, url))
        relay = peer.relay()
        fields = {"url": relay.url, "address": relay.address, "allow_private": relay.allow_private or None}
        text = "[relays.bench]\nbindings = ['bench']\n" + "".join(
            f"{name} = {str(value).lower() if value is True else repr(value)}\n"
            for name, value in fields.items()
            if value
        )
        process = RelayProcess(url, Path(folder), text)
        try:
            process.wait_for_line("worker started")
            found = asyncio.run(latencies(peer, url))
            before = cpu_seconds(process.process.pid)
            time.sleep(5)
            idle = (cpu_seconds(process.process.pid) - before) / 5
        finally:
            process.kill()
    p50, p99 = statistics.median(found), found[int(len(found) * 0.99)]
    return f"| {peer.name} | {bare:,.0f} | {rate:,.0f} | {rate / bare:.2f} | {p50:.1f} | {p99:.1f} | {100 * idle:.1f} |"  # type: ignore[attr-defined]


def main() -> None:
    print(
        "| protocol | bare loop /s | relay /s | ratio | p50 ms | p99 ms | idle CPU % |\n|---|---|---|---|---|---|---|"
    )
    for name in sys.argv[1:] or PEERS:
        peer = PEERS[name]()
        try:
            print(measure(peer), flush=True)
        finally:
            peer.server.remove()


if __name__ == "__main__":
    main()
