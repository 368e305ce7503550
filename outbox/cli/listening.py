"""Where a command serves its metrics: of its own process, or of several that it keeps running."""

from __future__ import annotations

import asyncio
import signal
import tempfile

from outbox.cli.options import usage
from outbox.metrics.children import Children
from outbox.metrics.server import Answers, Server
from outbox.supervisor import Supervisor


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise usage(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def listen(address: tuple[str, int] | str, answers: Answers) -> Server:
    """Serve from now on, until the server is closed or the process ends."""
    try:
        server = Server(address, answers)
    except OSError as error:
        where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        raise usage(f"can't serve metrics at {where}: {error.strerror}") from error
    server.start()
    return server


def supervise(
    command: list[str], processes: int, database_url: str, metrics: str, passed_on: tuple[signal.Signals, ...] = ()
) -> int:
    """Keep processes running until asked to stop, and serve the metrics of all; returns the exit code.

    Args:
        command: of one process, which takes `--metrics-socket`.
        metrics: HOST:PORT; empty: none.
        passed_on: signals that the processes are sent, too.
    """
    with tempfile.TemporaryDirectory(prefix="outbox-") as folder:
        children = Children(folder, processes)
        if metrics:
            listen(address_of(metrics), Answers(children.metrics, children.are_ready, children.are_alive))
        supervisor = Supervisor(
            command,
            processes,
            database_url,
            lambda place: ["--metrics-socket", children.path(place)] if metrics else [],
            passed_on,
        )
        return asyncio.run(supervisor.run())
