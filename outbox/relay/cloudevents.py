"""CloudEvents 1.0.2: messages as events, and events as messages.

Source: https://github.com/cloudevents/spec/tree/v1.0.2/cloudevents
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import msgspec

from outbox.definitions.relays import Relay
from outbox.model import Message, NewMessage
from outbox.payload import Limits

STRUCTURED = "application/cloudevents+json; charset=utf-8"
JSON = "application/json"
_BYTES = "application/octet-stream"

#: Headers of ours that are attributes of an event.
_TRACE = ("traceparent", "tracestate")
#: What is raised for JSON that can't be read; RecursionError: for arrays in arrays, thousands deep.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Event:
    """A message in the form that goes over the wire."""

    #: Unique in the database that it comes from, and the same at every delivery.
    id: str
    body: bytes
    content_type: str
    #: Attributes of the event, without any protocol's prefix; none if it is raw or structured.
    attributes: dict[str, str]
    #: The message's own headers.
    headers: dict[str, str]
    key: str | None


def event(message: Message, relay: Relay, source: str) -> Event:
    """The message as a relay sends it: an event in binary or structured mode, or raw."""
    headers = dict(message.headers)
    is_json = message._json is not None
    content_type = JSON if is_json else headers.pop("content-type", _BYTES)
    id, body = str(message.id), message.raw
    if relay.format == "raw":
        return Event(id, body, content_type, {}, headers, message.key)
    attributes = _attributes(message, source, {name: headers.pop(name) for name in _TRACE if name in headers})
    if relay.format == "cloudevents":
        return Event(id, body, content_type, attributes, headers, message.key)
    document = msgspec.json.encode(attributes | {"datacontenttype": content_type})[:-1]
    data = b',"data":' + body if is_json else b',"data_base64":"' + base64.b64encode(body) + b'"'
    return Event(id, document + data + b"}", STRUCTURED, {}, headers, message.key)


def _attributes(message: Message, source: str, trace: dict[str, str]) -> dict[str, str]:
    attributes = {
        "specversion": "1.0",
        "id": str(message.id),
        "source": source,
        "type": message.topic,
        "time": message.published_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }
    if message.key is not None:
        attributes |= {"subject": message.key, "partitionkey": message.key}
    return attributes | trace


@dataclass(frozen=True, slots=True)
class Incoming:
    """What came from another system, before it is a message."""

    body: bytes
    content_type: str | None
    #: All headers that are text, without what the protocol means by them.
    headers: dict[str, str]
    #: Names the message there, if anything does.
    id: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What came from another system, as it is understood."""

    #: A JSON value, or bytes.
    payload: Any
    #: Of bytes.
    content_type: str | None
    #: The payload as it came: JSON text, or the bytes.
    body: bytes
    key: str | None
    headers: dict[str, str]
    #: Those of a CloudEvent, without a prefix; none if it is none.
    attributes: dict[str, str]


def content_of(incoming: Incoming, prefixes: tuple[str, ...]) -> Content:
    """Read an event in any mode, or what is none. JSON that can't be read is taken as the bytes that it is."""
    attributes, headers = _part(incoming.headers, prefixes)
    body, content_type = incoming.body, incoming.content_type or ""
    if content_type.startswith("application/cloudevents+json"):
        attributes, body, content_type = _open(body, content_type)
    headers |= {name: attributes[name] for name in _TRACE if name in attributes}
    payload, kind = _payload(body, content_type)
    key = attributes.get("partitionkey") or incoming.key or attributes.get("subject")
    return Content(payload, kind, body, key, _storable(headers), attributes)


def message_of(incoming: Incoming, prefixes: tuple[str, ...], source: str) -> tuple[NewMessage, str | None, str | None]:
    """A message to publish, its content type if it is bytes, and the event's type if it is one.

    The idempotency key is the event's source and id, else the id that the protocol has for it, else none.
    """
    content = content_of(incoming, prefixes)
    idempotency_key = idempotency_key_of(content.attributes, incoming, source)
    message = NewMessage(content.payload, content.key, content.headers, idempotency_key)
    return message, content.content_type, content.attributes.get("type")


def _part(headers: Mapping[str, str], prefixes: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """The attributes of an event, and the other headers."""
    attributes, others = {}, {}
    for name, value in headers.items():
        prefix = next((p for p in prefixes if name.lower().startswith(p.lower())), None)
        if prefix is None:
            others[name] = value
        else:
            attributes[name[len(prefix) :].lower()] = value
    return (attributes, others) if "specversion" in attributes else ({}, dict(headers))


def _open(body: bytes, content_type: str) -> tuple[dict[str, str], bytes, str]:
    """An event in structured mode: its attributes, data, and the data's type; the body as it is if it is none."""
    try:
        document = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        texts = {
            name: msgspec.json.decode(raw) for name, raw in document.items() if name not in ("data", "data_base64")
        }
        if "data_base64" in document:
            data = base64.b64decode(msgspec.json.decode(document["data_base64"], type=str))
        else:
            data = bytes(document.get("data", b"null"))
    except _UNREADABLE:
        return {}, body, content_type
    attributes = {name: str(text) for name, text in texts.items() if text is not None}  # null: it has none
    if "specversion" not in attributes:
        return {}, body, content_type
    default = _BYTES if "data_base64" in document else JSON
    return attributes, data, attributes.pop("datacontenttype", default)


def _payload(body: bytes, content_type: str) -> tuple[Any, str | None]:
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("", JSON) or kind.endswith("+json"):
        try:
            return msgspec.json.decode(body), None
        except _UNREADABLE:
            pass
    return body, content_type or _BYTES


def idempotency_key_of(attributes: dict[str, str], incoming: Incoming, source: str) -> str | None:
    """What names an event, or a message of a protocol that has ids, wherever it comes from."""
    if attributes.get("id"):
        key = f"{attributes.get('source', '')} {attributes['id']}"
    elif incoming.id:
        key = f"{source} {incoming.id}"
    else:
        return None
    return key if len(key.encode()) <= _LIMITS.key else hashlib.sha256(key.encode()).hexdigest()


def _storable(headers: dict[str, str]) -> dict[str, str]:
    """Those that a message may have; what is too long or oddly named stays outside."""
    kept = {
        name: value
        for name, value in headers.items()
        if name.isascii()
        and name.isprintable()
        and " " not in name
        and 0 < len(name) <= _LIMITS.header_name
        and "\0" not in value
        and len(value.encode(errors="replace")) <= _LIMITS.header_value
    }
    return dict(list(kept.items())[: _LIMITS.headers - 2])
