"""A proxy before Postgres that fails as networks do: it cuts, stalls, and loses a COMMIT or the answer to it.

It reads just enough of the protocol to see what commits: a COMMIT, or a call of the engine outside of a transaction.
Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

#: "May I speak TLS, or GSSAPI?" Both are answered with "N".
_REQUESTS_FOR_ENCRYPTION = (80877103, 80877104)


class Proxy:
    """Listens on a port of its own and forwards to the port `target`, from a thread of its own.

    Args:
        target: where connections that are made from now on lead; may be changed at any time.
        seed: of the chance by which commits are lost.
    """

    def __init__(self, target: int, seed: int) -> None:
        self.target, self.chance = target, random.Random(seed)
        #: The share of commits of which the client will not hear, 0 to 1.
        self.losing = 0.0
        #: What it did: connections cut, questions and answers lost, forwards that a stall held up.
        self.strikes: Counter[str] = Counter()
        self.links: set[_Link] = set()
        self.is_shut = False
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def cut(self) -> None:
        """Reset all connections."""
        self._do(self._cut)

    def shut(self) -> None:
        """Reset all connections, and refuse new ones until `open`."""
        self.is_shut = True
        self._do(self._cut)

    def open(self) -> None:
        self.is_shut = False

    def stall(self) -> None:
        """Forward nothing until `flow`; connections stay."""
        self._do(self.flowing.clear)

    def flow(self) -> None:
        self._do(self.flowing.set)

    def close(self) -> None:
        self.shut()
        self._do(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))  # they end
        self._loop.close()

    def _do(self, act: Callable[[], None]) -> None:
        """Act in the loop's thread, and return when it is done."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(), done.set()))
        done.wait()

    def _cut(self) -> None:
        self.strikes["cut"] += len(self.links)
        for link in list(self.links):
            link.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, reader, writer)
        self.links.add(link)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await link.run()
        self.links.discard(link)
        link.close()


class _Link:
    """One client's connection and ours to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy, self.reader, self.writers = proxy, reader, [writer]
        self.statements = _Statements()
        self.is_answer_lost = False

    async def run(self) -> None:
        if self.proxy.is_shut:
            return self.reset()
        greeting = await self._greet()
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.proxy.target)
        self.writers.append(server_writer)
        if self.proxy.is_shut:
            return self.reset()
        server_writer.write(greeting)
        ways = [asyncio.ensure_future(way) for way in (self._ask(server_writer), self._answer(server_reader))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        return None

    async def _greet(self) -> bytes:
        """The client's first message, which has no type byte."""
        while True:
            head = await self.reader.readexactly(8)
            length, code = struct.unpack("!ii", head)
            if code not in _REQUESTS_FOR_ENCRYPTION:
                return head + await self.reader.readexactly(length - 8)
            self.writers[0].write(b"N")

    async def _ask(self, server: asyncio.StreamWriter) -> None:
        while data := await self.reader.read(1 << 16):
            await self._wait_for_flow()
            if self.statements.ask(data) and self.proxy.chance.random() < self.proxy.losing:
                if self.proxy.chance.random() < 0.25:
                    self.proxy.strikes["question lost"] += 1
                    return self.reset()
                self.is_answer_lost = True
            server.write(data)
            await server.drain()
        return None

    async def _answer(self, server: asyncio.StreamReader) -> None:
        while data := await server.read(1 << 16):
            await self._wait_for_flow()
            self.statements.answer(data)
            if self.is_answer_lost:
                self.proxy.strikes["answer lost"] += 1
                return self.reset()
            self.writers[0].write(data)
            await self.writers[0].drain()
        return None

    async def _wait_for_flow(self) -> None:
        self.proxy.strikes["held up"] += not self.proxy.flowing.is_set()
        await self.proxy.flowing.wait()

    def reset(self) -> None:
        """End both connections as a broken network does: what was under way is lost."""
        for writer in self.writers:
            if (raw := writer.get_extra_info("socket")) is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class _Statements:
    """Follows a conversation, to know when the client asks for a commit."""

    def __init__(self) -> None:
        self._asked, self._answered = _Frames(), _Frames()
        self._texts: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._is_in_transaction = False

    def ask(self, data: bytes) -> bool:
        """Is there something among what the client says that commits, if it succeeds?"""
        texts = [self._executed(kind, body) for kind, body in self._asked.feed(data)]
        return any(map(self._commits, texts))

    def answer(self, data: bytes) -> None:
        for kind, body in self._answered.feed(data):
            if kind == b"Z":  # ReadyForQuery
                self._is_in_transaction = body != b"I"

    def _executed(self, kind: bytes, body: bytes) -> bytes:
        """The text of the statement that a message executes, or nothing."""
        if kind == b"Q":
            return body
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._texts[name] = text
        elif kind == b"B":
            portal, name, _ = body.split(b"\0", 2)
            self._portals[portal] = name
        elif kind == b"E":
            return self._texts.get(self._portals.get(body.split(b"\0", 1)[0], b"?"), b"")
        return b""

    def _commits(self, text: bytes) -> bool:
        return text.strip(b"\0 ;").upper() == b"COMMIT" or (b"outbox." in text and not self._is_in_transaction)


class _Frames:
    """Parts a stream into messages: a type byte, a length that counts itself, a body."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The messages that are complete now."""
        self._rest += data
        found, at = [], 0
        while len(self._rest) - at >= 5:
            end = at + 1 + int.from_bytes(self._rest[at + 1 : at + 5], "big")
            if end > len(self._rest):
                break
            found.append((bytes(self._rest[at : at + 1]), bytes(self._rest[at + 5 : end])))
            at = end
        del self._rest[:at]
        return found
