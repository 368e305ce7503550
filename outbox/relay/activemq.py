"""ActiveMQ over STOMP: a relay that waits for receipts, and a source that acknowledges what is committed here."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import stomp
from stomp.exception import StompException

from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration
from outbox.model import Message, Retry
from outbox.relay import credentials
from outbox.relay.cloudevents import Event, Incoming, event, message_of
from outbox.relay.opened import Opened
from outbox.relay.places import address_of, topic_of
from outbox.relay.target import Outcome, Received, Step, Unavailable

#: As headers become properties of JMS, whose names are identifiers.
_PREFIX = "ce_"
_AWAY = (StompException, OSError, TimeoutError)
#: Headers of STOMP and of ActiveMQ: they say how, not what.
_THEIRS = frozenset(
    {
        *("destination", "message-id", "content-type", "content-length", "subscription", "ack", "timestamp", "expires"),
        *("priority", "persistent", "receipt", "redelivered", "transformation", "original-destination", "type"),
        *("correlation-id", "reply-to", "JMSXGroupID"),
    }
)
_SUBSCRIPTION = "1"
#: Beats in milliseconds: a peer that vanished is noticed.
_BEATS = (10_000, 10_000)


def target(name: str, relay: Relay, source: str) -> Destination:
    return Destination(name, relay, source)


def intake(name: str, source: Source, position: object) -> Subscribed:
    return Subscribed(name, source)


class _Ears(stomp.ConnectionListener):  # type: ignore[misc]  # the package has no types
    """Hears in the library's thread, tells in ours."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.receipts: dict[str, asyncio.Future[Outcome]] = {}
        self.arrived: asyncio.Queue[Any] = asyncio.Queue()
        #: Why it is of no more use.
        self.broken: str | None = None

    def on_receipt(self, frame: Any) -> None:
        self._tell(self._confirm, frame.headers.get("receipt-id"))

    def on_message(self, frame: Any) -> None:
        self._tell(self.arrived.put_nowait, frame)

    def on_error(self, frame: Any) -> None:
        self._tell(self._refuse, frame.headers.get("receipt-id"), frame.headers.get("message", "an error"))

    def on_disconnected(self) -> None:
        self._tell(self._break, "the connection broke")

    def on_heartbeat_timeout(self) -> None:
        self._tell(self._break, "ActiveMQ gives no sign of life")

    def _tell(self, act: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has closed
            self.loop.call_soon_threadsafe(act, *arguments)

    def _confirm(self, receipt: str) -> None:
        future = self.receipts.pop(receipt, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _refuse(self, receipt: str | None, reason: str) -> None:
        """An error that names a receipt is about that frame; any other ends the connection."""
        future = self.receipts.pop(receipt, None) if receipt is not None else None
        if future is None:
            self._break(f"ActiveMQ says: {reason}")
        elif not future.done():
            future.set_result(Retry(reason=f"ActiveMQ refuses it: {reason}"))

    def _break(self, reason: str) -> None:
        if self.broken is not None:
            return
        self.broken = reason
        for future in list(self.receipts.values()):
            if not future.done():
                future.set_result(Unavailable(reason, is_cut=True))
        self.receipts.clear()
        self.arrived.put_nowait(None)


class _Line:
    """A connection, and what is heard over it. It is never mended: whoever needs one makes another."""

    def __init__(self, peer: Relay | Source) -> None:
        self._peer = peer
        self.ears = _Ears()
        self._numbers = itertools.count(1)
        parts = urlsplit(peer.url)
        self._place = (parts.hostname or "localhost", parts.port or (61614 if peer.is_encrypted else 61613))
        # decoded by us: a body may be bytes
        self._stomp = stomp.Connection12(
            [self._place], reconnect_attempts_max=1, heartbeats=_BEATS, auto_decode=False,
            timeout=peer.timeout.total_seconds(), auto_content_length=True,
        )  # fmt: skip

    @property
    def is_open(self) -> bool:
        return self.ears.broken is None

    async def open(self) -> None:
        """Raises Unavailable."""
        try:
            login = await credentials.login(self._peer)
            if self._peer.is_encrypted:
                credentials.tls(self._peer)  # says what is wrong with a file
                self._stomp.set_ssl(
                    [self._place],
                    ca_certs=self._peer.ca,
                    cert_file=self._peer.certificate,
                    key_file=self._peer.certificate_key,
                )
            self._stomp.set_listener("outbox", self.ears)
            more = {"username": login[0], "passcode": login[1]} if login else {}
            async with asyncio.timeout(self._peer.timeout.total_seconds()):
                await asyncio.to_thread(self._stomp.connect, wait=True, **more)
        except InvalidDeclaration as error:
            raise Unavailable(str(error)) from None
        except _AWAY as error:
            reason = self.ears.broken or str(error) or await self._why()
            raise Unavailable(f"can't connect to ActiveMQ: {reason}") from None

    async def _why(self) -> str:
        """What hinders a connection: the library only logs it."""
        try:
            async with asyncio.timeout(self._peer.timeout.total_seconds()):
                _, writer = await asyncio.open_connection(*self._place, ssl=credentials.tls(self._peer))
        except TimeoutError:
            return "it does not answer"
        except OSError as error:
            return str(error)
        writer.close()
        return "it says nothing that STOMP knows"

    def send(self, send: Callable[..., Any], **more: Any) -> asyncio.Future[Outcome]:
        """Say something; the future tells when it has been received, or refused, or why that is not known."""
        if self.ears.broken is not None:
            raise StompException(self.ears.broken)
        receipt = f"r{next(self._numbers)}"
        future = self.ears.receipts[receipt] = self.ears.loop.create_future()
        send(receipt=receipt, **more)
        return future

    async def received(self, futures: Sequence[asyncio.Future[Outcome]]) -> list[Outcome]:
        """Wait for all of them together; None: it has been."""
        limit = self._peer.timeout.total_seconds()
        await asyncio.wait(futures, timeout=limit)
        late = Unavailable(f"ActiveMQ sent no receipt within {limit:g} s", is_cut=True)
        return [future.result() if future.done() else late for future in futures]

    async def close(self) -> None:
        """Without a farewell: who is away would not answer it."""
        with suppress(*_AWAY):
            await asyncio.wait_for(asyncio.to_thread(self._stomp.transport.disconnect_socket), 5)

    @property
    def stomp(self) -> Any:
        return self._stomp


async def _connected(peer: Relay | Source) -> _Line:
    """Raises Unavailable."""
    line = _Line(peer)
    try:
        await line.open()
    except Unavailable:
        await line.close()
        raise
    return line


class Destination:
    """Sends persistent messages, each with a receipt."""

    keeps_order = False
    is_whole = False

    def __init__(self, name: str, relay: Relay, source: str) -> None:
        self._name, self._relay, self._source = name, relay, source
        self._line = Opened(self._connected, lambda line: line.is_open, _Line.close)

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        try:
            line = await self._line.get()
            futures = await asyncio.to_thread(self._send, line, messages)
        except Unavailable as error:
            return [error] * len(messages)
        outcomes = await line.received(futures)
        if any(isinstance(outcome, Unavailable) for outcome in outcomes):
            await self._line.close(line)
        return outcomes

    async def close(self) -> None:
        await self._line.close()

    async def _connected(self) -> _Line:
        return await _connected(self._relay)

    def _send(self, line: _Line, messages: list[Message]) -> list[asyncio.Future[Outcome]]:
        """In a thread: a peer that reads nothing stops who writes."""
        futures = []
        try:
            for message in messages:
                one = event(message, self._relay, self._source)
                where = address_of(self._relay.address or "/queue/{topic}", message)
                futures.append(
                    line.send(
                        line.stomp.send,
                        destination=where,
                        body=one.body,
                        content_type=one.content_type,
                        headers=_headers(one),
                    )
                )
        except _AWAY as error:
            raise Unavailable(f"the connection broke: {error or type(error).__name__}", is_cut=True) from None
        return futures


def _headers(one: Event) -> dict[str, str]:
    headers = {f"{_PREFIX}{name}": value for name, value in one.attributes.items()}
    trace = {name: one.attributes[name] for name in ("traceparent", "tracestate") if name in one.attributes}
    own = {name: value for name, value in one.headers.items() if name not in _THEIRS}
    group = {"JMSXGroupID": one.key} if one.key is not None else {}
    return own | trace | headers | group | {"persistent": "true", "outbox-id": one.id}


class Subscribed:
    """Consumes a destination, acknowledging what is committed here."""

    def __init__(self, name: str, source: Source) -> None:
        self._name, self._source = name, source
        self._line: _Line | None = None

    async def receive(self, limit: int) -> list[Received]:
        line = self._line
        if line is None or not line.is_open:
            line = await self._open(limit)
        found = [await line.ears.arrived.get()]
        while not line.ears.arrived.empty() and len(found) < limit:
            found.append(line.ears.arrived.get_nowait())
        if found[-1] is None:
            reason = line.ears.broken or "the connection broke"
            await self.close()
            raise Unavailable(reason)
        return [self._received(frame) for frame in found]

    def steps(self, received: Sequence[Received]) -> list[Step]:
        return []

    async def confirm(self, published: Sequence[Received], steps: Sequence[Step]) -> None:
        """Each for itself; the receipt of the last says that all have arrived."""
        await self._settle("ack", published)

    async def refuse(self, received: Received, reason: str) -> None:
        """It goes to ActiveMQ's dead-letter queue."""
        await self._settle("nack", [received])

    async def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _settle(self, verb: str, received: Sequence[Received]) -> None:
        line = self._line
        if line is None or not line.is_open:
            raise Unavailable("the connection broke")
        say = getattr(line.stomp, verb)
        try:
            for one in received[:-1]:
                await asyncio.to_thread(say, one.token)
            last = [line.send(say, id=one.token) for one in received[-1:]]
            problems = [outcome for outcome in await line.received(last) if outcome is not None] if last else []
        except _AWAY as error:
            problems = [Unavailable(f"the connection broke: {error}")]
        if problems:
            await self.close()
            raise Unavailable(str(problems[0]))

    async def _open(self, limit: int) -> _Line:
        await self.close()
        line = await _connected(self._source)
        try:
            await asyncio.to_thread(
                line.stomp.subscribe,
                self._source.address,
                _SUBSCRIPTION,
                "client-individual",
                {"activemq.prefetchSize": str(2 * limit)},
            )
        except _AWAY as error:
            await line.close()
            raise Unavailable(f"{self._source.address!r}: {error}") from None
        self._line = line
        return line

    def _received(self, frame: Any) -> Received:
        headers = dict(frame.headers)
        body = frame.body if isinstance(frame.body, bytes) else frame.body.encode()
        own = {name: value for name, value in headers.items() if name not in _THEIRS}
        id = own.pop("outbox-id", None) or headers.get("message-id")
        incoming = Incoming(body, headers.get("content-type"), own, id, headers.get("JMSXGroupID"))
        new, content_type, type = message_of(incoming, (_PREFIX,), self._name)
        where = headers.get("destination", "").partition("/")[2].partition("/")[2]
        return Received(topic_of(self._source.topic, where, type), new, content_type, headers["ack"])
