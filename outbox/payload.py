"""Turn what users publish into what is stored, within limits, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec

from outbox.errors import InvalidMessage

T = TypeVar("T")

_TOPIC = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_HEADER_NAME = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a publish refuses, so that no consumer has to."""

    #: Bytes of the encoded payload.
    payload: int = 1024 * 1024
    #: Bytes of a key, and of an idempotency key, in UTF-8.
    key: int = 1024
    #: Headers a message.
    headers: int = 64
    #: Bytes of a header's name, and of its value in UTF-8.
    header_name: int = 128
    header_value: int = 8192


class Encoded(NamedTuple):
    """A message as the database takes it: JSON texts, or a body."""

    json: str | None
    body: bytes | None
    key: str | None
    headers: str | None
    idempotency_key: str | None = None
    #: Seconds that it may wait for its delivery.
    ttl: float | None = None


def encode(
    value: Any,
    limits: Limits,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    content_type: str | None = None,
    idempotency_key: str | None = None,
    ttl: timedelta | None = None,
) -> Encoded:
    """Check and encode one message. Raises InvalidMessage, which says what is wrong and what the limit is."""
    if key is not None:
        check_key("the key", key, limits)
    if idempotency_key is not None:
        check_key("the idempotency key", idempotency_key, limits)
        if not idempotency_key.strip():
            raise InvalidMessage("the idempotency key is blank: it would make all that are blank one message")
    if isinstance(value, bytes | bytearray | memoryview):
        headers = {"content-type": content_type or "application/octet-stream", **(headers or {})}
        body, json = bytes(value), None
        size = len(body)
    else:
        if content_type is not None:
            raise InvalidMessage(
                f"content_type={content_type!r} goes with a payload of bytes, not {type(value).__name__}"
            )
        encoded = to_json(value)
        body, json = None, encoded.decode()
        size = len(encoded)
    if size > limits.payload:
        raise InvalidMessage(
            f"the payload has {size:,} bytes, the limit is {limits.payload:,}: "
            "store it elsewhere and publish where it lies, or raise Limits(payload=...)"
        )
    if ttl is not None and not (isinstance(ttl, timedelta) and ttl > timedelta(0)):
        raise InvalidMessage(f"ttl is {ttl!r}, it must be a timedelta above 0")
    return Encoded(
        json,
        body,
        key,
        _encode_headers(headers, limits) if headers else None,
        idempotency_key,
        ttl.total_seconds() if ttl else None,
    )


def to_json(value: Any) -> bytes:
    """Encode a JSON value, pydantic model, dataclass or Struct. Raises InvalidMessage if it is none of these."""
    is_model = hasattr(value, "model_dump_json")
    try:
        encoded: bytes = value.model_dump_json().encode() if is_model else msgspec.json.encode(value)
        if b"null" in encoded and _holds_nan(value.model_dump() if is_model else msgspec.to_builtins(value)):
            raise ValueError("NaN and infinity are no JSON")  # encoders write null for them
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidMessage(f"a payload of type {type(value).__name__} can't be stored as JSON: {error}") from error
    return encoded


def _holds_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_nan, value))


def decode(raw: bytes, kind: type[T]) -> T:
    """Decode JSON text into a typed value; pydantic models by pydantic, all else by msgspec."""
    validate: Callable[[bytes], T] | None = getattr(kind, "model_validate_json", None)
    if validate is not None:
        return validate(raw)
    return msgspec.json.decode(raw, type=kind)


def is_topic(name: str) -> bool:
    """Is it words of letters, digits, `_` and `-` between dots, 255 bytes at most?"""
    return isinstance(name, str) and bool(_TOPIC.fullmatch(name)) and len(name) <= 255


def check_topic(name: str) -> None:
    """Raise InvalidMessage unless it is words of letters, digits, `_` and `-` between dots, 255 bytes at most."""
    if not is_topic(name):
        raise InvalidMessage(
            f"{name!r} is not a topic name: words of letters, digits, _ and - between dots, 255 characters at most"
        )


def check_key(what: str, key: str, limits: Limits) -> None:
    """Raise InvalidMessage unless the key is text that Postgres can store, within its limit."""
    if not isinstance(key, str):
        raise InvalidMessage(f"{what} is a str, not {type(key).__name__}: str({key!r}) would be one")
    _check_text(what, key, limits.key)


def _encode_headers(headers: dict[str, str], limits: Limits) -> str:
    if not isinstance(headers, dict):
        raise InvalidMessage(f"headers are a dict of names and values, not a {type(headers).__name__}")
    if len(headers) > limits.headers:
        raise InvalidMessage(f"the message has {len(headers)} headers, the limit is {limits.headers}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or len(name) > limits.header_name:
            raise InvalidMessage(
                f"{name!r} is not a header name: visible ASCII without spaces, {limits.header_name} characters at most"
            )
        if not isinstance(value, str):
            raise InvalidMessage(f"header {name!r} is a {type(value).__name__}, not a str")
        _check_text(f"header {name!r}", value, limits.header_value)
    return msgspec.json.encode(headers).decode()


def _check_text(what: str, text: str, limit: int) -> None:
    if "\0" in text:
        raise InvalidMessage(f"{what} contains a NUL character, which Postgres can't store")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"{what} is not valid Unicode: {error}") from error
    if size > limit:
        raise InvalidMessage(f"{what} has {size:,} bytes, the limit is {limit:,}")
