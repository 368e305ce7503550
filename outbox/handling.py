"""Call a handler, in the transaction that it asks for, and say what became of its messages. Never raises."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import time
import traceback
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from outbox import logs, operations
from outbox.chunks import Call, Chunk, Deferred, is_final
from outbox.errors import InvalidOutcome, LeaseLost, OutboxError, TimeLimitExceeded
from outbox.logs import redact
from outbox.model import Ack, Message, Reject, Retry
from outbox.operations import Failure, Operation, Settlement, ranges
from outbox.places import place_of
from outbox.posts import Interrupted, Post
from outbox.series import AsyncSeries, NotBegun, Series
from outbox.subscription import Subscription

#: Characters of an error that are kept in a message's history.
_TEXT_LIMIT = 2_000
_TRACEBACK_LIMIT = 8_000
#: Seconds until the next try of a message whose handler could not begin.
_SHORTLY = 1.0


Outcomes = list[Exception | None]


class Books(Protocol):
    """What the transaction of a handler's effects writes down beside them. In the runner's thread."""

    def last(self, call: Call, outcomes: Outcomes) -> Operation[None] | None:
        """What is said to the database last, before the commit; nothing, if nothing is to be said."""

    def committed(self, call: Call, outcomes: Outcomes) -> None:
        """Note that this was committed."""


@dataclass(frozen=True, slots=True)
class Leases:
    """The books of a worker of the log: where effects are to be exactly once they settle its leases themselves."""

    subscription: Subscription
    worker: int

    def last(self, call: Call, outcomes: Outcomes) -> Operation[None] | None:
        settlement = _settlement(self.subscription, call, outcomes)
        return operations.settle(self.worker, settlement, durable=True) if settlement else None

    def committed(self, call: Call, outcomes: Outcomes) -> None: ...


def handle(
    subscription: Subscription, call: Call, books: Books, series: Series | None, post: Post, more: bool
) -> Outcomes | None:
    """Make a call: for each message None if it is done, else why not. None for all: they are to be tried one by one.

    Args:
        books: of the log that the messages are from.
        series: of the transactions that the handler asks for.
        more: will another call follow at once?
    """
    try:
        if series is None or subscription.wants is None:
            return talk(subscription, call, {}, post)
        _, parameter = subscription.wants
        with series.begin(more) as transaction:
            post.connection = transaction.connection
            outcomes = talk(subscription, call, {parameter: transaction.given}, post)
            transaction.last = books.last(call, outcomes)
        books.committed(call, outcomes)
        return outcomes
    except BaseException as error:  # whatever it is, the thread goes on with the next message
        return failed(subscription, call.messages, Interrupted() if post.interrupted else error)


async def handle_async(
    subscription: Subscription, call: Call, books: Books, series: AsyncSeries | None, post: Post, more: bool
) -> Outcomes | None:
    """Make a call with coroutines; returns as `handle` does."""
    try:
        if series is None or subscription.wants is None:
            return await talk_async(subscription, call, {}, post)
        _, parameter = subscription.wants
        async with series.begin(more) as transaction:
            outcomes = await talk_async(subscription, call, {parameter: transaction.given}, post)
            transaction.last = books.last(call, outcomes)
        books.committed(call, outcomes)
        return outcomes
    except BaseException as error:
        if is_cancelled(error, post):
            raise
        return failed(subscription, call.messages, Interrupted() if post.interrupted else error)


def handle_apart(subscription: Subscription, chunk: Chunk, call: Call, post: Post) -> None:
    """Call a handler that shares nothing with each message of a call, and tell the chunk what became of each."""
    messages = iter(call.messages)
    try:
        try:
            while _handle_until_one_fails(subscription, chunk, messages, post):
                pass
        finally:
            post.end()
    except Interrupted:
        post.end()  # it may have struck where no handler was at work


def _handle_until_one_fails(subscription: Subscription, chunk: Chunk, messages: Iterator[Message], post: Post) -> bool:
    """The innermost loop: nothing in it but the handler and two clock hands. True: go on after a failure."""
    handler, done, now = subscription.handler, chunk.done.append, time.monotonic
    try:
        for message in messages:
            post.since = now()
            outcome = handler(message)
            if outcome is not None:
                _check(outcome)
            done(message)
            if chunk.disturbed:
                return False
    except BaseException as error:  # whatever it is, the thread goes on with the next message
        _note_failure(subscription, chunk, message, error, post)
        return not chunk.disturbed
    return False


async def handle_apart_async(subscription: Subscription, chunk: Chunk, call: Call, post: Post) -> None:
    """Call a coroutine handler that shares nothing, as `handle_apart` does."""
    handler, done, now = subscription.handler, chunk.done.append, time.monotonic
    try:
        for message in call.messages:
            post.since = now()
            try:
                outcome = await handler(message)
                if outcome is not None:
                    _check(outcome)
                done(message)
            except BaseException as error:
                if is_cancelled(error, post):
                    raise
                _note_failure(subscription, chunk, message, error, post)
            if post.interrupted:
                _take_back(post)
            if chunk.disturbed:
                return
    finally:
        post.end()


def _note_failure(subscription: Subscription, chunk: Chunk, message: Message, error: BaseException, post: Post) -> None:
    """Note why a message failed that stands apart; an interrupt may have come too late for the one it was meant for."""
    if post.interrupted:
        is_over = post.is_over()
        _take_back(post)
        if chunk.done and chunk.done[-1] is message:
            return
        if is_over:
            error = Interrupted()
        elif isinstance(error, Interrupted):
            error = Deferred()
    chunk.failed.append((message, _as_exception(subscription, error)))


def _take_back(post: Post) -> None:
    """An interrupt has done its work, or came too late; the next message is not to feel it."""
    post.go_on()
    _uncancel()


def _uncancel() -> None:
    with suppress(RuntimeError):  # a thread has no task
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            task.uncancel()


def is_cancelled(error: BaseException, post: Post) -> bool:
    """Is it we who are cancelled, and not something that the handler waited for, or its call?"""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and not post.interrupted and bool(task and task.cancelling())


def failed(subscription: Subscription, messages: list[Message], error: BaseException) -> Outcomes | None:
    """What a call comes to whose effects rolled back: an error for its message, or the same again one by one."""
    reason = _as_exception(subscription, error)
    together = len(messages) > 1 and not isinstance(reason, NotBegun) and subscription.guarantee != "at-most-once"
    return None if together else [reason] * len(messages)


def stuck(subscription: Subscription, messages: list[Message]) -> list[Exception]:
    """What a call comes to that can't be ended; of many, nobody knows who is guilty: they are tried one by one."""
    outcomes = failed(subscription, messages, Interrupted())
    return [Deferred() if outcomes is None else outcomes[0] or Deferred()] * len(messages)


