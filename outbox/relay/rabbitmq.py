"""RabbitMQ: a relay that publishes with confirms, and a source that acknowledges what is committed here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError
from aiormq.exceptions import AMQPConnectionError, ChannelClosed, ChannelInvalidStateError, DeliveryError, PublishError

from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration
from outbox.model import Message, Reject, Retry
from outbox.relay import credentials
from outbox.relay.cloudevents import Event, Incoming, event, message_of
from outbox.relay.places import address_of, topic_of
from outbox.relay.target import Outcome, Received, Step, Unavailable

#: AMQP's binding of CloudEvents; `:` is allowed, too, and read.
_PREFIX, PREFIXES = "cloudEvents_", ("cloudEvents_", "cloudEvents:")
#: Names and addresses in AMQP are short strings.
_LONGEST_NAME = 255
_AWAY = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)


def _is_away(error: Exception) -> bool:
    """Did the connection end? The library fails what waits for it with a bare Exception, if it knows no better."""
    return isinstance(error, _AWAY) or type(error) is Exception


def target(name: str, relay: Relay, source: str) -> Exchange:
    return Exchange(relay, source)


def intake(name: str, source: Source, position: object) -> Queue:
    return Queue(name, source)


async def _connect(peer: Relay | Source, name: str) -> AbstractConnection:
    """Raises Unavailable. The path of the URL is the virtual host."""
    parts = urlsplit(peer.url)
    try:
        login = await credentials.login(peer) or ("guest", "guest")
        return await aio_pika.connect(
            host=parts.hostname or "localhost",
            port=parts.port or (5671 if peer.is_encrypted else 5672),
            login=login[0],
            password=login[1],
            virtualhost=unquote(parts.path[1:]) or "/",
            ssl=peer.is_encrypted,
            ssl_context=credentials.tls(peer),
            timeout=peer.timeout.total_seconds(),
            client_properties={"connection_name": f"outbox {name}"},
        )
    except InvalidDeclaration as error:
        raise Unavailable(str(error)) from None
    except Exception as error:
        if not _is_away(error):
            raise
        raise Unavailable(f"can't connect to RabbitMQ: {_said(error)}") from None


class Exchange:
    """Publishes persistent messages, mandatory, and waits for the confirms of all."""

    keeps_order = False
    is_whole = False

    def __init__(self, relay: Relay, source: str) -> None:
        self._relay, self._source = relay, source
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._opening = asyncio.Lock()

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        try:
            exchange = await self._open()
        except Unavailable as error:
            return [error] * len(messages)
        found = await asyncio.gather(*(self._publish(exchange, message) for message in messages))
        if self._exchange is exchange and any(isinstance(outcome, Unavailable) for outcome in found):
            await self.close()
        return list(found)

    async def close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                await asyncio.wait_for(connection.close(), 2)

    async def _open(self) -> AbstractExchange:
        async with self._opening:
            if self._exchange is not None and self._connection is not None and not self._connection.is_closed:
                return self._exchange
            await self.close()
            self._connection = await _connect(self._relay, "relay")
            try:
                async with asyncio.timeout(self._relay.timeout.total_seconds()):
                    channel = await self._connection.channel(on_return_raises=True)
                    self._exchange = (
                        await channel.get_exchange(self._relay.exchange)
                        if self._relay.exchange
                        else channel.default_exchange
                    )
            except Exception as error:
                await self.close()
                if not _is_away(error):
                    raise
                raise Unavailable(f"exchange {self._relay.exchange!r}: {_said(error)}") from None
            return self._exchange

    async def _publish(self, exchange: AbstractExchange, message: Message) -> Outcome:
        one = event(message, self._relay, self._source)
        key = address_of(self._relay.address or "{topic}", message)
        if len(key.encode()) > _LONGEST_NAME:
            return Reject(f"its routing key has {len(key.encode())} bytes, AMQP allows {_LONGEST_NAME}")
        if len(one.content_type.encode()) > _LONGEST_NAME:
            return Reject(f"its content type has {len(one.content_type.encode())} bytes, AMQP allows {_LONGEST_NAME}")
        limit = self._relay.timeout.total_seconds()
        try:
            async with asyncio.timeout(limit):
                await exchange.publish(_amqp(one, message), key, mandatory=True)
        except PublishError:
            return Retry(reason=f"no queue is bound to {self._relay.exchange or 'the default exchange'} for {key!r}")
        except DeliveryError:
            return Retry(reason="RabbitMQ refused it (basic.nack)")
        except TimeoutError:
            return Unavailable(f"RabbitMQ did not confirm within {limit:g} s")
        except Exception as error:
            if not _is_away(error):
                raise
            return Unavailable(f"the connection broke: {_said(error)}", is_cut=True)
        return None


def _amqp(one: Event, message: Message) -> aio_pika.Message:
    headers: dict[str, Any] = {f"{_PREFIX}{name}": value for name, value in one.attributes.items()}
    trace = {name: one.attributes[name] for name in ("traceparent", "tracestate") if name in one.attributes}
    return aio_pika.Message(
        one.body,
        headers=one.headers | trace | headers,
        content_type=one.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=one.id,
        timestamp=message.published_at,
        type=message.topic if len(message.topic.encode()) <= _LONGEST_NAME else None,
    )


class Queue:
    """Consumes a queue; it must exist.

    Args:
        is_exclusive: nobody else may consume it meanwhile.
    """

    def __init__(self, name: str, source: Source, is_exclusive: bool = False) -> None:
        self._name, self._source, self._is_exclusive = name, source, is_exclusive
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()

    async def receive(self, limit: int) -> list[Received]:
        return [self._received(message) for message in await self.take(limit)]

    async def take(self, limit: int) -> list[AbstractIncomingMessage]:
        """Wait for a message and return it with those that are there, too. Raises Unavailable."""
        if self._channel is None or self._channel.is_closed:
            await self._open(limit)
        found = [await self._arrived.get()]
        while not self._arrived.empty() and len(found) < limit:
            found.append(self._arrived.get_nowait())
        if found[-1] is None:
            await self.close()
            raise Unavailable("RabbitMQ closed the channel, or the queue was deleted")
        return [message for message in found if message is not None]

    def steps(self, received: Sequence[Received]) -> list[Step]:
        return []

    async def confirm(self, published: Sequence[Received], steps: Sequence[Step]) -> None:
        """All up to the last in one frame: those between that were refused are settled already."""
        if published:
            await self._settle(published[-1].token.ack(multiple=True))

    async def refuse(self, received: Received, reason: str) -> None:
        """It goes to the queue's dead-letter exchange, if it has one."""
        await self._settle(received.token.reject(requeue=False))

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._arrived = asyncio.Queue()
        if connection is not None:
            with suppress(Exception):
                await asyncio.wait_for(connection.close(), 2)

    async def _settle(self, saying: Awaitable[None]) -> None:
        try:
            await saying
        except Exception as error:
            await self.close()
            if not _is_away(error):
                raise
            raise Unavailable(f"the connection broke: {_said(error)}") from None

    async def _open(self, limit: int) -> None:
        await self.close()
        self._connection = await _connect(self._source, f"source {self._name}")
        arrived = self._arrived
        try:
            async with asyncio.timeout(self._source.timeout.total_seconds()):
                channel = await self._connection.channel()
                await channel.set_qos(prefetch_count=min(2 * limit, 65535))
                channel.close_callbacks.add(lambda *_: arrived.put_nowait(None))
                underlay = await channel.get_underlay_channel()
                underlay.on_consumer_cancel_callbacks.add(lambda _: arrived.put_nowait(None))  # the queue was deleted
                queue = await channel.get_queue(self._source.address)
                await queue.consume(arrived.put, exclusive=self._is_exclusive)
        except Exception as error:
            await self.close()
            if not _is_away(error):
                raise
            raise Unavailable(f"queue {self._source.address!r}: {_said(error)}") from None
        self._channel = channel

    def _received(self, message: AbstractIncomingMessage) -> Received:
        new, content_type, kind = message_of(incoming_of(message), PREFIXES, self._name)
        return Received(topic_of(self._source.topic, message.routing_key or "", kind), new, content_type, message)


def incoming_of(message: AbstractIncomingMessage) -> Incoming:
    headers = {name: str(value) for name, value in message.headers.items() if isinstance(value, str | int | float)}
    return Incoming(message.body, message.content_type, headers, message.message_id)


def _said(error: BaseException) -> str:
    """What RabbitMQ said, without frames and addresses of objects."""
    if isinstance(error, ChannelClosed | AMQPConnectionError) and error.args:
        return str(error.args[-1])
    return str(error) or type(error).__name__
