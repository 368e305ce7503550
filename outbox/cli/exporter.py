"""`outbox exporter`: how a database stands, for Prometheus."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from outbox.cli.listening import address_of
from outbox.cli.listening import listen as serve_at
from outbox.cli.options import DatabaseUrl, console, usage
from outbox.metrics.database import DatabaseCollector
from outbox.metrics.readings import DATABASE
from outbox.metrics.relays import RELAY
from outbox.metrics.server import Answers, Server
from outbox.metrics.worker import WORKER
from outbox.sd_notify import interval, notify


def exporter(
    database_url: DatabaseUrl = "",
    listen: Annotated[str, typer.Option(help="HOST:PORT of /metrics, /healthz and /readyz.")] = "127.0.0.1:9630",
    topics: Annotated[int, typer.Option(min=0, help="So many topics by name, the others together.")] = 100,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a statement may take.")] = 5.0,
    share: Annotated[
        float,
        typer.Option(min=0.0001, max=1, help="Part of the time that a statement may take; a slow one is run seldom."),
    ] = 0.001,
    list: Annotated[bool, typer.Option("--list", help="List the metrics and exit.")] = False,
) -> None:
    """Serve metrics of a database; several may run, and show the same."""
    if list:
        _list()
        return
    if not database_url:
        raise usage("which database? --database-url, or OUTBOX_DATABASE_URL")
    collector = DatabaseCollector(database_url, topics, timeout, share)
    registry = CollectorRegistry()
    registry.register(collector)
    _serve(serve_at(address_of(listen), Answers(lambda: generate_latest(registry), collector.is_ready)))
    collector.close()


def _serve(server: Server) -> None:
    """Until SIGTERM or Ctrl-C."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    print(f"metrics at {server.url}/metrics", flush=True)
    notify("READY=1")
    while not asked.wait(interval()):
        notify("WATCHDOG=1")
    notify("STOPPING=1")
    server.close()


def _list() -> None:
    for metric in (*DATABASE, *WORKER, *RELAY):
        console.print(f"{metric.name}\t{metric.kind}\t{metric.help}", soft_wrap=True, highlight=False, markup=False)