def _as_exception(subscription: Subscription, error: BaseException) -> Exception:
    if isinstance(error, Interrupted) and subscription.time_limit:
        limit = subscription.time_limit.total_seconds()
        return TimeLimitExceeded(f"the handler took longer than its time limit of {limit:g} s")
    return error if isinstance(error, Exception) else RuntimeError(f"the handler raised {error!r}")


def talk(subscription: Subscription, call: Call, given: dict[str, Any], post: Post) -> Outcomes:
    """Call the handler; here and nowhere else it can be interrupted. It gets a list of its own: it may empty it."""
    try:
        try:
            post.begin()
            if subscription.takes_list:
                return _outcomes(call.messages, subscription.handler(list(call.messages), **given))
            for message in call.messages:
                _check(subscription.handler(message, **given))
            return [None] * len(call.messages)
        finally:
            post.end()
    except Interrupted:
        post.end()  # it may have struck in the first
        raise


async def talk_async(subscription: Subscription, call: Call, given: dict[str, Any], post: Post) -> Outcomes:
    post.begin()
    try:
        if subscription.takes_list:
            return _outcomes(call.messages, await subscription.handler(list(call.messages), **given))
        for message in call.messages:
            _check(await subscription.handler(message, **given))
        return [None] * len(call.messages)
    except asyncio.CancelledError:
        if post.interrupted:
            raise Interrupted from None
        raise
    finally:
        post.end()
        if post.interrupted:
            _uncancel()


def failure_of(
    subscription: Subscription, message: Message, lease: int, error: Exception, chance: random.Random
) -> Failure:
    """Decide what a failed message comes to: another try, or a dead letter."""
    if isinstance(error, Deferred):
        return Failure(lease, message.offset, 0, None, None, charged=False)
    retries, described = subscription.retries, describe(error)
    if isinstance(error, NotBegun):
        return Failure(lease, message.offset, _SHORTLY, None, described, charged=False)
    if is_final(subscription, message, error):
        return Failure(lease, message.offset, None, _reason(subscription, message, error), described)
    after = error.after if isinstance(error, Retry) else None
    delay = retries.delay(message.attempt, chance, error) if after is None else after
    return Failure(lease, message.offset, delay.total_seconds(), None, described)


