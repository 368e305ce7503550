"""dramatiq on RabbitMQ, its first broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from tests.benchmark.competitors.competitor import Competitor, Publisher, Work
from tests.benchmark.competitors.dramatiq_worker import KINDS, ActorPublisher, work_until_sigterm
from tests.benchmark.competitors.peer import missing_packages
from tests.benchmark.competitors.rabbitmq import SERVER, Address, Counter, Node

if TYPE_CHECKING:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker


class DramatiqRabbitMQ(Competitor):
    """Durable queues, persistent messages, and a confirmation for each: it knows no other way to be sure of them."""

    name = "dramatiq on RabbitMQ"
    kinds = KINDS
    transactional = False

    def __init__(self) -> None:
        self._node: Node | None = None
        self._counter: Counter | None = None

    def missing(self) -> str | None:
        return missing_packages("dramatiq", "pika") or (None if SERVER.exists() else "apt-get install rabbitmq-server")

    def install(self, url: str) -> None:
        """Start a node; its address, for other processes, is kept in the database."""
        self._node = Node()
        at = self._node.address
        with psycopg.connect(url) as db:
            db.execute("CREATE TABLE rabbitmq (port int, epmd_port int, cookie text)")
            db.execute("INSERT INTO rabbitmq VALUES (%s, %s, %s)", (at.port, at.epmd_port, at.cookie))

    def remove(self, url: str) -> None:
        if self._counter is not None:
            self._counter.close()
        if self._node is not None:
            self._node.stop()
        self._counter = self._node = None

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        broker = _broker(url)
        with psycopg.connect(url) as connection:
            yield ActorPublisher(connection, broker)
        broker.close()

    def consume(self, url: str, work: Work) -> None:
        work_until_sigterm(url, work, partial(_broker, url))

    def remaining(self, url: str) -> int:
        if self._counter is None:
            self._counter = Counter(_address(url))
        return self._counter.count()


def _address(url: str) -> Address:
    with psycopg.connect(url) as db:
        row = db.execute("SELECT port, epmd_port, cookie FROM rabbitmq").fetchone()
    assert row is not None
    return Address(*row)


def _broker(url: str) -> RabbitmqBroker:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    return RabbitmqBroker(url=_address(url).url, confirm_delivery=True)
