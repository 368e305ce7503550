"""Fixtures: a cluster for each supported end of Postgres, and in it a fresh migrated database for each test."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy

from outbox import schema
from outbox.database import sqlalchemy_url
from tests import servers
from tests.servers import PgBouncer, Postgres
from tests.shop_floor import Database

_numbers = itertools.count(1)

NEEDS_POSTGRES_15 = "needs PostgreSQL 15: apt-get install postgresql-15"
NEEDS_PROMETHEUS = "needs Prometheus: apt-get install prometheus"
NEEDS_PGBOUNCER = "needs PgBouncer: apt-get install pgbouncer"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """In CI, where every server is installed, a skipped test is a failure."""
    report: pytest.TestReport = yield
    if report.skipped and os.environ.get("OUTBOX_TESTS_MUST_NOT_SKIP"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", params=["pg18", "pg15"])
def postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """The newest and the oldest Postgres that is supported."""
    yield from _cluster(request.param)


@pytest.fixture(scope="session")
def newest_postgres() -> Iterator[Postgres]:
    """For tests in which the version makes no difference."""
    yield from _cluster("pg18")


def _cluster(version: str) -> Iterator[Postgres]:
    if version == "pg15" and not servers.DEBIAN_POSTGRES.exists():
        pytest.skip(NEEDS_POSTGRES_15)
    cluster = Postgres(servers.DEBIAN_POSTGRES if version == "pg15" else servers.embedded_binaries())
    try:
        cluster.execute("CREATE DATABASE outbox_template")
        engine = sqlalchemy.create_engine(sqlalchemy_url(cluster.url("outbox_template")), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            schema.migrate(connection)
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """A fresh migrated database, on each supported end of Postgres."""
    yield from _database(postgres, "outbox_template")


@pytest.fixture
def one_database(newest_postgres: Postgres) -> Iterator[Database]:
    """A fresh migrated database, on the newest Postgres only."""
    yield from _database(newest_postgres, "outbox_template")


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[Database]:
    """A fresh database without outbox's schema, on each supported end of Postgres."""
    yield from _database(postgres, "template0")


def _database(cluster: Postgres, template: str) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(cluster, name)
    try:
        yield database
    finally:
        database.close()
        cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_postgres() -> Iterator[Database]:
    """A migrated database in a cluster of its own, which the test may stop and start."""
    clusters = _cluster("pg18")
    cluster = next(clusters)
    database = Database(cluster, "outbox_template")
    try:
        yield database
    finally:
        database.close()
        clusters.close()  # type: ignore[attr-defined]  # a generator


@pytest.fixture
def pgbouncer(newest_postgres: Postgres) -> Iterator[PgBouncer]:
    """PgBouncer in transaction pooling before the newest Postgres."""
    if not os.path.exists("/usr/sbin/pgbouncer"):
        pytest.skip(NEEDS_PGBOUNCER)
    bouncer = PgBouncer(newest_postgres)
    try:
        yield bouncer
    finally:
        bouncer.remove()


@pytest.fixture
def needs_prometheus() -> None:
    """Prometheus and promtool are installed."""
    if not shutil.which("promtool") or not shutil.which("prometheus"):
        pytest.skip(NEEDS_PROMETHEUS)


@pytest.fixture
def db(database: Database) -> psycopg.Connection[Any]:
    """A connection to a fresh database, in autocommit mode."""
    return database.connect(autocommit=True)
