"""Where handlers run: sync ones in threads, coroutines in the event loop; both take chunks of calls."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress

from outbox import handling
from outbox.chunks import Call, Chunk
from outbox.posts import GiveUp, Post, TaskPost, ThreadPost
from outbox.series import AsyncSeries, Series
from outbox.watchdog import Watchdog

Done = Callable[[Chunk], None]


class Threads:
    """Runs a sync handler in `size` threads. They are daemons: a handler that hangs can't keep the process alive.

    Args:
        make: makes calls, and tells their chunk.
        series: makes the transactions of a chunk; None: the handler asks for none.
    """

    def __init__(
        self,
        size: int,
        make: Callable[[Chunk, Call, Series | None, Post], None],
        series: Callable[[], AbstractContextManager[Series | None]],
        done: Done,
        give_up: GiveUp,
        watchdog: Watchdog,
        limit: float | None,
    ) -> None:
        self._make, self._series, self._done, self._give_up = make, series, done, give_up
        self._watchdog, self._limit = watchdog, limit
        self._loop = asyncio.get_running_loop()
        self._chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._size = size
        for number in range(size):
            threading.Thread(target=self._run, name=f"handler-{number}", daemon=True).start()

    def start(self, chunk: Chunk) -> None:
        self._chunks.put(chunk)

    def stop(self) -> None:
        """Let each thread end when its chunk does."""
        for _ in range(self._size):
            self._chunks.put(None)

    def _run(self) -> None:
        post = ThreadPost(self._limit or math.inf, lambda chunk, call: self._tell(self._give_up, chunk, call))
        if self._limit is not None:
            self._watchdog.watch(post)
        while (chunk := self._chunks.get()) is not None:
            began = time.perf_counter()
            with self._series() as series:
                while call := chunk.next_call():
                    post.take(chunk, call)
                    if call.apart:
                        handling.handle_apart(chunk.subscription, chunk, call, post)
                        chunk.note_apart(call)
                    else:
                        self._make(chunk, call, series, post)
            chunk.seconds = time.perf_counter() - began
            self._tell(self._done, chunk)

    def _tell(self, listener: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: the grace time was over
            self._loop.call_soon_threadsafe(listener, *arguments)


class Coroutines:
    """Runs an async handler in tasks of the event loop; `make` and `series` as `Threads` has them."""

    def __init__(
        self,
        make: Callable[[Chunk, Call, AsyncSeries | None, Post], Awaitable[None]],
        series: Callable[[], AbstractAsyncContextManager[AsyncSeries | None]],
        done: Done,
        give_up: GiveUp,
        watchdog: Watchdog,
        limit: float | None,
    ) -> None:
        self._make, self._series, self._done, self._give_up = make, series, done, give_up
        self._watchdog, self._limit = watchdog, limit
        self._loop = asyncio.get_running_loop()
        self._posts: dict[asyncio.Task[None], TaskPost] = {}

    def start(self, chunk: Chunk) -> None:
        post = TaskPost(self._limit or math.inf, self._tell_give_up)
        post.task = self._loop.create_task(self._run(chunk, post))
        self._posts[post.task] = post
        post.task.add_done_callback(self._forget)
        if self._limit is not None:
            self._watchdog.watch(post)

    def stop(self) -> None:
        """Each task ends when its chunk does."""

    def interrupted_chunks(self) -> list[tuple[Chunk, Call | None]]:
        """What is under way, asked from another thread while the loop stands still; with the call that blocks it."""
        blocking = asyncio.current_task(self._loop)
        return [
            (post.chunk, post.call if task is blocking else None)
            for task, post in list(self._posts.items())
            if post.chunk is not None
        ]

    def _tell_give_up(self, chunk: Chunk, call: Call) -> None:
        self._loop.call_soon_threadsafe(self._give_up, chunk, call)

    async def _run(self, chunk: Chunk, post: TaskPost) -> None:
        began = time.perf_counter()
        async with self._series() as series:
            while call := chunk.next_call():
                post.take(chunk, call)
                if call.apart:
                    await handling.handle_apart_async(chunk.subscription, chunk, call, post)
                    chunk.note_apart(call)
                else:
                    await self._make(chunk, call, series, post)
        chunk.seconds = time.perf_counter() - began
        self._done(chunk)

    def _forget(self, task: asyncio.Task[None]) -> None:
        post = self._posts.pop(task)
        if self._limit is not None:
            self._watchdog.forget(post)
