"""A wire to a broker that is cut, stalls, or loses an answer: what was sent has arrived, and nobody hears of it."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress


class Wire:
    """Listens on a port of its own and forwards to the port `target`."""

    def __init__(self, target: int) -> None:
        self.target = target
        #: How often it lost an answer and cut the connection.
        self.lost = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self._lock = threading.Lock()
        self._losses: list[int] = []
        self._sent = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_answers(self, *after: int) -> None:
        """When so many bytes more have gone to the server: lose what it answers, and cut. Again for each number."""
        with self._lock:
            self._losses, self._sent = list(after), 0

    def cut(self) -> None:
        """Break all connections, and those that are being made."""
        with self._lock:
            self._cuts += 1
            pairs = list(self._pairs)
        for pair in pairs:
            _reset(*pair)

    def close(self) -> None:
        self.flowing.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            cuts = self._cuts
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            pair = (client, server)
            with self._lock:
                was_cut = cuts != self._cuts
                if not was_cut:
                    self._pairs.add(pair)
            if was_cut:
                _reset(*pair)
                continue
            for way in (self._ask, self._answer):
                threading.Thread(target=way, args=(pair,), daemon=True).start()

    def _ask(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        with suppress(OSError):
            while data := client.recv(65536):
                self.flowing.wait()
                server.sendall(data)
                with self._lock:
                    self._sent += len(data)
        self._end(pair)

    def _answer(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        with suppress(OSError):
            while data := server.recv(65536):
                self.flowing.wait()
                if self._is_lost():
                    break
                client.sendall(data)
        self._end(pair)

    def _is_lost(self) -> bool:
        with self._lock:
            if not self._losses or self._sent < self._losses[0]:
                return False
            self._losses.pop(0)
            self._sent = 0
            self.lost += 1
            return True

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        _reset(*pair)


def _reset(*ends: socket.socket) -> None:
    """End as a broken network does."""
    for end in ends:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RDWR)
        end.close()
