"""dramatiq with its broker in Postgres: rows that are claimed in batches, and deleted one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from tests.benchmark.competitors.competitor import Publisher, Work
from tests.benchmark.competitors.dramatiq_worker import KINDS, ActorPublisher, work_until_sigterm
from tests.benchmark.competitors.peer import Peer

if TYPE_CHECKING:
    from dramatiq_postgres import PostgresBroker


class DramatiqPostgres(Peer):
    """The package that is kept up; dramatiq-pg, of 2024, knows no dramatiq 2. It sends on connections of its own.

    Now and then a worker that is stopped in order leaves a few messages claimed; another takes them after a minute.
    """

    name = "dramatiq-postgres"
    share = 0.2
    kinds = KINDS
    transactional = False
    packages = ("dramatiq-postgres",)
    unsettled = "SELECT count(*) FROM (SELECT FROM dramatiq.queue LIMIT 1) AS one"

    def install(self, url: str) -> None:
        import dramatiq_postgres

        with psycopg.connect(url) as connection:
            dramatiq_postgres.init(connection.cursor())

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        broker = _broker(url)
        with psycopg.connect(url) as connection:
            yield ActorPublisher(connection, broker)
        broker.close()

    def consume(self, url: str, work: Work) -> None:
        work_until_sigterm(url, work, partial(_broker, url))


def _broker(url: str) -> PostgresBroker:
    from dramatiq_postgres import PostgresBroker

    return PostgresBroker(url=url, results=False, schema="dramatiq")
