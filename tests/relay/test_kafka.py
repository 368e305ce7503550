"""Kafka on both ends: an idempotent producer, and offsets that move in the transaction that publishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from outbox import Outbox
from outbox.cli.relay import probe
from outbox.definitions import Relay
from outbox.model import Reject
from outbox.relay import kafka as kafka_module
from tests.relay.brokers import Tansu
from tests.relay.running import came_in, check_ledger, publish, relaying, settled, wait_until_settled
from tests.relay.wire import Wire
from tests.shop_floor import Database, wait_for


def definition(url: str, name: str, *more: str) -> str:
    fields = "\n".join([f'address = "{name}"', 'longest_pause = "200ms"', *more])
    return f'[relays.out]\nurl = "{url}"\nbindings = ["orders.*"]\n{fields}\n'


def source(url: str, name: str, *more: str) -> str:
    fields = "\n".join(['topic = "in.orders"', 'longest_pause = "200ms"', *more])
    return f'[sources.in]\nurl = "{url}"\naddress = "{name}"\n{fields}\n'


def servers(url: str) -> dict[str, Any]:
    return {"bootstrap.servers": url.removeprefix("kafka://"), "log_level": 0}


def create(url: str, name: str, partitions: int = 3) -> None:
    admin = AdminClient(servers(url))  # as long as it lives, it answers
    for made in admin.create_topics([NewTopic(name, partitions, 1)]).values():
        try:
            made.result(10)
        except KafkaException as error:  # Tansu makes a topic for who asks for it: the relay was first
            assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS  # noqa: PT017


def drain(url: str, name: str) -> list[Any]:
    """All records of a topic, partition by partition, without a group."""
    consumer = Consumer(servers(url) | {"group.id": "drain", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
        ends = {n: consumer.get_watermark_offsets(TopicPartition(name, n), timeout=10)[1] for n in partitions}
        consumer.assign([TopicPartition(name, n, OFFSET_BEGINNING) for n, end in ends.items() if end])
        found: list[Any] = []

        def rest() -> bool:
            more = [record for record in consumer.consume(1000, 1) if record.error() is None]
            found.extend(more)
            last = {record.partition(): record.offset() for record in found}
            # the end that Tansu tells is one short, now and then: so until no more comes
            return not more and all(last.get(n, -1) >= end - 1 for n, end in ends.items() if end)

        wait_for(rest, f"all of {ends}")
        return found
    finally:
        consumer.close()


def numbers(found: list[Any]) -> list[tuple[str, int]]:
    return [(header(record, "ce_id"), int(record.value())) for record in found]


def header(record: Any, name: str) -> str:
    return str(dict(record.headers())[name].decode())


def send(url: str, name: str, bodies: range) -> None:
    producer = Producer(servers(url) | {"enable.idempotence": True})
    for n in bodies:
        producer.produce(name, str(n).encode(), key=f"k{n % 7}", headers={"tenant": b"eu"})
    assert producer.flush(20) == 0


def test_messages_arrive_as_cloudevents_in_the_order_of_their_keys(
    one_database: Database, tmp_path: Path, kafka: Tansu, name: str
) -> None:
    create(kafka.url, name)
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 3)")
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", {"id": 1}, key="k", headers={"tenant": "eu"})
    with relaying(one_database.url, tmp_path, definition(kafka.url, name)) as process:
        wait_until_settled(one_database)
        (record,) = drain(kafka.url, name)
        headers = {name: value.decode() for name, value in record.headers()}
        wanted = {"ce_id": str(id), "ce_type": "orders.placed", "content-type": "application/json", "tenant": "eu"}
        assert wanted.items() <= headers.items()
        assert (record.key(), record.value()) == (b"k", b'{"id":1}')
        publish(one_database, "orders.placed", range(2000))
        wait_until_settled(one_database)
        assert process.stop() == 0
    found = [record for record in drain(kafka.url, name) if record.value() != b'{"id":1}']
    check_ledger(numbers(found), range(2000))
    assert len({(record.key(), record.partition()) for record in found}) == 7


def test_a_broker_that_is_absent_and_comes_back_without_its_data_loses_nothing_from_then_on(
    one_database: Database, tmp_path: Path, name: str
) -> None:
    broker = Tansu()
    try:
        broker.kill()
        publish(one_database, "orders.placed", range(100))
        text = definition(broker.url, name, "max_attempts = 1", 'timeout = "5s"')
        with relaying(one_database.url, tmp_path, text) as process:
            process.wait_for_line("circuit open")
            broker.start()
            create(broker.url, name)
            wait_until_settled(one_database)
            check_ledger(numbers(drain(broker.url, name)), range(100), doubled=True)
            broker.kill()
            publish(one_database, "orders.placed", range(100, 200))
            process.wait_for_line("circuit open", 2)
            broker.start()
            create(broker.url, name)
            wait_until_settled(one_database)
            check_ledger(numbers(drain(broker.url, name)), range(100, 200), doubled=True)
        assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    finally:
        broker.remove()


def test_a_connection_that_is_cut_before_the_answer_repeats_nothing_or_under_the_same_id(
    one_database: Database, tmp_path: Path, kafka: Tansu, name: str, wires: Callable[[int], Wire]
) -> None:
    wire = wires(0)
    broker = BehindWire(wire)
    try:
        create(broker.url, name)
        with relaying(one_database.url, tmp_path, definition(broker.url, name, "batch = 50")):
            publish(one_database, "orders.placed", range(10))
            wait_until_settled(one_database)
            wire.lose_answers(1_000, 5_000)
            publish(one_database, "orders.placed", range(10, 500))
            wait_until_settled(one_database)
        assert wire.lost == 2
        check_ledger(numbers(drain(broker.url, name)), range(500), doubled=True)
    finally:
        broker.remove()


class BehindWire(Tansu):
    """Says that it is where the wire begins."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        super().__init__()

    def command(self) -> list[str]:
        self.wire.target = self.port
        command = super().command()
        command[command.index("--advertised-listener-url") + 1] = f"tcp://127.0.0.1:{self.wire.port}"
        return command

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.wire.port}"


