"""Where a command serves its metrics."""

from __future__ import annotations

from outbox.cli.options import usage
from outbox.metrics.server import Answers, Server


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
