"""A source at work: receive, publish in one transaction with how far it has read, confirm when that is committed."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TypeVar

import psycopg

from outbox import connection as connections
from outbox import database
from outbox.database import AWAY
from outbox.definitions.relays import Source
from outbox.errors import InvalidMessage, LeaseLost, PublishError
from outbox.logs import log
from outbox.payload import Encoded, Limits, check_topic, encode
from outbox.relay import operations, target
from outbox.relay.circuit import Circuit, Stopped, Ticket, unless
from outbox.relay.tally import Tally
from outbox.relay.target import Received, Unavailable

T = TypeVar("T")


class Importer:
    """Runs one source until it is stopped.

    What is received is confirmed there after it is committed here: nothing is lost. What comes again is published once:
    by the offsets that are kept with it, or by its idempotency key, in its topic's window.
    """

    def __init__(self, name: str, source: Source, url: str, limits: Limits | None = None) -> None:
        self.name = name
        self.circuit = Circuit(source.longest_pause.total_seconds())
        self.tally = Tally(name, source.url, self.circuit)
        self._source, self._url, self._limits = source, url, limits or Limits()
        self._intake = target.intake(name, source, self._position)
        self._connection: psycopg.AsyncConnection | None = None
        self._stopping = asyncio.Event()
        self._ticket = Ticket(False, 0)
        #: Seconds after which a source that was away counts as back, if nothing breaks, though nothing comes.
        self._quiet = (source.timeout + source.longest_pause).total_seconds()

    async def run(self) -> None:
        """Until `stop`."""
        try:
            with suppress(Stopped):
                while True:
                    await self._step()
        finally:
            await self._intake.close()
            if self._connection is not None:
                await self._connection.close()

    def stop(self) -> None:
        """Receive no more; what is being published is."""
        self._stopping.set()
        self.circuit.stop()

    async def _step(self) -> None:
        self._ticket = await self.circuit.admit()
        try:
            received = await unless(self._stopping, self._receive())
            began = time.monotonic()
            published = await self._publish(received)
        except Unavailable as error:
            if self.circuit.failed(self._ticket, str(error), error.after):
                log(logging.WARNING, "source's circuit open", source=self.name, reason=str(error))
            return
        except LeaseLost as error:  # it was published already; we read on from where that ended
            log(logging.INFO, "source reads on from elsewhere", source=self.name, reason=str(error))
            await self._intake.close()
            return
        self.tally.note("delivered", published)
        self.tally.note_round(time.monotonic() - began)

    async def _receive(self) -> list[Received]:
        receiving = asyncio.ensure_future(self._intake.receive(self._source.batch))
        try:
            done, _ = await asyncio.wait([receiving], timeout=self._quiet)
            if not done:
                await self._succeeded()
            received = await receiving
            await self._succeeded()
            return received
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _succeeded(self) -> None:
        if self.circuit.state != "closed":
            log(logging.INFO, "source's circuit closed", source=self.name)
        self.circuit.succeeded(self._ticket)
        self._ticket = await self.circuit.admit()

    async def _publish(self, received: list[Received]) -> int:
        """Publish, however long the database is away or refuses, and confirm; again is as good as once."""
        encoded, kept = await self._encode(received)
        steps = self._intake.steps(received)
        pause = 0.1
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await database.connect(self._url)
                async with self._connection.transaction():
                    await connections.run_async(operations.publish(self.name, steps, encoded), self._connection)
            except (*AWAY, PublishError) as error:
                log(logging.WARNING, "source can't publish", source=self.name, reason=_line(error))
                if not isinstance(error, PublishError) and self._connection is not None:
                    await self._connection.close()
                await unless(self._stopping, asyncio.sleep(pause))
                pause = min(2 * pause, self._source.longest_pause.total_seconds())
            else:
                await self._intake.confirm(kept, steps)
                return len(kept)

    async def _encode(self, received: list[Received]) -> tuple[dict[str, list[Encoded]], list[Received]]:
        """By topic, each in order, and what they were; what can never be published is refused."""
        encoded: dict[str, list[Encoded]] = {}
        kept: list[Received] = []
        for one in received:
            message = one.message
            try:
                check_topic(one.topic)
                found = encode(
                    message.payload,
                    self._limits,
                    message.key,
                    message.headers,
                    one.content_type,
                    message.idempotency_key,
                )
            except InvalidMessage as error:
                log(logging.ERROR, "source refuses a message", source=self.name, reason=str(error))
                await self._intake.refuse(one, str(error))
                self.tally.note("rejected")
            else:
                encoded.setdefault(one.topic, []).append(found)
                kept.append(one)
        return encoded, kept

    async def _position(self, partition: str) -> int | None:
        """How far a partition there was read. Raises Unavailable while our own database is away."""
        try:
            async with await database.connect(self._url) as connection:
                return await connections.run_async(operations.position(self.name, partition), connection)
        except AWAY as error:
            raise Unavailable(f"our own database is away: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