def test_a_message_that_is_too_large_is_a_dead_letter_and_others_go_on(
    one_database: Database, tmp_path: Path, mock: str, name: str
) -> None:
    with one_database.connect() as connection:
        Outbox().publish(connection, "orders.placed", "x" * 1_000_500, key="k0")
    publish(one_database, "orders.placed", range(50))
    with relaying(one_database.url, tmp_path, definition(mock, name)):
        wait_until_settled(one_database)
    check_ledger(numbers(drain(mock, name)), range(50))
    assert one_database.value("SELECT errors -> -1 ->> 'text' FROM outbox.dead_letter").startswith("Kafka can't store")


class Broker:
    """Refuses a batch as a whole: for its size, and for a record in it."""

    def __init__(self) -> None:
        self.stored: list[bytes] = []
        self.batches = 0

    def producer(self, settings: dict[str, Any]) -> Any:
        return _Batching(self)


class _Batching:
    """What librdkafka does with a batch that a broker refuses: all in it fail, and those behind it can't go."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.waiting: list[tuple[bytes, Callable[[KafkaError | None, None], None]]] = []
        self.is_dead = False

    def produce(self, topic: str, value: bytes, on_delivery: Any, **more: Any) -> None:
        self.waiting.append((value, on_delivery))

    def poll(self, seconds: float) -> None:
        while batch := self.waiting[:20]:
            self.waiting = self.waiting[20:]
            self.broker.batches += 1
            error = KafkaError(KafkaError._PURGE_QUEUE) if self.is_dead else self.verdict([one for one, _ in batch])
            if error is None:
                self.broker.stored += [one for one, _ in batch]
            self.is_dead = error is not None
            for _, tell in batch:
                tell(error, None)

    def verdict(self, values: list[bytes]) -> KafkaError | None:
        if sum(map(len, values)) > 200:
            return KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
        return KafkaError(KafkaError.INVALID_RECORD) if b'"poison"' in values else None

    def purge(self) -> None:
        self.waiting.clear()

    def flush(self, seconds: float) -> None:
        pass


@pytest.mark.parametrize("count", [1, 50])
def test_a_batch_that_the_broker_refuses_is_halved_until_it_is_known_for_whom(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    broker = Broker()
    monkeypatch.setattr(kafka_module, "Producer", broker.producer)
    payloads = [f'"{n:08}"' for n in range(count)]
    payloads[count // 3] = '"poison"'
    payloads[count // 2] = f'"{"x" * 300}"' if count > 1 else payloads[count // 2]
    messages = [probe("orders.placed", payload) for payload in payloads]

    async def play() -> list[Exception | None]:
        topic = kafka_module.Topic("out", Relay(url="kafka://h", bindings=("a",)), "/s")
        found = await topic.deliver(messages)
        await topic.close()
        return found

    outcomes = asyncio.run(play())
    rejected = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Reject)]
    assert rejected == sorted({count // 3, count // 2})
    assert [one for n, one in enumerate(outcomes) if n not in rejected] == [None] * (count - len(rejected))
    assert broker.stored == [one.encode() for n, one in enumerate(payloads) if n not in rejected]


def test_a_pattern_that_kafka_can_t_read_opens_the_circuit_and_ends_nothing(
    one_database: Database, tmp_path: Path, mock: str
) -> None:
    with relaying(one_database.url, tmp_path, source(mock, "^(")) as process:
        process.wait_for_line("source's circuit open")
        assert process.stop() == 0


def test_a_source_publishes_a_topic_exactly_once_though_it_is_killed_again_and_again(
    one_database: Database, tmp_path: Path, mock: str, name: str
) -> None:
    """There are no idempotency keys here: only the offsets, which move with what is published."""
    send(mock, name, range(300))
    text = source(mock, name, "batch = 7")
    for wanted in 50, 120, 200:
        with relaying(one_database.url, tmp_path, text) as process:
            wait_for(lambda wanted=wanted: len(came_in(one_database)) >= wanted, f"{wanted} of them", 60)  # type: ignore[misc]
            process.kill()
    with relaying(one_database.url, tmp_path, text) as process:
        send(mock, name, range(300, 600))
        wait_for(lambda: len(came_in(one_database)) >= 600, "all of them", 60)
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(600))
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})


def test_two_sources_share_a_topic_and_publish_it_once(
    one_database: Database, tmp_path: Path, mock: str, name: str
) -> None:
    send(mock, name, range(400))
    text = source(mock, name, "batch = 20")
    (tmp_path / "b").mkdir()
    with relaying(one_database.url, tmp_path, text) as first:
        wait_for(lambda: came_in(one_database), "the first")
        with relaying(one_database.url, tmp_path / "b", text) as second:
            send(mock, name, range(400, 1200))
            wait_for(lambda: len(came_in(one_database)) >= 1200, "all of them", 60)
            first.kill()
            send(mock, name, range(1200, 1500))
            wait_for(lambda: len(came_in(one_database)) >= 1500, "the rest", 60)
            assert second.stop() == 0
    check_ledger(came_in(one_database), range(1500))


def test_what_goes_out_to_kafka_comes_back_in_once(
    one_database: Database, tmp_path: Path, kafka: Tansu, name: str
) -> None:
    """On a real broker: a round trip, with the ids that relays give."""
    create(kafka.url, name)
    publish(one_database, "orders.placed", range(200))
    text = definition(kafka.url, name) + source(kafka.url, name)
    with relaying(one_database.url, tmp_path, text) as process:
        came = "SELECT count(*) FROM outbox.history WHERE topic = 'in.orders'"
        wait_for(lambda: one_database.value(came) == 200, "all of them", 90)
        wait_for(lambda: settled(one_database), "all settled")
        assert process.stop() == 0
    assert one_database.value(f"{came} AND key IS NOT NULL") == 200
