"""Call a handler with a message, in the transaction that it asks for, and say what became of it. Never raises."""

from __future__ import annotations

import asyncio
import inspect
import random
import traceback
from typing import Any

from outbox import operations
from outbox.connection import run, run_async
from outbox.errors import LeaseLost
from outbox.model import Message, Reject, Retry
from outbox.operations import Failure, Operation, Settlement
from outbox.subscription import Subscription
from outbox.transactions import NotBegun, Transactions

#: Characters of an error that are kept in a message's history.
_TEXT_LIMIT = 2_000
_TRACEBACK_LIMIT = 8_000
#: Seconds until the next try of a message whose handler could not begin.
_SHORTLY = 1.0


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
    except BaseException as error:  # whatever it is, the thread goes on with the next message
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
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # it is we who are cancelled, and not something that the handler waited for
        return _as_failure(error)


def failure_of(
    subscription: Subscription, message: Message, lease: int, error: Exception, chance: random.Random
) -> Failure:
    """Decide what a failed message comes to: another try, or a dead letter."""
    retries, described = subscription.retries, describe(error)
    if isinstance(error, NotBegun):
        return Failure(lease, message.offset, _SHORTLY, None, described, charged=False)
    if isinstance(error, Reject):
        return Failure(lease, message.offset, None, "rejected", described)
    if message.attempt >= retries.max_attempts:
        return Failure(lease, message.offset, None, "attempts exhausted", described)
    after = error.after if isinstance(error, Retry) else None
    delay = retries.delay(message.attempt, chance) if after is None else after
    return Failure(lease, message.offset, delay.total_seconds(), None, described)


def describe(error: Exception) -> dict[str, str]:
    """What the history of a message keeps of an error."""
    kept = error.__cause__ if isinstance(error, NotBegun) and error.__cause__ else error
    try:
        text, trace = str(kept), "".join(traceback.format_exception(kept))
    except Exception as unspeakable:  # its __str__ raises
        text, trace = f"(its text can't be had: {type(unspeakable).__qualname__})", ""
    return {
        "class": type(kept).__qualname__,
        "text": _storable(text[:_TEXT_LIMIT]),
        "traceback": "" if isinstance(kept, Retry | Reject) else _storable(trace[-_TRACEBACK_LIMIT:]),
    }


def _settlement(message: Message, worker: int) -> Operation[None]:
    """Settle the message in the transaction of its effects: one commit, and none if the lease is lost."""
    if message.lease_id is None:
        raise LeaseLost(f"message {message.id} was pulled without a lease")
    return operations.settle(worker, Settlement([message.lease_id]), durable=True)


def _check(outcome: Any) -> None:
    """A returned Retry or Reject is as good as a raised one; Ack, None and other values mean done."""
    if isinstance(outcome, Retry | Reject):
        raise outcome
    if outcome is Retry or outcome is Reject:
        raise outcome()
    if inspect.isawaitable(outcome) or inspect.isgenerator(outcome) or inspect.isasyncgen(outcome):
        raise TypeError(
            f"the handler returned a {type(outcome).__name__} that nobody runs: "
            "a coroutine function under a decorator must stay one (async def wrapper)"
        )


def _as_failure(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(f"the handler raised {error!r}")


def _storable(text: str) -> str:
    """Postgres's jsonb takes no NUL and no lone surrogates."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
