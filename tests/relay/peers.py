"""Each protocol's other side as tests of faults see it: stopped, wiped, stalled, refusing; and what arrived there."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aio_pika
import nats
import stomp
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.relay.brokers import ActiveMQ, Nats, RabbitMQ, Tansu
from tests.relay.mocked import MockCluster
from tests.relay.receiver import Receiver
from tests.relay.wire import Wire
from tests.shop_floor import wait_for

Found = list[tuple[str, int]]


class Peer:
    """A server, and on it a name that no other test has.

    Args:
        server: may be shared; it runs again when a test is over.
        wires: makes a wire to a port.
    """

    scheme = ""
    #: Fields of a definition.
    fields: tuple[str, ...] = ('longest_pause = "200ms"',)
    #: Does it store once what comes twice under one id?
    knows_ids = False
    #: Does a message that it does not answer spend an attempt?
    charges = False
    #: What lets a source that follows one that was killed begin at once.
    follower: tuple[str, ...] = ()

    def __init__(self, server: Any, name: str, wires: Callable[[int], Wire]) -> None:
        self.server, self.name, self._wires = server, name, wires
        self._wire: Wire | None = None

    @property
    def wire(self) -> Wire:
        """Its address is that of the definitions from then on."""
        if self._wire is None:
            self._wire = self._wires(self.server.port)
        return self._wire

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self._wire.port}" if self._wire else str(self.server.url)

    def relay(self, *more: str, address: str | None = None) -> str:
        """Definitions of a relay to it."""
        where = (f'address = "{address or self.address}"',) if self.address else ()
        lines = "\n".join([*where, *self.fields, *more])
        return f'[relays.out]\nurl = "{self.url}"\nbindings = ["orders.*"]\n{lines}\n'

    def source(self, *more: str) -> str:
        """Definitions of a source from it."""
        lines = "\n".join(['topic = "in.orders"', *self.fields, *more])
        return f'[sources.in]\nurl = "{self.url}"\naddress = "{self.address}"\n{lines}\n'

    @property
    def address(self) -> str:
        return self.name

    def create(self) -> None:
        """Make what is published to, or consumed."""

    def arrived(self) -> Found:
        """The id and number of each message that has arrived since it was last without its data, in their order."""
        raise NotImplementedError

    def send(self, numbers: range) -> None:
        """Messages for a source, with the ids and in the order of the numbers."""
        raise NotImplementedError

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def forget(self) -> None:
        """While it is down: lose all that it has stored."""
        self.server.forget()

    def vanish(self) -> None:
        """Be away, and keep all data."""
        raise NotImplementedError

    def reappear(self) -> None:
        """Be there again."""
        raise NotImplementedError

    def tap(self) -> None:
        """Put a wire before it, if there is none."""
        assert self.wire.flowing.is_set()

    def cut(self) -> None:
        """Break its connections."""
        self.wire.cut()

    def stall(self) -> None:
        """Answer nothing, and break nothing."""
        self.wire.flowing.clear()

    def flow(self) -> None:
        self.wire.flowing.set()

    def mend(self) -> None:
        """Leave the server as it was found."""
        if self.server.process is None:
            self.server.start()

    def refusing(self, key: str, others: list[str]) -> str:
        """Refuse what is of one key, so that others are taken; returns the address."""
        raise NotImplementedError

    def accept(self) -> None:
        """Refuse nothing any more."""
        raise NotImplementedError


class RabbitPeer(Peer):
    scheme = "amqp"
    fields = (*Peer.fields, 'timeout = "5s"')
    server: RabbitMQ

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queues, self._found = [self.name], list[Any]()
        self._refused = ""

    def do(self, act: Callable[[Any], Any]) -> Any:
        """Run a coroutine function of a channel."""

        async def connected() -> Any:
            connection = await aio_pika.connect(self.server.url)
            async with connection:
                return await act(await connection.channel())

        return asyncio.run(connected())

    def create(self, name: str | None = None, **arguments: Any) -> None:
        self.do(lambda channel: channel.declare_queue(name or self.name, durable=True, arguments=arguments))

    def drain(self, name: str | None = None) -> list[Any]:
        """All messages of a queue."""

        async def act(channel: Any) -> list[Any]:
            queue = await channel.get_queue(name or self.name)
            found = []
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                found.append(message)
            return found

        return list(self.do(act))

    def queued(self, name: str | None = None) -> int:
        async def act(channel: Any) -> int:
            return int((await channel.get_queue(name or self.name)).declaration_result.message_count)

        return int(self.do(act))

    def arrived(self) -> Found:
        for name in self._queues:
            self._found += self.drain(name)
        return self.numbers(self._found)

    @staticmethod
    def numbers(messages: list[Any]) -> Found:
        return [(message.message_id, int(message.body)) for message in messages]

    def forget(self) -> None:
        super().forget()
        self._found.clear()

    def send(self, numbers: range) -> None:
        async def act(channel: Any) -> None:
            for n in numbers:
                headers = {"cloudEvents_specversion": "1.0", "cloudEvents_id": f"{n}", "cloudEvents_source": "/shop"}
                headers |= {"cloudEvents_type": "order", "cloudEvents_partitionkey": f"k{n % 7}", "tenant": "eu"}
                message = aio_pika.Message(
                    str(n).encode(),
                    content_type="application/json",
                    headers=dict(headers),
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )
                await channel.default_exchange.publish(message, self.name)

        self.do(act)

    def refusing(self, key: str, others: list[str]) -> str:
        """No queue is there for it."""
        self._queues, self._refused = [f"{self.name}.{one}" for one in others], f"{self.name}.{key}"
        for name in self._queues:
            self.create(name)
        return f"{self.name}.{{key}}"

    def accept(self) -> None:
        self.create(self._refused)
        self._queues.append(self._refused)


def servers(url: str) -> dict[str, Any]:
    """The settings of a client of Kafka."""
    return {"bootstrap.servers": url.removeprefix("kafka://"), "log_level": 0}


def create_topic(settings: dict[str, Any], name: str, partitions: int = 3) -> None:
    admin = AdminClient(settings)  # as long as it lives, it answers
    for made in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        try:
            made.result(60)
        except KafkaException as error:  # Tansu makes a topic for who asks for it: somebody was first
            assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS  # noqa: PT017


class KafkaPeer(Peer):
    """What a broker and librdkafka's own cluster have in common."""

    #: Seconds until no more comes: the end that Tansu tells is one short, now and then.
    _linger = 1.0

    scheme = "kafka"
    fields = (*Peer.fields, 'timeout = "5s"')
    follower = ('group = "follower"',)
    server: Tansu | MockCluster

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._topics = [self.name]

    @property
    def settings(self) -> dict[str, Any]:
        return servers(self.server.url) | getattr(self.server, "options", {})

    def create(self, name: str | None = None, partitions: int = 3) -> None:
        create_topic(self.settings, name or self.name, partitions)

    def drain(self, name: str | None = None) -> list[Any]:
        """All records of a topic, partition by partition, without a group."""
        name = name or self.name
        consumer = Consumer(self.settings | {"group.id": "drain", "enable.auto.commit": False})
        try:
            partitions = consumer.list_topics(name, timeout=60).topics[name].partitions
            ends = {n: consumer.get_watermark_offsets(TopicPartition(name, n), timeout=60)[1] for n in partitions}
            consumer.assign([TopicPartition(name, n, OFFSET_BEGINNING) for n, end in ends.items() if end])
            found: list[Any] = []

            def rest() -> bool:
                more = [record for record in consumer.consume(1000, self._linger or 0.05) if record.error() is None]
                found.extend(more)
                last = {record.partition(): record.offset() for record in found}
                return not (more and self._linger) and all(last.get(n, -1) >= end - 1 for n, end in ends.items() if end)

            wait_for(rest, f"all of {ends}")
            return found
        finally:
            consumer.close()

    def arrived(self) -> Found:
        return self.numbers([record for name in self._topics for record in self.drain(name)])

    @staticmethod
    def numbers(records: list[Any]) -> Found:
        return [(dict(record.headers())["ce_id"].decode(), int(record.value())) for record in records]

    def send(self, numbers: range) -> None:
        producer = Producer(self.settings | {"enable.idempotence": True})
        for n in numbers:
            producer.produce(self.name, str(n).encode(), key=f"k{n % 7}", headers={"tenant": b"eu"})
        assert producer.flush(60) == 0


