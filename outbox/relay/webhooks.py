"""Messages as HTTP POSTs, signed as Standard Webhooks has it.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx2

from outbox import __version__
from outbox.definitions.relays import Relay
from outbox.errors import InvalidDeclaration
from outbox.model import Message, Reject, Retry
from outbox.relay import credentials
from outbox.relay.addresses import Addresses, Forbidden
from outbox.relay.cloudevents import event
from outbox.relay.target import Gone, Outcome, Unavailable

#: Requests at once.
_AT_ONCE = 16
#: The other side is busy, or is not there: it is left alone for a while.
_SLOW_DOWN = frozenset({429, 502, 503, 504})
#: The longest pause that Retry-After may ask for.
_LONGEST_AFTER = 3600.0
_LONGEST_RETRY = timedelta(days=1)


def target(name: str, relay: Relay, source: str) -> Webhook:
    return Webhook(relay, source)


class Webhook:
    """POSTs each message by itself. Only a 2xx is a yes; no redirect is followed, no body is read."""

    keeps_order = False
    is_whole = False

    def __init__(self, relay: Relay, source: str) -> None:
        self._relay, self._source = relay, source
        self._url = httpx2.URL(relay.url)
        port = self._url.port or (443 if relay.is_encrypted else 80)
        self._addresses = Addresses(self._url.host, port, relay.allow_private)
        self._client: httpx2.AsyncClient | None = None
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        try:
            secrets = [key_of(await credentials.reveal(secret)) for secret in self._relay.secrets]
            client = self._client = self._client or self._connected()
            async with asyncio.timeout(self._relay.timeout.total_seconds()):
                address = await self._addresses.one()
        except (InvalidDeclaration, Forbidden) as error:
            return [Unavailable(str(error))] * len(messages)
        except OSError as error:
            return [Unavailable(f"{self._url.host} can't be looked up: {error.strerror or error}")] * len(messages)
        return list(await asyncio.gather(*(self._post(client, address, message, secrets) for message in messages)))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _connected(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
        return httpx2.AsyncClient(
            verify=credentials.tls(self._relay) or True,
            timeout=self._relay.timeout.total_seconds(),
            follow_redirects=False,
            trust_env=False,  # a proxy would look names up by itself
            limits=limits,
        )

    async def _post(self, client: httpx2.AsyncClient, address: str, message: Message, secrets: list[bytes]) -> Outcome:
        request = self._request(client, address, message, secrets)
        try:
            async with self._free, asyncio.timeout(self._relay.timeout.total_seconds()):
                response = await client.send(request, stream=True)
                await response.aclose()
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            self._addresses.note_failure()
            return Unavailable(f"{self._url.host} can't be connected to: {error or type(error).__name__}")
        except (TimeoutError, httpx2.TimeoutException):
            return Unavailable(f"no answer within {self._relay.timeout.total_seconds():g} s", is_charged=True)
        except httpx2.LocalProtocolError as error:
            return Reject(f"HTTP can't carry it: {error}")
        except httpx2.HTTPError as error:
            return Unavailable(f"the connection broke: {error or type(error).__name__}", is_charged=True)
        return verdict(response.status_code, response.headers)

    def _request(
        self, client: httpx2.AsyncClient, address: str, message: Message, secrets: list[bytes]
    ) -> httpx2.Request:
        """To the address that was checked; Host and certificate are those of the name."""
        one = event(message, self._relay, self._source)
        headers = {f"ce-{name}": quoted(value) for name, value in one.attributes.items() if name not in _AS_THEY_ARE}
        headers |= {name: value for name, value in one.attributes.items() if name in _AS_THEY_ARE}
        headers |= {f"outbox-{name}": quoted(value) for name, value in one.headers.items() if _is_token(name)}
        headers |= {"content-type": one.content_type, "host": self._url.netloc.decode(), "user-agent": _AGENT}
        headers |= signed(one.id, int(time.time()), one.body, secrets)
        return client.build_request(
            "POST",
            self._url.copy_with(host=address),
            content=one.body,
            headers=headers,
            extensions={"sni_hostname": self._url.host},
        )


def verdict(status: int, headers: Mapping[str, str]) -> Outcome:
    """What an answer means."""
    if 200 <= status < 300:
        return None
    if status == 410:
        return Gone("it answered 410 Gone")
    after = retry_after(headers.get("retry-after"), datetime.now(UTC))
    if status in _SLOW_DOWN:
        return Unavailable(f"it answered {status}", after=after, is_charged=status != 429)
    return Retry(None if after is None else min(timedelta(seconds=after), _LONGEST_RETRY), f"it answered {status}")


def retry_after(text: str | None, now: datetime) -> float | None:
    """Seconds that the header Retry-After asks for: a number of them, or a time."""
    if text is None:
        return None
    try:
        seconds = float(text) if text.strip().isdecimal() else (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), _LONGEST_AFTER)


def key_of(secret: str) -> bytes:
    """The bytes that a secret stands for: base64, behind `whsec_` or not. Raises InvalidDeclaration."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidDeclaration("a webhook's secret is not base64, with whsec_ before it") from None


def signed(id: str, timestamp: int, body: bytes, secrets: list[bytes]) -> dict[str, str]:
    """The headers of Standard Webhooks, with a signature by each secret."""
    headers = {"webhook-id": id, "webhook-timestamp": str(timestamp)}
    text = f"{id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, text, hashlib.sha256)).decode() for secret in secrets)
    return headers | ({"webhook-signature": " ".join(f"v1,{one}" for one in signatures)} if secrets else {})


def quoted(value: str) -> str:
    """A value as CloudEvents puts it into an HTTP header: what is not plain ASCII in percent signs."""
    return quote(value, safe=_PLAIN)


def _is_token(name: str) -> bool:
    return all(character.isalnum() or character in "!#$&'*+-.^_`|~" for character in name)


_AS_THEY_ARE = ("traceparent", "tracestate")
_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_AGENT = f"outbox/{__version__}"
