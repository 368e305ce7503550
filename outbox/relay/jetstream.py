"""NATS JetStream: a relay that waits for the stream's acks, and a source that acks what is committed here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration
from outbox.model import Message, Reject, Retry
from outbox.relay import credentials
from outbox.relay.cloudevents import Event, Incoming, event, message_of
from outbox.relay.places import address_of, topic_of
from outbox.relay.target import Outcome, Received, Step, Unavailable

#: By this header a stream knows what it has already, within its window for duplicates.
_ID, _CONTENT_TYPE = "Nats-Msg-Id", "content-type"
_PREFIX = "ce-"
#: What JetStream answers while it has no leader, is full, or has too few replicas: nothing is wrong with the message.
_BUSY = frozenset({503})
_AWAY = (NatsError, OSError, asyncio.TimeoutError)
#: Seconds that a look for messages waits.
_IDLE = 0.5


def target(name: str, relay: Relay, source: str) -> Stream:
    return Stream(name, relay, source)


def intake(name: str, source: Source, position: object) -> Durable:
    return Durable(name, source)


async def _connect(peer: Relay | Source, name: str) -> Client:
    """Raises Unavailable. A connection that broke is not mended: we make another."""
    parts = urlsplit(peer.url)
    scheme = "tls" if peer.is_encrypted else "nats"
    try:
        login = await credentials.login(peer)
        more: dict[str, Any] = {"user": login[0], "password": login[1]} if login else {}
        if (context := credentials.tls(peer)) is not None:
            more["tls"] = context
        async with asyncio.timeout(peer.timeout.total_seconds()):
            return await nats.connect(
                [f"{scheme}://{host}" for host in parts.netloc.split(",")],
                name=f"outbox {name}",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                error_cb=_nothing,
                **more,
            )
    except InvalidDeclaration as error:
        raise Unavailable(str(error)) from None
    except _AWAY as error:
        raise Unavailable(f"can't connect to NATS: {_said(error)}") from None


async def _nothing(error: Exception) -> None:
    """Errors come to who asks, too."""


class Stream:
    """Publishes to subjects that a stream must hold; each message is acked, and a repetition is stored once."""

    keeps_order = False
    is_whole = False

    def __init__(self, name: str, relay: Relay, source: str) -> None:
        self._name, self._relay, self._source = name, relay, source
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        try:
            jetstream = await self._open()
        except Unavailable as error:
            return [error] * len(messages)
        found = await asyncio.gather(*(self._publish(jetstream, message) for message in messages))
        if any(isinstance(outcome, Unavailable) for outcome in found):
            await self.close()
        return list(found)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(*_AWAY):
                await asyncio.wait_for(client.close(), 2)

    async def _open(self) -> JetStreamContext:
        async with self._opening:
            if self._client is None or not self._client.is_connected:
                await self.close()
                self._client = await _connect(self._relay, self._name)
            return self._client.jetstream(timeout=self._relay.timeout.total_seconds())

    async def _publish(self, jetstream: JetStreamContext, message: Message) -> Outcome:
        one = event(message, self._relay, self._source)
        subject = address_of(self._relay.address or "{topic}", message)
        if not subject or any(character.isspace() or character in "*>" for character in subject):
            return Reject(f"{subject!r} is no subject to publish to")
        try:
            await jetstream.publish(subject, one.body, headers=_headers(one, self._source))
        except NoStreamResponseError:
            return Retry(reason=f"no stream holds {subject!r}")
        except MaxPayloadError:
            return Reject("NATS can't take it: it is larger than max_payload")
        except APIError as error:
            if error.code in _BUSY:
                return Unavailable(f"JetStream is not ready: {error.description}")
            return Retry(reason=f"JetStream refuses it: {error.description}")
        except (TimeoutError, NatsTimeout):
            return Unavailable(f"JetStream did not ack within {self._relay.timeout.total_seconds():g} s")
        except _AWAY as error:
            return Unavailable(f"the connection broke: {_said(error)}", is_cut=True)
        return None


def _headers(one: Event, source: str) -> dict[str, str]:
    """In one line each, as NATS has it; what does not fit there is in percent signs."""
    headers = {f"{_PREFIX}{name}": value for name, value in one.attributes.items()}
    trace = {name: one.attributes[name] for name in ("traceparent", "tracestate") if name in one.attributes}
    plain = one.headers | trace | headers
    quoted = {name: _in_a_line(value) for name, value in plain.items() if ":" not in name}
    return quoted | {_ID: f"{source} {one.id}", _CONTENT_TYPE: one.content_type}


def _in_a_line(value: str) -> str:
    if value.isprintable() and "%" not in value:
        return value
    return "".join(c if c.isprintable() and c != "%" else quote(c, safe="") for c in value)


class Durable:
    """Pulls from a durable consumer, STREAM/CONSUMER; the stream must exist, the consumer is made if there is none."""

    def __init__(self, name: str, source: Source) -> None:
        self._name, self._source = name, source
        self._stream, _, self._durable = source.address.partition("/")
        self._client: Client | None = None
        self._pulls: Any = None

    async def receive(self, limit: int) -> list[Received]:
        if self._client is None or not self._client.is_connected:
            await self._open()
        while True:
            try:
                found = await self._pulls.fetch(limit, timeout=_IDLE)
            except (TimeoutError, NatsTimeout):
                if self._client is not None and self._client.is_connected:
                    continue
                raise Unavailable("the connection to NATS broke") from None
            except _AWAY as error:
                await self.close()
                raise Unavailable(f"can't pull from NATS: {_said(error)}") from None
            return [self._received(message) for message in found]

    def steps(self, received: Sequence[Received]) -> list[Step]:
        return []

    async def confirm(self, published: Sequence[Received], steps: Sequence[Step]) -> None:
        await self._settle(message.token.ack() for message in published)

    async def refuse(self, received: Received, reason: str) -> None:
        """It is not delivered to this consumer again; the stream keeps it."""
        await self._settle([received.token.term()])

    async def close(self) -> None:
        client, self._client, self._pulls = self._client, None, None
        if client is not None:
            with suppress(*_AWAY):
                await asyncio.wait_for(client.close(), 2)

    async def _settle(self, saying: Any) -> None:
        try:
            for one in saying:
                await one
            if self._client is not None:
                await self._client.flush(round(self._source.timeout.total_seconds()) or 1)
        except _AWAY as error:
            await self.close()
            raise Unavailable(f"the connection broke: {_said(error)}") from None

    async def _open(self) -> None:
        await self.close()
        self._client = await _connect(self._source, self._name)
        try:
            jetstream = self._client.jetstream(timeout=self._source.timeout.total_seconds())
            self._pulls = await jetstream.pull_subscribe("", durable=self._durable or self._name, stream=self._stream)
        except _AWAY as error:
            await self.close()
            raise Unavailable(f"stream {self._stream!r}: {_said(error)}") from None

    def _received(self, message: Any) -> Received:
        given = message.headers or {}
        headers = {name: unquote(value) if name.startswith(_PREFIX) else value for name, value in given.items()}
        kind = next((headers.pop(name) for name in list(headers) if name.lower() == _CONTENT_TYPE), None)
        id = headers.pop(_ID, None)
        sequence = f"{self._stream} {message.metadata.sequence.stream} {message.metadata.timestamp.timestamp()}"
        incoming = Incoming(message.data, kind, headers, id or sequence)
        new, content_type, type = message_of(incoming, (_PREFIX,), self._name)
        return Received(topic_of(self._source.topic, message.subject, type), new, content_type, message)


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
