"""What the story has beside a worker: a relay to a webhook, and dramatiq's actors with its own metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import dramatiq

from outbox.dramatiq import PostgresBroker
from tests.actors.command import Command, command
from tests.relay.receiver import Receiver
from tests.shop_floor import Database

#: To a receiver at a port.
RELAY = """
[relays.hook]
url = "http://127.0.0.1:{}/hook"
bindings = ["hooks.*"]
allow_private = true
longest_pause = "500ms"
"""

_ACTORS = """
import time
import dramatiq
from dramatiq.middleware.prometheus import Prometheus
from outbox.dramatiq import PostgresBroker

broker = PostgresBroker()
broker.add_middleware(Prometheus())
dramatiq.set_broker(broker)

@dramatiq.actor
def resize(picture):
    time.sleep(0.05)

@dramatiq.actor(max_retries=1, min_backoff=100)
def fail(picture):
    raise ValueError(picture)
"""


@contextmanager
def receiving(port: int) -> Iterator[Receiver]:
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.close()


def send(database: Database, actor: str, *arguments: int) -> None:
    """A message to an actor, for each argument."""
    broker = PostgresBroker(database.url)
    one = dramatiq.actor(lambda _: None, actor_name=actor, broker=broker)
    for argument in arguments:
        one.send(argument)
    broker.close()


@contextmanager
def acting(database: Database, folder: Path, port: int) -> Iterator[Command]:
    """`dramatiq`, with its metrics at a port."""
    (folder / "actors_under_test.py").write_text(_ACTORS)
    settings = {"port": str(port), "host": "127.0.0.1", "db": str(folder / "prometheus")}
    with (
        mock.patch.dict(os.environ, {f"dramatiq_prom_{name}": value for name, value in settings.items()}),
        command(database, folder, "actors_under_test", 1, 2) as started,
    ):
        started.wait_until_ready()
        yield started
