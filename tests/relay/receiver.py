"""An HTTP server that misbehaves on script: it answers, stalls, or hangs up before or after it has read."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.servers import free_port
from tests.shop_floor import PATIENCE


class Post(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver(ThreadingHTTPServer):
    """Answers 204, unless `script` or `judge` have something else to say.

    `script` holds what the next requests get: a status, (status, headers), "cut" (read, and hang up), or "stall"
    (answer when `flow` is set).
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int | None = None) -> None:
        self.posts: list[Post] = []
        #: What was answered with a 2xx.
        self.accepted: list[Post] = []
        self.script: deque[int | str | tuple[int, dict[str, str]]] = deque()
        #: Of a body: its status, whatever the script says.
        self.refuses: dict[bytes, int] = {}
        #: A key whose messages it refuses.
        self.refuses_key: str | None = None
        self.flow = threading.Event()
        #: Requests at once: now, and at most.
        self.busy, self.busiest = 0, 0
        self.lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        # one that is closed and opened again gets its port again: no connection is given it meanwhile
        super().__init__(("127.0.0.1", port or free_port()), _Answers)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def bodies(self) -> list[bytes]:
        with self.lock:
            return [post.body for post in self.accepted]

    def close(self) -> None:
        """It listens no more, and hangs up."""
        self.flow.set()
        self.shutdown()
        self.server_close()
        self.thread.join()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up; that is what is tested."""


class _Answers(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        post = Post(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with self.server.lock:
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
            self.server.posts.append(post)
            what = self.server.refuses.get(body) or (self.server.script.popleft() if self.server.script else 204)
            if self.server.refuses_key is not None and post.headers.get("ce-partitionkey") == self.server.refuses_key:
                what = 422
        try:
            self._answer(post, what)
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _answer(self, post: Post, what: int | str | tuple[int, dict[str, str]]) -> None:
        if what == "cut":
            self.close_connection = True
            self.connection.close()
            return
        if what == "stall":
            self.server.flow.wait(PATIENCE)
            what = 204
        status, headers = what if isinstance(what, tuple) else (what, {})
        assert isinstance(status, int)
        if 200 <= status < 300:
            with self.server.lock:
                self.server.accepted.append(post)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
