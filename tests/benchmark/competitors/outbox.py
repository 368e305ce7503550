"""Ourselves, as a user has us: publish in the caller's transaction, and `outbox worker`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy

from outbox import Outbox, schema
from outbox.database import sqlalchemy_url
from tests.benchmark.competitors.competitor import Competitor, Kind, Publisher, Work, insert_order

#: The subscription that is measured.
READER = "reader"


def reader(number: int) -> str:
    """The name of a subscription: of the one that is measured, or of another."""
    return f"other-{number}" if number else READER


_UNSETTLED = """
SELECT coalesce(sum(lag), 0) + (SELECT count(*) FROM outbox.lease WHERE subscription_id = s.id)
       + (SELECT count(*) FROM outbox.redelivery WHERE subscription_id = s.id)
FROM outbox.subscription s JOIN outbox.lag ON lag.subscription = s.name
WHERE s.name = %s GROUP BY s.id
"""


#: Tables whose rows turn over with every pull, and what makes autovacuum treat them like any other.
_SMALL = ("lease", "position", "redelivery", "worker", "counter")
_COMMON = "RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay)"


class Ours(Competitor):
    """outbox.

    Args:
        partitions: of the topic.
        topics: that messages are spread over, in turns; the subscription reads all by one pattern.
        subscriptions: that get every message.
        is_pooled: does the worker connect through PgBouncer?
        one_by_one: does the handler get one message at a time, where many share a transaction?
        pipeline: does it run before the one before it has committed, where each has a transaction of its own?
        storage: what ALTER TABLE does to the small tables that turn over with every pull.
    """

    kinds: frozenset[Kind] = frozenset({"nothing", "effect", "effects", "wait"})

    def __init__(
        self,
        name: str = "outbox",
        partitions: int = 1,
        topics: int = 1,
        subscriptions: int = 1,
        is_pooled: bool = False,
        one_by_one: bool = False,
        pipeline: bool = False,
        storage: str = "",
    ) -> None:
        self.name, self.is_pooled, self._one_by_one, self._pipeline = name, is_pooled, one_by_one, pipeline
        self._partitions, self.subscriptions, self._storage = partitions, subscriptions, storage
        self._topics = [f"orders.{number}" for number in range(topics)]
        self._connection: psycopg.Connection[Any] | None = None

    def missing(self) -> str | None:
        if self.is_pooled and not os.path.exists("/usr/sbin/pgbouncer"):
            return "PgBouncer: apt-get install pgbouncer"
        return None

    def install(self, url: str) -> None:
        engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            schema.migrate(connection)
        with psycopg.connect(url, autocommit=True) as db:
            for table in _SMALL if self._storage else ():
                db.execute(f"ALTER TABLE outbox.{table} {self._storage}")
            for topic in self._topics:
                Outbox().declare_topic(db, topic, partitions=self._partitions)
            for number in range(self.subscriptions):
                db.execute("SELECT outbox.subscribe(%s)", (reader(number),))
                db.execute("SELECT outbox.bind(%s, 'orders.*')", (reader(number),))

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        with psycopg.connect(url) as connection:
            yield _Publisher(connection, self._topics)

    def consume(self, url: str, work: Work) -> None:
        """Become the command that a user runs; the application waits for the start when it has been imported."""
        environment = {**os.environ, "BENCHMARK_WORK": work.to_json(), "OUTBOX_DATABASE_URL": url}
        if self._one_by_one:
            environment["BENCHMARK_ONE_BY_ONE"] = "yes"
        if self._pipeline:
            environment["BENCHMARK_PIPELINE"] = "yes"
        command = [sys.executable, "-m", "outbox", "worker", f"{__package__}.outbox_app:app", "--log-level", "WARNING"]
        os.execve(sys.executable, command, environment)

    def remaining(self, url: str) -> int:
        if self._connection is None:
            self._connection = psycopg.connect(url, autocommit=True)
        row = self._connection.execute(_UNSETTLED, (READER,)).fetchone()
        return int(row[0]) if row else 1  # its worker has not begun

    def remove(self, url: str) -> None:
        if self._connection is not None:
            self._connection.close()


class _Publisher(Publisher):
    def __init__(self, connection: psycopg.Connection[Any], topics: list[str]) -> None:
        self._connection, self._topics = connection, topics
        self._app = Outbox()

    def in_transaction(self, payload: dict[str, Any], commit: bool = True) -> None:
        insert_order(self._connection, payload)
        self._app.publish(self._connection, self._topics[payload["id"] % len(self._topics)], payload)
        if commit:
            self._connection.commit()
        else:
            self._connection.rollback()

    def many(self, payloads: Sequence[dict[str, Any]]) -> None:
        for nth, topic in enumerate(self._topics):
            if share := payloads[nth :: len(self._topics)]:
                self._app.publish_many(self._connection, topic, share)
        self._connection.commit()


def behind_pgbouncer() -> Ours:
    return Ours("outbox (PgBouncer)", is_pooled=True)


def one_by_one() -> Ours:
    return Ours("outbox (one by one)", one_by_one=True)


def pipelined() -> Ours:
    return Ours("outbox (pipeline)", pipeline=True)


def common_autovacuum() -> Ours:
    return Ours("outbox (common autovacuum)", storage=_COMMON)


def full_pages() -> Ours:
    return Ours("outbox (full pages)", storage="SET (fillfactor = 100)")


def four_partitions() -> Ours:
    return Ours("outbox (4 partitions)", partitions=4)


def thousand_topics() -> Ours:
    return Ours("outbox (1000 topics)", topics=1_000)


def nobody() -> Ours:
    return Ours("outbox (0 subscriptions)", subscriptions=0)


def ten_subscriptions() -> Ours:
    return Ours("outbox (10 subscriptions)", subscriptions=10)


def hundred_subscriptions() -> Ours:
    return Ours("outbox (100 subscriptions)", subscriptions=100)
