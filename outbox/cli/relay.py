"""`outbox relay`: run relays and sources, or send a probe through one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import timedelta
from typing import Annotated

import msgspec
import typer
from prometheus_client import CollectorRegistry, generate_latest

from outbox import definitions as definitions_of
from outbox import logs
from outbox.binding import Binding
from outbox.cli.importing import find
from outbox.cli.listening import address_of, listen, supervise
from outbox.cli.options import DatabaseUrl, complain, usage
from outbox.client import Outbox
from outbox.definitions import Definitions
from outbox.definitions.definition import check
from outbox.metrics.relays import RelayCollector
from outbox.metrics.server import Answers
from outbox.model import Batch, Message
from outbox.relay import target
from outbox.relay.process import Relays, database_source

app = typer.Typer(
    invoke_without_command=True,
    help="Deliver to RabbitMQ, Kafka, ActiveMQ, NATS and webhooks, and bring in from there.",
)

From = Annotated[
    str,
    typer.Option(
        "--definitions",
        "-f",
        envvar="OUTBOX_DEFINITIONS",
        metavar="FILE|MODULE:NAME",
        help="Where relays and sources are: TOML, YAML, a Definitions, or an Outbox.",
    ),
]


@app.callback()
def relay(
    context: typer.Context,
    definitions: From = "outbox.toml",
    database_url: DatabaseUrl = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", "-o", help="Run this relay or source; may be repeated. Default: all.")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", "-p", min=1, help="Processes that share them.")] = 1,
    metrics: Annotated[
        str, typer.Option(envvar="OUTBOX_METRICS", help="HOST:PORT of /metrics, /healthz and /readyz. Default: none.")
    ] = "",
    metrics_socket: Annotated[str, typer.Option(hidden=True, help="The same for a supervisor.")] = "",
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that deliveries may take when it is asked to stop.")
    ] = 25,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without a sign of life after which others take over its messages.")
    ] = 30,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    supervisor: Annotated[int | None, typer.Option(hidden=True, help="End when this parent process is gone.")] = None,
    name: Annotated[str | None, typer.Option(hidden=True, help="What the process is called in outbox.worker.")] = None,
) -> None:
    """Run relays and sources until SIGTERM or Ctrl-C; SIGHUP reads their definitions anew.

    Run as many as you like, on as many machines as you like: they share the work.
    """
    if context.invoked_subcommand is not None:
        return
    if not database_url:
        raise usage("which database? --database-url, or OUTBOX_DATABASE_URL")
    logs.configure(log_level)
    if processes > 1:
        _read(definitions)
        command = ["relay", "--definitions", definitions, "--grace", str(grace), "--timeout", str(timeout)]
        command += ["--log-level", log_level, "--supervisor", str(os.getpid())]
        command += [part for one in only or () for part in ("--only", one)]
        raise typer.Exit(supervise(command, processes, database_url, metrics, (signal.SIGHUP,)))
    relays = Relays(
        lambda: _read(definitions),
        database_url,
        tuple(only or ()),
        timedelta(seconds=grace),
        timedelta(seconds=timeout),
        name,
        supervisor,
    )
    if metrics or metrics_socket:
        registry = CollectorRegistry()
        registry.register(RelayCollector(lambda: relays.tallies))
        answers = Answers(lambda: generate_latest(registry), lambda: relays.is_ready, lambda: relays.is_alive)
        listen(metrics_socket or address_of(metrics), answers)
    asyncio.run(relays.run())


@app.command("test")
def send_probe(
    name: Annotated[str, typer.Argument(help="Of a relay.")],
    definitions: From = "outbox.toml",
    database_url: Annotated[str, typer.Option("--database-url", "-d", envvar="OUTBOX_DATABASE_URL")] = "",
    topic: Annotated[str | None, typer.Option(help="The probe's; by default one that the relay reads.")] = None,
    payload: Annotated[str, typer.Option(help="JSON.")] = '{"probe": true}',
) -> None:
    """Deliver one probe through a relay, and say what became of it. The database is left alone."""
    found = _read(definitions).relays
    if name not in found:
        raise usage(f"there is no relay {name!r}; there are {', '.join(found) or 'none'}")
    one = found[name]
    pattern = one.bindings[0].pattern if isinstance(one.bindings[0], Binding) else one.bindings[0]
    message = probe(topic or pattern.replace("*", "probe").replace("#", "probe"), payload)
    source = one.source or (database_source(database_url) if database_url else "/outbox")
    began = time.monotonic()
    outcome = asyncio.run(_deliver(target.target(name, one, source), message))
    if outcome is not None:
        complain(f"{name}: not delivered: {outcome}")
        raise typer.Exit(1)
    typer.echo(f"{name}: delivered as {message.id}, confirmed after {1000 * (time.monotonic() - began):.0f} ms")


def probe(topic: str, payload: str) -> Message:
    """A message that is in no log; its id is of partition 0, which no log has."""
    now = time.time_ns() // 1000
    batch = Batch(None, 1, False, topic, 0, 0, 0, len(payload))
    return Message(batch, now, now - 946_684_800_000_000, "probe", None, msgspec.json.format(payload.encode()), None)


async def _deliver(one: target.Target, message: Message) -> Exception | None:
    try:
        return (await one.deliver([message]))[0]
    finally:
        await one.close()


def _read(source: str) -> Definitions:
    """From a file, or MODULE:NAME if there is no such file."""
    if os.path.exists(source) or ":" not in source:
        return definitions_of.read(source)
    found = find(source, "a Definitions or an Outbox, as in shop.bus:everything")
    if isinstance(found, Outbox):
        found = Definitions(relays=found.relays, sources=found.sources)
    if not isinstance(found, Definitions):
        what = "missing" if found is None else f"a {type(found).__name__}"
        raise usage(f"{source!r} is {what}, not an outbox.definitions.Definitions or outbox.Outbox")
    check(found)
    return found