class TansuPeer(KafkaPeer):
    """A real broker. It says of itself that it is at the wire's end."""

    server: Tansu

    @property
    def wire(self) -> Wire:
        assert self.server.wire is not None
        return self.server.wire

    def start(self) -> None:
        super().start()
        self.create()

    def vanish(self) -> None:
        """It is its wire that leads nowhere."""
        self.wire.target = 0
        self.wire.cut()

    def reappear(self) -> None:
        self.wire.target = self.server.port

    def mend(self) -> None:
        super().mend()
        self.reappear()
        self.flow()


class MockPeer(KafkaPeer):
    """Keeps its data while its brokers are away, and answers as it is told."""

    server: MockCluster
    _linger = 0.0

    def create(self, name: str | None = None, partitions: int = 3) -> None:
        self.server.create(name or self.name, partitions)

    def tap(self) -> None:
        pass

    def forget(self) -> None:
        self.server.delete(self.name)

    def vanish(self) -> None:
        self.kill()

    def reappear(self) -> None:
        self.start()

    def cut(self) -> None:
        self.kill()
        self.start()

    def stall(self) -> None:
        self.server.slow(500)

    def flow(self) -> None:
        self.server.slow(0)

    def mend(self) -> None:
        self.start()
        self.flow()

    def refusing(self, key: str, others: list[str]) -> str:
        self._topics = [f"{self.name}.{one}" for one in (key, *others)]
        self.server.refuse(self._topics[0], KafkaError.TOPIC_AUTHORIZATION_FAILED)
        return f"{self.name}.{{key}}"

    def accept(self) -> None:
        self.server.refuse(self._topics[0])


