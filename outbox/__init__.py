"""A transactional outbox, queue and event log that lives in the Postgres you already have.

The shortest true program, `app.py`:

    from outbox import Outbox

    app = Outbox()

    @app.subscribe("mailer", "orders.*")
    def send_mail(message):
        print("mail for order", message.payload["id"])

    # where the business change is made, with a psycopg or SQLAlchemy connection or session:
    #     app.publish(session, "orders.placed", {"id": 4711}, key="4711")
    #     session.commit()

Then `outbox migrate`, and `outbox worker app:app` as often as you like.

The life of a message:

    publish ──commit──► log ──pull──► leased ──settle──► done
      │ rollback         │              │  │
      ▼                  │      failed  │  └─ worker died, or stopped ─┐
    nothing          each subscription  ▼                              │
                     has a cursor    redelivery ◄──────────────────────┘
                                        │  └─ due ──► leased again
                                        ▼ attempts exhausted, or rejected
                                     dead letter ──redrive──► redelivery
"""

from outbox.binding import Binding
from outbox.client import Outbox
from outbox.errors import (
    BacklogFull,
    CursorBeyondLog,
    HandlerStuck,
    InvalidDeclaration,
    InvalidMessage,
    LeaseLost,
    NotOwnTransaction,
    OutboxError,
    PublishError,
    RequestFailed,
    RequestTimedOut,
    SchemaOutdated,
    SubscriptionNotFound,
    TimeLimitExceeded,
    TopicNotDeclared,
    WorkerLost,
)
from outbox.inbox import once
from outbox.model import Ack, Message, MessageId, NewMessage, PastFailure, Reject, Retry
from outbox.payload import Limits
from outbox.reader import AsyncReader, Reader
from outbox.retries import Retries
from outbox.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Ack",
    "AsyncReader",
    "BacklogFull",
    "Binding",
    "CursorBeyondLog",
    "HandlerStuck",
    "InvalidDeclaration",
    "InvalidMessage",
    "LeaseLost",
    "Limits",
    "Message",
    "MessageId",
    "NewMessage",
    "NotOwnTransaction",
    "Outbox",
    "OutboxError",
    "PastFailure",
    "PublishError",
    "Reader",
    "Reject",
    "RequestFailed",
    "RequestTimedOut",
    "Retries",
    "Retry",
    "SchemaOutdated",
    "Settings",
    "SubscriptionNotFound",
    "TimeLimitExceeded",
    "TopicNotDeclared",
    "WorkerLost",
    "once",
]
