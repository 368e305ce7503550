"""A message of dramatiq as one of ours: what is stored, and how it is published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import dramatiq
import msgspec
from dramatiq.common import current_millis, dq_name, q_name

from outbox import operations, scheduled
from outbox.errors import InvalidMessage
from outbox.operations import Operation, Statement
from outbox.payload import Encoded

#: The header that names the actor: by it `outbox status` and the exporter show dramatiq's messages.
ACTOR, MESSAGE_ID = "actor", "message-id"

HIGHEST_PRIORITY = 9


class Envelope(NamedTuple):
    """What is to be published, and when."""

    topic: str
    message: Encoded
    #: 0 to 9, the higher first.
    priority: int
    #: Seconds from now; None: at once.
    delay: float | None


def with_eta(message: dramatiq.Message[Any], delay: int | None) -> dramatiq.Message[Any]:
    """The message as dramatiq shows it to middleware and callers: a delayed one names its delay queue and its time."""
    if delay is None:
        return message
    return message.copy(queue_name=dq_name(message.queue_name), options={"eta": current_millis() + delay})


def seal(message: dramatiq.Message[Any], topic: str, priority: int, most: float) -> Envelope:
    """Make what is stored: the message as it runs, without its time, which the database keeps.

    Args:
        most: bytes that it may have.

    Raises:
        InvalidMessage: it is larger than the limit.
    """
    eta = message.options.get("eta")
    delay = None
    if isinstance(eta, int | float):
        delay = (eta - current_millis()) / 1000
        message = message.copy(queue_name=q_name(message.queue_name))
        del message.options["eta"]
    raw = message.encode()
    if len(raw) > most:
        raise InvalidMessage(
            f"the message for actor {message.actor_name!r} has {len(raw):,} bytes, the limit is {most:,}: "
            "send where its data lies, or raise PostgresBroker(limits=Limits(payload=...))"
        )
    return Envelope(topic, _encode(message, raw), priority, delay if delay is not None and delay > 0 else None)


def _encode(message: dramatiq.Message[Any], raw: bytes) -> Encoded:
    """As JSON where it is JSON, so that people can read it; whatever else an encoder writes, as bytes."""
    headers = {ACTOR: message.actor_name, MESSAGE_ID: message.message_id}
    if _is_json(raw):
        return Encoded(raw.decode(), None, None, msgspec.json.encode(headers).decode())
    headers["content-type"] = "application/octet-stream"
    return Encoded(None, raw, None, msgspec.json.encode(headers).decode())


def _is_json(raw: bytes) -> bool:
    """Would Postgres take it? Python's encoder writes NaN, which is no JSON."""
    try:
        msgspec.json.decode(raw)
        raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def publish(envelope: Envelope) -> Operation[None]:
    """Publish it, or store it until its time, in the caller's transaction."""
    if envelope.delay is None:
        yield from operations.publish(envelope.topic, envelope.message, envelope.priority)
    else:
        delay = timedelta(seconds=envelope.delay)
        yield from scheduled.publish_later(envelope.topic, envelope.message, envelope.priority, delay, None)


def with_publications(statement: Statement, envelopes: Sequence[Envelope]) -> Operation[None]:
    """A statement that returns a column, and the publication of many messages: all or nothing."""
    now = _columns([envelope for envelope in envelopes if envelope.delay is None])
    later = _columns([envelope for envelope in envelopes if envelope.delay is not None])
    yield Statement(f"{statement.sql}, {_PUBLISH}, {_PUBLISH_LATER}", (*statement.args, *now[:-1], *later))


def _columns(envelopes: Sequence[Envelope]) -> tuple[list[Any], ...]:
    return (
        [envelope.topic for envelope in envelopes],
        [envelope.message.json for envelope in envelopes],
        [envelope.message.headers for envelope in envelopes],
        [envelope.priority for envelope in envelopes],
        [envelope.message.body for envelope in envelopes],
        [envelope.delay for envelope in envelopes],
    )


_PUBLISH = """
(SELECT count(outbox.publish(u.topic, u.payload::json, NULL, u.headers::jsonb, u.priority, u.body))
 FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::bytea[]) AS u (topic, payload, headers, priority, body))
"""

_PUBLISH_LATER = """
(SELECT count(outbox.publish_later(u.topic, u.payload::json, clock_timestamp() + make_interval(secs => u.delay), NULL,
                                   u.headers::jsonb, u.priority, u.body))
 FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::bytea[], %s::float8[])
      AS u (topic, payload, headers, priority, body, delay))
"""
