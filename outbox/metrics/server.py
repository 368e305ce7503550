"""`/metrics`, `/healthz` and `/readyz` over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest


class MetricsServer(ThreadingHTTPServer):
    """Serve a registry. `/healthz`: the process runs; `/readyz`: what it needs is there, too."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        super().__init__(address, _Answers)
        self.registry, self.is_ready = registry, is_ready


class _Answers(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = 30

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, generate_latest(self.server.registry), CONTENT_TYPE_LATEST)
            case "/healthz":
                self._answer(200, b"ok\n")
            case "/readyz":
                ready = self.server.is_ready()
                self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
            case _:
                self._answer(404, b"/metrics, /healthz, /readyz\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape every few seconds is no news."""
