"""What can go wrong, as a tree. Connection errors of psycopg and SQLAlchemy pass through as they are.

OutboxError
├── SchemaOutdated
├── PublishError
│   ├── InvalidMessage
│   ├── TopicNotDeclared
│   └── BacklogFull
├── InvalidDeclaration
├── SubscriptionNotFound
├── LeaseLost
├── WorkerLost
├── TimeLimitExceeded
├── InvalidOutcome
├── HandlerStuck
├── NotOwnTransaction
├── RequestTimedOut
├── RequestFailed
└── CursorBeyondLog
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any


class OutboxError(Exception):
    """Base of all errors that outbox raises."""


class SchemaOutdated(OutboxError):
    """Raised when the database lacks our schema, or has an older one than this version needs.

    Attributes:
        installed: the version in the database, or None.
        needed: the version that this package brings.
    """

    def __init__(self, installed: str | None, needed: str) -> None:
        self.installed = installed
        self.needed = needed
        have = f"is at version {installed}" if installed else "is missing"
        super().__init__(f"the schema outbox {have}, version {needed} is needed: run `outbox migrate`")


class PublishError(OutboxError):
    """Raised when a message can't be stored; the caller's transaction should roll back."""


class InvalidMessage(PublishError):
    """Raised when a message breaks a limit or can't be encoded; nothing was sent to the database."""


class TopicNotDeclared(PublishError):
    """Raised by a publish to an undeclared topic while `outbox.declare_topics` is off."""


class BacklogFull(PublishError):
    """Raised by a publish to a topic whose reader has its `max_backlog` waiting, and rejects more."""


class InvalidDeclaration(OutboxError):
    """Raised when a topic, subscription or argument contradicts what exists or what is possible."""


class SubscriptionNotFound(OutboxError):
    """Raised when a subscription, or its cursor on a partition, does not exist."""


class LeaseLost(OutboxError):
    """Raised by a settlement whose lease is not the worker's any more; its transaction must roll back."""


class WorkerLost(OutboxError):
    """Raised when a worker pulls that is not registered, or was found dead and replaced."""


class TimeLimitExceeded(OutboxError):
    """Raised when a handler ran longer than its subscription's time limit; its effects roll back."""


class InvalidOutcome(OutboxError, TypeError):
    """Raised when a handler returns what says nothing of its messages: none of them is done then."""


class HandlerStuck(OutboxError):
    """Raised by a worker that must be replaced: a handler went on beyond its time limit and could not be stopped."""


class NotOwnTransaction(OutboxError):
    """Raised when pull, bind or seek runs in a transaction that wrote before, or a request in any transaction."""


class RequestTimedOut(OutboxError):
    """Raised when no reply to a request came in time; whether it was or will be handled is not known.

    Attributes:
        topic: where the request was published.
        correlation_id: what its reply, should it still come, has as its key.
    """

    def __init__(self, topic: str, correlation_id: str, timeout: timedelta) -> None:
        self.topic = topic
        self.correlation_id = correlation_id
        super().__init__(
            f"no reply to request {correlation_id} on {topic!r} within {timeout.total_seconds():g} s: "
            "is a worker of a subscription that replies running (`outbox status`)?"
        )


class RequestFailed(OutboxError):
    """Raised when the reply to a request says that it failed, as `Outbox.reply_error` does.

    Attributes:
        topic: where the request was published.
        reply: the `Message` that said so.
    """

    def __init__(self, topic: str, text: str, reply: Any) -> None:
        self.topic = topic
        self.reply = reply
        super().__init__(f"the request on {topic!r} failed: {text}")


class CursorBeyondLog(OutboxError):
    """Raised by a pull whose partition's sequence went backwards, as a broken restore leaves it."""


#: The SQLSTATEs of our functions.
BY_SQLSTATE: dict[str, type[OutboxError]] = {
    "OB001": LeaseLost,
    "OB002": NotOwnTransaction,
    "OB003": CursorBeyondLog,
    "OB004": SubscriptionNotFound,
    "OB005": WorkerLost,
    "OB006": TopicNotDeclared,
    "OB007": InvalidDeclaration,
    "OB008": BacklogFull,
}
