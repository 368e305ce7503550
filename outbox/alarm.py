"""Wake the consumers of a process when something is committed, so that they need not poll fast.

A consumer that dozes holds shared advisory locks on the topics it reads; a publisher that finds one held notifies.
A notification is only ever a hint: consumers poll slowly all the same, and behind a pooler it never comes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Protocol

import psycopg

from outbox import connection as connections
from outbox import database, operations
from outbox.logs import log

CHANNEL = "outbox"

#: Seconds for which the topics of a consumer are remembered.
_TOPICS_LAST = 5.0


class Sleeper(Protocol):
    """What the alarm knows of a consumer, or of the scheduler."""

    @property
    def name(self) -> str | None:
        """Its subscription; None: it reads no topics, but publishes what is due."""

    #: Set when there may be something to do.
    rung: asyncio.Event


class Alarm:
    """Holds the doze locks and listens, for all consumers of a process."""

    def __init__(self, url: str) -> None:
        self._url = url
        #: Do notifications come at all? While they do not, consumers should poll faster.
        self.listening = False
        #: Notifications that have come.
        self.rings = 0
        self._locks: psycopg.AsyncConnection[Any] | None = None
        self._held: Counter[int] = Counter()
        #: consumer → topic → its wake lock; only of those that doze.
        self._dozing: dict[Sleeper, dict[int, int]] = {}
        #: consumer → when it was asked, and what it reads.
        self._topics: dict[Sleeper, tuple[float, dict[int, int]]] = {}
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Listen until cancelled; reconnect when the database was away. Ends at once behind a pooler."""
        while True:
            with suppress(*database.AWAY):
                async with await database.connect(self._url) as connection:
                    if await database.is_pooled(connection):
                        log(logging.INFO, "behind a pooler: polling instead of listening")
                        return
                    await connection.execute(f"LISTEN {CHANNEL}")
                    await self._drop_locks()  # what cut this connection may have cut the other
                    self._set_listening(True)
                    async for notification in connection.notifies():
                        self._ring(notification.payload)
            self._set_listening(False)
            await asyncio.sleep(1)  # the database is away

    async def doze(self, sleeper: Sleeper) -> bool:
        """Take the locks that make publishers notify; True if they are new.

        Then pull once more before you wait: something may have been committed before the locks were there.
        """
        if not self.listening or (sleeper in self._dozing and self._is_fresh(sleeper)):
            return False
        async with self._turn:
            with suppress(*database.AWAY):
                connection = await self._lock_connection()
                topics = await self._topics_of(sleeper, connection)
                if self._dozing.get(sleeper) == topics:
                    return False
                more = set(topics.values()) - set(self._dozing.get(sleeper, {}).values())
                new = [lock for lock in more if not self._held[lock]]
                await connection.execute("SELECT pg_advisory_lock_shared(k) FROM unnest(%s::bigint[]) k", (new,))
                self._held.update(more)
                self._dozing[sleeper] = topics
                return True
        return False

    async def wake(self, sleeper: Sleeper) -> None:
        """Give the locks back, so that publishers need not notify."""
        async with self._turn:
            topics = self._dozing.pop(sleeper, None)
            if topics is None or self._locks is None:
                return
            self._held.subtract(set(topics.values()))
            free = [lock for lock in set(topics.values()) if not self._held[lock]]
            if not free:
                return
            with suppress(*database.AWAY):
                await self._locks.execute("SELECT pg_advisory_unlock_shared(k) FROM unnest(%s::bigint[]) k", (free,))

    async def close(self) -> None:
        await self._drop_locks()

    async def _drop_locks(self) -> None:
        """End the session that holds the locks; whoever dozes takes them anew."""
        async with self._turn:
            self._held.clear()
            self._dozing.clear()
            if self._locks is not None:
                await self._locks.close()
                self._locks = None

    async def _topics_of(self, sleeper: Sleeper, connection: psycopg.AsyncConnection[Any]) -> dict[int, int]:
        """What it read a moment ago, it still reads; a new topic rings everybody, known or not."""
        if not self._is_fresh(sleeper):
            if sleeper.name is None:
                found = await connections.run_async(operations.scheduling(), connection)
                self._topics[sleeper] = (math.inf, found)
            else:
                found = await connections.run_async(operations.topics_of(sleeper.name), connection)
                self._topics[sleeper] = (time.monotonic(), found)
        return self._topics[sleeper][1]

    def _is_fresh(self, sleeper: Sleeper) -> bool:
        known = self._topics.get(sleeper)
        return known is not None and time.monotonic() - known[0] < _TOPICS_LAST

    def _ring(self, topic: str) -> None:
        """A topic that nobody here knows may be new, so everybody looks, and asks again what it reads."""
        self.rings += 1
        known = topic == operations.SCHEDULING or (
            topic.isdecimal() and any(int(topic) in topics for topics in self._dozing.values())
        )
        if not known:
            self._topics.clear()
        for sleeper, topics in self._dozing.items():
            if not known or int(topic) in topics:
                sleeper.rung.set()

    def _set_listening(self, listening: bool) -> None:
        """Whoever waits must look again, and poll as fast as it now has to."""
        if self.listening != listening:
            self.listening = listening
            for sleeper in self._dozing:
                sleeper.rung.set()

    async def _lock_connection(self) -> psycopg.AsyncConnection[Any]:
        """The connection whose session holds the locks; a new one holds none."""
        if self._locks is None or self._locks.closed:
            self._held.clear()
            self._dozing.clear()
            self._locks = await database.connect(self._url)
        return self._locks
