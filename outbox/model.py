"""What the library speaks of: messages, their ids, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec

from outbox import payload

T = TypeVar("T")
#: In Postgres's binary format: a version byte, then JSON.
_Jsonb = bytes | None


class MessageId(NamedTuple):
    """Where a message lies: stable for its whole life, unique in its database. Written `3-1042`."""

    #: The row of `outbox.partition`.
    partition_id: int
    #: 1 or more; ascending in the partition, with holes where transactions rolled back.
    offset: int

    def __str__(self) -> str:
        return f"{self.partition_id}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> MessageId:
        """Read an id as it is printed. Raises ValueError for anything else."""
        partition_id, dash, offset = text.partition("-")
        if not (dash and partition_id.isdecimal() and offset.isdecimal()):
            raise ValueError(f"{text!r} is not a message id: it looks like 3-1042")
        return cls(int(partition_id), int(offset))


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to publish with `publish_many`."""

    #: Any JSON value, pydantic model, dataclass or msgspec Struct; bytes are stored as they are.
    payload: Any
    #: Messages with the same key are delivered in the order in which their transactions serialised on it.
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: Published once: another message with it, to the same topic within its window, is not stored.
    idempotency_key: str | None = None
    #: How long it may wait for its delivery; None: for ever, or as long as a subscription wants.
    ttl: timedelta | None = None


class PastFailure(msgspec.Struct, frozen=True):
    """A try of a message that failed, or in which its worker died."""

    #: The error's class: "SMTPError".
    error_class: str = msgspec.field(default="", name="class")
    #: 500 characters of it at most.
    text: str = ""
    #: Where it was raised, in the handler's own code: "shop/mails.py:41 send_mail"; empty if nobody knows.
    place: str = ""
    #: The number of that try: the first is 1, and again 1 after a redrive.
    attempt: int = 1
    #: None: of an error that no settlement wrote.
    at: datetime | None = None
    #: The id of the worker, a row of `outbox.worker` for as long as it lives.
    worker: int | None = None


class Batch(msgspec.Struct, frozen=True, eq=False):
    """What messages have in common that were pulled from one partition under one lease."""

    #: None: there is nothing to settle (at-most-once).
    lease_id: int | None
    attempt: int
    redelivered: bool
    topic: str
    partition: int
    priority: int
    partition_id: int
    #: Bytes of all their payloads.
    bytes: int
    #: The past failures of the only message of a redelivered batch.
    _history: _Jsonb = None


class Message(msgspec.Struct, eq=False, gc=False):
    """A message as a handler gets it. `payload` and `headers` are decoded when they are first read."""

    batch: Batch
    #: Ascending in the partition, with holes where transactions rolled back.
    offset: int
    #: Microseconds since the beginning of 2000, UTC, as Postgres counts.
    _published_at: int
    key: str | None
    _headers: bytes | dict[str, str] | None
    _json: bytes | None
    _body: bytes | None
    _payload: Any = msgspec.UNSET

    @property
    def lease_id(self) -> int | None:
        return self.batch.lease_id

    @property
    def attempt(self) -> int:
        """The number of this try: 1 for the first."""
        return self.batch.attempt

    @property
    def redelivered(self) -> bool:
        """Was it handed out before: tried, released, in the hands of a worker that died, or is it replayed?

        False is no promise of a first time after a seek back.
        """
        return self.batch.redelivered

    @property
    def history(self) -> list[PastFailure]:
        """Past failures, oldest first; empty at a first try. Of many, the first and the last nine are kept."""
        history = self.batch._history
        return msgspec.json.decode(history[1:], type=list[PastFailure]) if history else []

    @property
    def topic(self) -> str:
        return self.batch.topic

    @property
    def partition(self) -> int:
        """The partition's number in its topic: 0 to partitions - 1."""
        return self.batch.partition

    @property
    def priority(self) -> int:
        """0 to 9, the higher is delivered first."""
        return self.batch.priority

    @property
    def partition_id(self) -> int:
        return self.batch.partition_id

    @property
    def published_at(self) -> datetime:
        """When publish was called, in UTC, by the database's clock; the commit came after it."""
        return _POSTGRES_EPOCH + timedelta(microseconds=self._published_at)

    @property
    def raw(self) -> bytes:
        """The stored bytes: JSON text in UTF-8, or the raw body."""
        return self._body if self._json is None else self._json  # type: ignore[return-value]  # one of the two is set

    @property
    def id(self) -> MessageId:
        """The message's stable id: the same at every delivery, in every subscription."""
        return MessageId(self.partition_id, self.offset)

    @property
    def payload(self) -> Any:
        """The JSON value, or the bytes that were published."""
        if self._payload is msgspec.UNSET:
            self._payload = self._body if self._json is None else msgspec.json.decode(self._json)
        return self._payload

    @property
    def headers(self) -> dict[str, str]:
        """The headers; empty if there are none."""
        if not isinstance(self._headers, dict):  # binary jsonb begins with a version byte
            self._headers = msgspec.json.decode(self._headers[1:], type=dict[str, str]) if self._headers else {}
        return self._headers

    def decode(self, kind: type[T]) -> T:
        """Return the JSON payload as a pydantic model, dataclass, msgspec Struct or other typed value.

        Raises:
            msgspec.ValidationError, pydantic.ValidationError: the payload is not of that kind.
        """
        return payload.decode(self.raw, kind)

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.topic!r}, key {self.key!r}, attempt {self.attempt}>"


_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_LONGEST_RETRY = timedelta(days=3650)


class Ack:
    """The outcome of a handler that returns nothing, or this: the message is done."""


class Retry(Exception):
    """Raise or return it in a handler: try the message again later. Its effects roll back; an attempt is spent.

    Args:
        after: how long to wait; None leaves it to the subscription's retry policy.
        reason: kept in the message's history.
    """

    def __init__(self, after: timedelta | None = None, reason: str = "the handler asked for a retry") -> None:
        super().__init__(reason)
        if after is not None and not (isinstance(after, timedelta) and timedelta(0) <= after <= _LONGEST_RETRY):
            raise TypeError(f"Retry(after={after!r}): it must be a timedelta, from 0 to {_LONGEST_RETRY.days} days")
        self.after = after


class Reject(Exception):
    """Raise or return it in a handler: the message is a dead letter now. Its effects roll back."""

    def __init__(self, reason: str = "the handler rejected the message") -> None:
        super().__init__(reason)