class StompPeer(Peer):
    scheme = "stomp"
    fields = (*Peer.fields, 'timeout = "5s"')
    server: ActiveMQ

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queues, self._found = [self.name], list[Any]()
        self._is_strict = False

    @property
    def address(self) -> str:
        return f"/queue/{self.name}"

    @contextmanager
    def connected(self) -> Iterator[tuple[Any, Listener]]:
        connection, listener = stomp.Connection12([("127.0.0.1", self.server.port)]), Listener()
        connection.set_listener("test", listener)
        connection.connect(wait=True)
        try:
            yield connection, listener
        finally:
            connection.disconnect()

    def drain(self, name: str | None = None, seconds: float = 0.5) -> list[Any]:
        """All messages of a queue: until none comes for a while."""
        found = []
        with self.connected() as (connection, listener):
            connection.subscribe(f"/queue/{name or self.name}", "1", "auto")
            try:
                while True:
                    found.append(listener.frames.get(timeout=seconds))
            except queue.Empty:
                return found

    def arrived(self) -> Found:
        for name in self._queues:
            self._found += self.drain(name)
        return [(frame.headers["outbox-id"], int(frame.body)) for frame in self._found]

    def forget(self) -> None:
        super().forget()
        self._found.clear()

    def send(self, numbers: range) -> None:
        with self.connected() as (connection, listener):
            for n in numbers:
                headers = {"ce_specversion": "1.0", "ce_id": str(n), "ce_source": "/shop", "ce_type": "order"}
                headers |= {"ce_partitionkey": f"k{n % 7}", "tenant": "eu", "persistent": "true"}
                receipt = {"receipt": str(n)} if n == numbers[-1] else {}
                connection.send(self.address, str(n), content_type="application/json", headers=headers | receipt)
            wait_for(lambda: listener.receipts, "all of them stored")

    def refusing(self, key: str, others: list[str]) -> str:
        """Nobody may write there."""
        others = [f"{self.name}.{one}" for one in others]
        self._queues, self._is_strict = [f"{self.name}.{key}", *others], True
        self._allow(*others)
        return f"/queue/{self.name}.{{key}}"

    def accept(self) -> None:
        self._allow(">")

    def mend(self) -> None:
        super().mend()
        if self._is_strict:
            self._allow(">")

    def _allow(self, *queues: str) -> None:
        self._is_strict = queues != (">",)
        self.server.kill()
        self.server.configure(queues)
        self.server.start()


