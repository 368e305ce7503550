"""What a hostile or careless system may send, as an event or none: it becomes a message, or is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from outbox.cli.relay import probe
from outbox.definitions import Relay
from outbox.relay.cloudevents import Incoming, message_of
from outbox.relay.target import Unavailable
from outbox.relay.webhooks import Webhook

DEEP = b"[" * 50_000 + b"]" * 50_000
STRUCTURED = "application/cloudevents+json"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (DEEP, "application/json"),
        (b'{"specversion":"1.0","id":"1","data":' + DEEP + b"}", STRUCTURED),
        (b'{"specversion":"1.0","more":' + DEEP + b"}", STRUCTURED),
        (b'"\\ud800"', "application/json"),
        (b"1e999", "application/json"),
    ],
)
def test_json_that_can_t_be_read_comes_in_as_the_bytes_that_it_is(body: bytes, content_type: str) -> None:
    message, kind, _ = message_of(Incoming(body, content_type, {}), ("ce_",), "s")
    assert kind is not None
    assert message.payload in (body, DEEP)


def test_an_attribute_that_is_null_is_none() -> None:
    body = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","partitionkey":null,"subject":null,"data":1}'
    message, _, type = message_of(Incoming(body, STRUCTURED, {}), ("ce_",), "s")
    assert (message.payload, message.key, message.idempotency_key, type) == (1, None, "/s 1", "t")


def test_a_document_that_is_no_event_comes_in_as_it_is() -> None:
    """Its id is unique for nobody: two of them are two."""
    message, _, type = message_of(Incoming(b'{"id":"1","data":2}', STRUCTURED, {}), ("ce_",), "s")
    assert (message.payload, message.idempotency_key, type) == ({"id": "1", "data": 2}, None, None)


def test_a_look_up_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async def never(*arguments: object, **options: object) -> None:
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
        relay = Relay(url="https://partner.example", bindings=("a",), timeout=timedelta(milliseconds=50))
        hook = Webhook(relay, "/s")
        found = await hook.deliver([probe("a", "1")])
        await hook.close()
        assert isinstance(found[0], Unavailable)

    asyncio.run(play())
