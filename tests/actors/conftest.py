"""A broker on a database of its own, and dramatiq's worker on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import global_broker

from outbox.dramatiq import PostgresBroker
from tests.actors.work import working
from tests.shop_floor import Database


@pytest.fixture
def broker(one_database: Database) -> Iterator[PostgresBroker]:
    """The global broker; its `join` raises the errors of dead letters, unless told not to."""
    before = global_broker
    broker = PostgresBroker(one_database.url, fail_fast=True)
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    try:
        yield broker
    finally:
        broker.emit_after("process_stop") if hasattr(dramatiq.Middleware, "after_process_stop") else None
        broker.close()
        dramatiq.set_broker(before)  # type: ignore[arg-type]  # there was none


@pytest.fixture
def worker(broker: PostgresBroker) -> Iterator[dramatiq.Worker]:
    """A worker with eight threads, that looks often whether it shall stop."""
    with working(broker) as worker:
        yield worker


@pytest.fixture
def seen() -> list[Any]:
    """What actors of a test note."""
    return []