class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # the package has no types
    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.receipts: list[Any] = []

    def on_receipt(self, frame: Any) -> None:
        self.receipts.append(frame)

    def on_message(self, frame: Any) -> None:
        self.frames.put(frame)


class NatsPeer(Peer):
    scheme = "nats"
    fields = (*Peer.fields, 'timeout = "5s"')
    knows_ids = True
    server: Nats

    @property
    def address(self) -> str:
        return f"{self.name}.{{key}}"

    def source(self, *more: str) -> str:
        return super().source(*more).replace(self.address, self.name)

    def do(self, act: Callable[[Any], Any]) -> Any:
        """Run a coroutine function of a JetStream context."""

        async def connected() -> Any:
            connection = await nats.connect(self.server.url, **getattr(self.server, "options", {}))
            try:
                return await act(connection.jetstream())
            finally:
                await connection.close()

        return asyncio.run(connected())

    def create(self, *subjects: str) -> None:
        """With the source's consumer: what is not acked comes again soon."""
        names = [f"{self.name}.{subject}" for subject in subjects or ("*",)]

        async def act(jetstream: Any) -> None:
            await jetstream.add_stream(name=self.name, subjects=names)
            await jetstream.add_consumer(self.name, durable_name="in", ack_policy="explicit", ack_wait=2)

        self.do(act)

    def stored(self) -> list[Any]:
        """All messages of the stream, in its order."""

        async def act(jetstream: Any) -> list[Any]:
            state = (await jetstream.stream_info(self.name)).state
            return [await jetstream.get_msg(self.name, n) for n in range(state.first_seq or 1, state.last_seq + 1)]

        return list(self.do(act))

    def arrived(self) -> Found:
        return [(message.headers["Nats-Msg-Id"], int(message.data)) for message in self.stored()]

    def send(self, numbers: range) -> None:
        async def act(jetstream: Any) -> None:
            for n in numbers:
                headers = {"ce-specversion": "1.0", "ce-id": str(n), "ce-source": "/shop", "ce-type": "order"}
                headers |= {"ce-partitionkey": f"k{n % 7}", "tenant": "eu", "content-type": "application/json"}
                await jetstream.publish(f"{self.name}.new", str(n).encode(), headers=headers)

        self.do(act)

    def refusing(self, key: str, others: list[str]) -> str:
        """No stream holds it."""
        self.create(*others)
        return self.address

    def accept(self) -> None:
        self.do(lambda jetstream: jetstream.update_stream(name=self.name, subjects=[f"{self.name}.*"]))


class HookPeer(Peer):
    """A receiver of webhooks; it is of one test."""

    scheme = "http"
    fields = (*Peer.fields, "allow_private = true", 'timeout = "5s"')
    charges = True
    server: Receiver

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._before = list[Any]()

    @property
    def address(self) -> str:
        return ""

    @property
    def url(self) -> str:
        return f"{super().url}/hook" if self._wire else self.server.url

    def arrived(self) -> Found:
        with self.server.lock:
            return [(post.id, int(post.body)) for post in self._before + self.server.accepted]

    def kill(self) -> None:
        self.server.close()

    def start(self) -> None:
        self._before += self.server.accepted
        self.server = Receiver(self.server.port)

    def mend(self) -> None:
        self.server.close()

    def refusing(self, key: str, others: list[str]) -> str:
        self.server.refuses_key = key
        return ""

    def accept(self) -> None:
        self.server.refuses_key = None