def _reason(subscription: Subscription, message: Message, error: Exception) -> str:
    if isinstance(error, Reject):
        return "rejected"
    if subscription.on_failure == "dead-letter":
        return "failed"
    return "attempts exhausted" if message.attempt >= subscription.retries.max_attempts else "too old"


def cause_of(error: Exception) -> str:
    """What a log says of an error: its class, where it was raised, and its text only if it is ours or was asked for."""
    kept = _kept(error)
    frames = traceback.extract_tb(kept.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    if frames and os.path.dirname(frames[-1].filename) == os.path.dirname(__file__):
        where = ""  # it was returned, or is our own
    text = f": {_text(kept)}" if logs.error_texts or isinstance(kept, OutboxError) else ""
    return type(kept).__qualname__ + where + text


def describe(error: BaseException) -> dict[str, str]:
    """What the history of a message keeps of an error."""
    kept = _kept(error)
    try:
        trace = "" if isinstance(kept, Retry | Reject) else "".join(traceback.format_exception(kept))
    except Exception:  # its __str__ raises
        trace = ""
    return {
        "class": type(kept).__qualname__,
        "text": _text(kept),
        "place": _storable(place_of(kept)),
        "traceback": redact(_storable(trace[-_TRACEBACK_LIMIT:])),
    }


def _kept(error: BaseException) -> BaseException:
    """What is worth telling: of a handler that could not begin, why."""
    return error.__cause__ if isinstance(error, NotBegun) and error.__cause__ else error


def _text(error: BaseException) -> str:
    try:
        return redact(_storable(str(error)[:_TEXT_LIMIT]))
    except Exception as unspeakable:  # its __str__ raises
        return f"(its text can't be had: {type(unspeakable).__qualname__})"


def _settlement(subscription: Subscription, call: Call, outcomes: Outcomes) -> Settlement | None:
    """None at all if a lease is lost."""
    if subscription.guarantee != "exactly-once":
        return None
    done: dict[int, list[int]] = {}
    for message, error in zip(call.messages, outcomes, strict=True):
        if message.lease_id is None:
            raise LeaseLost(f"message {message.id} was pulled without a lease")
        if error is None:
            done.setdefault(message.lease_id, []).append(message.offset)
    parts = [None if len(offsets) == call.sizes[lease] else ranges(offsets) for lease, offsets in done.items()]
    return Settlement(list(done), parts if any(parts) else None) if done else None


def _outcomes(messages: list[Message], returned: Any) -> Outcomes:
    """What a handler of many messages says of each of them: nothing is an ack."""
    if not isinstance(returned, list | tuple):
        if isinstance(returned, Iterator | Mapping | Set):
            raise InvalidOutcome(f"the handler returned a {type(returned).__name__}: a list says what became of each")
        _check(returned)
        return [None] * len(messages)
    if len(returned) != len(messages):
        raise InvalidOutcome(f"the handler got {len(messages)} messages and returned {len(returned)} outcomes")
    return [_outcome(one) for one in returned]


def _outcome(returned: Any) -> Exception | None:
    if not (
        returned is None
        or isinstance(returned, Ack | BaseException)
        or any(returned is kind for kind in (Ack, Retry, Reject))
    ):
        kind = type(returned).__name__
        raise InvalidOutcome(f"an outcome is None, Ack, Retry or Reject; the handler returned a {kind}")
    try:
        _check(returned)
    except Exception as error:  # what asyncio.gather returns of a call that raised, too
        return error
    return None


def _check(outcome: Any) -> None:
    """A returned Retry, Reject or other exception is as good as a raised one; Ack, None and other values mean done."""
    if isinstance(outcome, BaseException):
        raise outcome if isinstance(outcome, Exception) else RuntimeError(f"the handler returned {outcome!r}")
    if outcome is Retry or outcome is Reject:
        raise outcome()
    if inspect.isawaitable(outcome) or inspect.isgenerator(outcome) or inspect.isasyncgen(outcome):
        raise InvalidOutcome(
            f"the handler returned a {type(outcome).__name__} that nobody runs: "
            "a coroutine function under a decorator must stay one (async def wrapper)"
        )


def _storable(text: str) -> str:
    """Postgres's jsonb takes no NUL and no lone surrogates."""
    return text.replace("\0", "�").encode("utf-8", "replace").decode()
