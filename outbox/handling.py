"""Call a handler with a message, in the transaction that it asks for, and say what became of it."""

from __future__ import annotations

import traceback
from typing import Any

from outbox import operations
from outbox.connection import run, run_async
from outbox.errors import LeaseLost
from outbox.model import Message, Reject, Retry
from outbox.operations import Operation, Settlement
from outbox.subscription import Subscription
from outbox.transactions import Transactions

#: Characters of an error that are kept in a message's history.
_TEXT_LIMIT = 2_000
_TRACEBACK_LIMIT = 8_000


def handle(subscription: Subscription, message: Message, worker: int, transactions: Transactions) -> Exception | None:
    """Handle one message; None if it is done, else why not: its effects have been rolled back."""
    try:
        if subscription.wants is None:
            _check(subscription.handler(message))
            return None
        kind, parameter = subscription.wants
        with transactions.open(kind) as transaction:
            _check(subscription.handler(message, **{parameter: transaction}))
            if subscription.guarantee == "exactly-once":
                run(_settlement(message, worker), transaction)
        return None
    except (Exception, SystemExit) as error:
        return _as_failure(error)


async def handle_async(
    subscription: Subscription, message: Message, worker: int, transactions: Transactions
) -> Exception | None:
    """Handle one message with a coroutine; None if it is done, else why not."""
    try:
        if subscription.wants is None:
            _check(await subscription.handler(message))
            return None
        kind, parameter = subscription.wants
        async with transactions.open_async(kind) as transaction:
            _check(await subscription.handler(message, **{parameter: transaction}))
            if subscription.guarantee == "exactly-once":
                await run_async(_settlement(message, worker), transaction)
        return None
    except (Exception, SystemExit) as error:
        return _as_failure(error)


def describe(error: Exception) -> dict[str, str]:
    """What the history of a message keeps of an error."""
    text = "".join(traceback.format_exception(error))
    return {
        "class": type(error).__qualname__,
        "text": _storable(str(error)[:_TEXT_LIMIT]),
        "traceback": "" if isinstance(error, Retry | Reject) else _storable(text[-_TRACEBACK_LIMIT:]),
    }


def _settlement(message: Message, worker: int) -> Operation[None]:
    """Settle the message in the transaction of its effects: one commit, and none if the lease is lost."""
    if message.lease_id is None:
        raise LeaseLost(f"message {message.id} was pulled without a lease: its subscription was at-most-once then")
    return operations.settle(worker, Settlement([message.lease_id]), durable=True)


def _check(outcome: Any) -> None:
    """A returned Retry or Reject is as good as a raised one; Ack, None and anything else mean done."""
    if isinstance(outcome, Retry | Reject):
        raise outcome
    if outcome is Retry or outcome is Reject:
        raise outcome()


def _as_failure(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"the handler tried to exit: {error!r}")


def _storable(text: str) -> str:
    """Postgres's jsonb takes no NUL and no lone surrogates."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
