"""Messages of another log as handlers get them: the same as those of ours, whichever way they came."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from outbox.model import Batch, Message, MessageId
from outbox.relay.cloudevents import Content, Incoming, content_of, idempotency_key_of
from outbox.relay.places import topic_of

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
#: What a relay's raw messages have as their id.
_RAW_ID = "outbox-id"


class EventId(MessageId):
    """The id of a message that no log of ours has given one: any text. Its partition is 0, which no log has."""

    text: str

    def __new__(cls, text: str) -> EventId:
        digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
        self = super().__new__(cls, 0, int.from_bytes(digest, "big") >> 1)
        self.text = text
        return self

    def __reduce__(self) -> Any:
        return EventId, (self.text,)

    def __str__(self) -> str:
        return self.text


def id_of(text: str) -> MessageId:
    """An id as it is printed: of a log of ours, or any other."""
    try:
        return MessageId.parse(text)
    except ValueError:
        return EventId(text)


class Fed(Message, kw_only=True, eq=False, gc=False):
    """A message from another log."""

    event: MessageId
    #: Where it is handled in order: a partition there, or a part of a queue.
    lane: str = ""
    #: What the consumer's inbox knows it by.
    inbox: str = ""
    #: Is that an id that it has wherever it is, and not only its place?
    is_named: bool = False
    #: What the protocol confirms it by.
    token: Any = None
    #: When it was not done yet, by this machine's monotonic clock.
    judged_at: float = 0.0
    #: Was it handed out before, to somebody who has not confirmed it?
    is_again: bool = False
    #: What became of it: True if it is done, or why not; None: it is not known yet.
    outcome: Exception | bool | None = None

    @property
    def id(self) -> MessageId:
        """The event's id: the same at every delivery. Of a log of ours it is the id that it has there."""
        return self.event


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a message lies there."""

    #: The topic, or routing key.
    address: str
    lane: str
    number: int
    offset: int
    #: Seconds since 1970, as the system there says.
    at: float


def fed(incoming: Incoming, prefixes: tuple[str, ...], place: Place, name: str, topic: str) -> Fed:
    """A message of what came; `topic` is the template of its topic: empty means its type, else its address."""
    if incoming.id is None and _RAW_ID in incoming.headers:
        incoming = dataclasses.replace(incoming, id=incoming.headers[_RAW_ID])
    content = content_of(incoming, prefixes)
    kind = content.attributes.get("type")
    named = topic_of(topic or ("{type}" if kind else "{address}"), place.address, kind)
    key = idempotency_key_of(content.attributes, incoming, name)
    where = f"{place.lane}/{place.offset}"
    headers, is_json = content.headers, content.content_type is None
    if not is_json:
        headers = {"content-type": content.content_type or "", **headers}
    return Fed(
        Batch(None, 1, False, named, place.number, 0, 0, len(content.body)),
        place.offset,
        _microseconds(content, place.at),
        None if content.key is None else content.key.replace("\0", "�"),
        headers,
        content.body if is_json else None,
        None if is_json else content.body,
        content.payload,
        event=id_of(content.attributes.get("id") or incoming.id or where),
        lane=place.lane,
        inbox=key or where,
        is_named=key is not None,
    )


def _microseconds(content: Content, at: float) -> int:
    """Since the beginning of 2000."""
    try:
        time = datetime.fromisoformat(content.attributes["time"])
        span = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    except (KeyError, ValueError):
        return int((at - _EPOCH.timestamp()) * 1e6)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


class Origin(msgspec.Struct, frozen=True):
    """What a message that took a detour keeps in a header of its own, so that no handler sees that it did."""

    topic: str
    id: str
    partition: int


#: The name of that header.
HEADER = "outbox-from"


def origin_of(message: Fed) -> str:
    return msgspec.json.encode(Origin(message.topic, str(message.id), message.partition)).decode()


def as_it_was(message: Message) -> Message:
    """A message as it was before it took a detour; itself if it took none."""
    if HEADER not in message.headers:
        return message
    headers = dict(message.headers)
    origin = msgspec.json.decode(headers.pop(HEADER), type=Origin)
    old = message.batch
    batch = Batch(
        old.lease_id, old.attempt, old.redelivered, origin.topic, origin.partition, 0, 0, old.bytes, old._history
    )
    return Fed(
        batch, message.offset, message._published_at, message.key, headers, message._json, message._body,
        event=id_of(origin.id),
    )  # fmt: skip
