"""Where handlers run: sync ones in threads, coroutines in the event loop; both take chunks of calls."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from outbox.chunks import Call, Chunk
from outbox.handling import Interrupted, Outcomes
from outbox.watchdog import Post, Watchdog, calm_thread, interrupt_thread

Done = Callable[[Chunk], None]
#: What an interrupted call comes to.
Failed = Callable[[Call], "Outcomes | None"]
#: Told of a call that goes on beyond its time limit and can't be stopped.
GiveUp = Callable[[Chunk, Call], None]


class Threads:
    """Runs a sync handler in `size` threads. They are daemons: a handler that hangs can't keep the process alive."""

    def __init__(
        self,
        size: int,
        handle: Callable[[Call], Outcomes | None],
        failed: Failed,
        done: Done,
        give_up: GiveUp,
        watchdog: Watchdog,
        limit: float | None,
    ) -> None:
        self._handle, self._failed, self._done, self._give_up = handle, failed, done, give_up
        self._watchdog, self._limit = watchdog, limit
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._size = size
        self._stopping = False
        for number in range(size):
            threading.Thread(target=self._run, name=f"handler-{number}", daemon=True).start()

    def start(self, chunk: Chunk) -> None:
        self._chunks.put(chunk)

    def stop(self) -> None:
        """Let each thread finish the call that it is at."""
        self._stopping = True
        for _ in range(self._size):
            self._chunks.put(None)

    def _run(self) -> None:
        post = self._watched()
        while (chunk := self._chunks.get()) is not None:
            began = time.perf_counter()
            while not self._stopping and (call := chunk.next_call()):
                chunk.note(call, self._handle(call) if post is None else self._handle_watched(post, chunk, call))
            chunk.seconds = time.perf_counter() - began
            self._tell(self._done, chunk)

    def _watched(self) -> Post | None:
        """The post of this thread, if its calls have a limit."""
        if self._limit is None:
            return None
        ident = threading.get_ident()
        interrupt, calm = (lambda call: interrupt_thread(ident)), partial(calm_thread, ident)
        return self._watchdog.watch(Post(self._limit, interrupt, calm, partial(self._tell, self._give_up)))

    def _handle_watched(self, post: Post, chunk: Chunk, call: Call) -> Outcomes | None:
        try:
            try:
                post.begin(chunk, call)
                return self._handle(call)
            finally:
                post.end()
        except Interrupted:  # in the last moment: outside of the handler
            post.end()
            return self._failed(call)

    def _tell(self, listener: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: the grace time was over
            self._loop.call_soon_threadsafe(listener, *arguments)


class Coroutines:
    """Runs an async handler in tasks of the event loop."""

    def __init__(
        self,
        handle: Callable[[Call], Awaitable[Outcomes | None]],
        failed: Failed,
        done: Done,
        give_up: GiveUp,
        watchdog: Watchdog,
        limit: float | None,
    ) -> None:
        self._handle, self._failed, self._done, self._give_up = handle, failed, done, give_up
        self._watchdog, self._limit = watchdog, limit
        self._loop = asyncio.get_running_loop()
        self._posts: dict[asyncio.Task[None], Post | None] = {}
        self._stopping = False

    def start(self, chunk: Chunk) -> None:
        task = self._loop.create_task(self._run(chunk))
        self._posts[task] = self._watched(task)
        task.add_done_callback(self._forget)

    def stop(self) -> None:
        """Let each task finish the call that it is at."""
        self._stopping = True

    def interrupted_chunks(self) -> list[tuple[Chunk, Call | None]]:
        """What is under way, asked from another thread while the loop stands still; with the call that blocks it."""
        blocking = asyncio.current_task(self._loop)
        return [
            (post.chunk, post.call if task is blocking else None)
            for task, post in list(self._posts.items())
            if post and post.chunk
        ]

    async def _run(self, chunk: Chunk) -> None:
        post = self._posts[asyncio.current_task()]  # type: ignore[index]  # we are in it
        began = time.perf_counter()
        while not self._stopping and (call := chunk.next_call()):
            chunk.note(call, await (self._handle(call) if post is None else self._handle_watched(post, chunk, call)))
        chunk.seconds = time.perf_counter() - began
        self._done(chunk)

    def _watched(self, task: asyncio.Task[None]) -> Post | None:
        if self._limit is None:
            return None

        def cancel(call: Call) -> None:
            if post.call is call:  # it has not ended meanwhile
                task.cancel()

        def tell(listener: Callable[..., None], *arguments: object) -> None:
            self._loop.call_soon_threadsafe(listener, *arguments)

        post = Post(self._limit, partial(tell, cancel), lambda: None, partial(tell, self._give_up))
        return self._watchdog.watch(post)

    async def _handle_watched(self, post: Post, chunk: Chunk, call: Call) -> Outcomes | None:
        task = asyncio.current_task()
        assert task is not None
        post.begin(chunk, call)
        try:
            return await self._handle(call)
        except asyncio.CancelledError:
            if not post.interrupted:
                raise
            return self._failed(call)
        finally:
            post.end()
            if post.interrupted:
                task.uncancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        if post := self._posts.pop(task):
            self._watchdog.forget(post)
