"""`/metrics`, `/healthz` and `/readyz` over HTTP: on a port, or on a socket in the file system."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer, ThreadingMixIn, UnixStreamServer
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from outbox.logs import log


@dataclass(frozen=True)
class Answers:
    """What a server says. All are asked in threads of its own."""

    #: The metrics, as Prometheus reads them.
    metrics: Callable[[], bytes]
    #: What the process needs is there: send it work.
    is_ready: Callable[[], bool]
    #: The process does what it should; if not, replace it.
    is_alive: Callable[[], bool] = lambda: True


class Server:
    """Serves from threads until it is closed.

    Args:
        address: host and port (0: any that is free), or the path of a socket; what is left there is replaced.

    Raises:
        OSError: the address is taken, or not ours.
    """

    def __init__(self, address: tuple[str, int] | str, answers: Answers) -> None:
        self._server: _Tcp | _Unix
        if isinstance(address, str):
            with suppress(FileNotFoundError):
                os.unlink(address)
            self._server = _Unix(address, _Handler)
        else:
            self._server = _Tcp(address, _Handler)
        self._server.answers = answers

    @property
    def url(self) -> str:
        """Of one that listens on a port."""
        host, port = self._server.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: _Tcp | _Unix
    timeout = 30

    def do_GET(self) -> None:
        answers = self.server.answers
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, answers.metrics(), CONTENT_TYPE_LATEST)
            case "/healthz":
                self._judge(answers.is_alive(), b"ok\n", b"the event loop stands still\n")
            case "/readyz":
                self._judge(answers.is_ready(), b"ready\n", b"not ready\n")
            case _:
                self._answer(404, b"/metrics, /healthz, /readyz\n")

    def _judge(self, good: bool, yes: bytes, no: bytes) -> None:
        self._answer(200 if good else 503, yes if good else no)

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """A socket in the file system has no client address."""
        return str(self.client_address)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""


class _Quiet(BaseServer):
    """A scraper that hangs up is no news; a fault of ours is one line of the log, and not a page on stderr."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            log(logging.ERROR, "metrics can't be shown", cause=f"{type(error).__name__}: {error}")


class _Tcp(_Quiet, ThreadingHTTPServer):
    answers: Answers
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


class _Unix(_Quiet, ThreadingMixIn, UnixStreamServer):
    answers: Answers
    daemon_threads = True
