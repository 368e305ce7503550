"""Where handlers run: sync ones in threads, coroutines in the event loop; both take chunks of messages."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from outbox.model import Message


@dataclass(slots=True)
class Chunk:
    """Messages that one runner handles one after the other, and what became of them."""

    messages: list[Message]
    #: Handled messages, each with None (done) or why not.
    results: list[tuple[Message, Exception | None]] = field(default_factory=list)
    seconds: float = 0.0


class Threads:
    """Runs a sync handler in `size` threads. They are daemons: a handler that hangs can't keep the process alive."""

    def __init__(self, size: int, handle: Callable[[Message], Exception | None], done: Callable[[Chunk], None]) -> None:
        self._handle, self._done = handle, done
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._size = size
        self._stopping = False
        for number in range(size):
            threading.Thread(target=self._run, name=f"handler-{number}", daemon=True).start()

    def start(self, chunk: Chunk) -> None:
        self._chunks.put(chunk)

    def stop(self) -> None:
        """Let each thread finish the message that it handles."""
        self._stopping = True
        for _ in range(self._size):
            self._chunks.put(None)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            began = time.perf_counter()
            for message in chunk.messages:
                if self._stopping:
                    break
                chunk.results.append((message, self._handle(message)))
            chunk.seconds = time.perf_counter() - began
            try:
                self._loop.call_soon_threadsafe(self._done, chunk)
            except RuntimeError:  # the loop has closed: the grace time was over
                return


class Coroutines:
    """Runs an async handler in tasks of the event loop."""

    def __init__(self, handle: Callable[[Message], Awaitable[Exception | None]], done: Callable[[Chunk], None]) -> None:
        self._handle, self._done = handle, done
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self, chunk: Chunk) -> None:
        task = asyncio.get_running_loop().create_task(self._run(chunk))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Let each task finish the message that it handles."""
        self._stopping = True

    async def _run(self, chunk: Chunk) -> None:
        began = time.perf_counter()
        for message in chunk.messages:
            if self._stopping:
                break
            chunk.results.append((message, await self._handle(message)))
        chunk.seconds = time.perf_counter() - began
        self._done(chunk)
