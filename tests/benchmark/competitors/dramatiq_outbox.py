"""dramatiq with our broker: actors are sent messages in the transaction of the order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy

from outbox import schema
from outbox.database import sqlalchemy_url
from tests.benchmark.competitors.competitor import Publisher, Work, insert_order
from tests.benchmark.competitors.dramatiq_worker import KINDS, ActorPublisher, work_until_sigterm
from tests.benchmark.competitors.peer import Peer

if TYPE_CHECKING:
    from outbox.dramatiq import PostgresBroker


class InTransaction(ActorPublisher):
    """One commit for the order and the message, or for many messages."""

    def __init__(self, connection: psycopg.Connection[Any], broker: PostgresBroker) -> None:
        super().__init__(connection, broker)
        self._broker = broker

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        insert_order(self._connection, payload)
        with self._broker.transaction(self._connection):
            self._actor.send(payload)
        if commit:
            self._connection.commit()
        else:
            self._connection.rollback()

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        with self._connection.transaction(), self._broker.transaction(self._connection):
            super().many(payloads)


class DramatiqOutbox(Peer):
    """Our broker beside dramatiq's others, driven by the same worker."""

    name = "dramatiq on outbox"
    kinds = KINDS
    packages = ("dramatiq",)
    unsettled = "SELECT coalesce(sum(waiting + retrying + in_flight), 0) FROM outbox.actors(most => 1)"

    def install(self, url: str) -> None:
        engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            schema.migrate(connection)

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        broker = _broker(url)
        with psycopg.connect(url) as connection:
            yield InTransaction(connection, broker)
        broker.close()

    def consume(self, url: str, work: Work) -> None:
        work_until_sigterm(url, work, partial(_broker, url))


def _broker(url: str) -> PostgresBroker:
    from outbox.dramatiq import PostgresBroker

    return PostgresBroker(url)
