"""Cut what was pulled into calls of the handler, and keep what must stay in order in order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from outbox.model import Message, Reject
from outbox.series import NotBegun
from outbox.subscription import Subscription


class Deferred(Exception):
    """Says of a message that it was not tried: something that it must stay behind has failed."""


@dataclass(slots=True)
class Call:
    """The messages that a handler is called with, one after the other or as a list."""

    messages: list[Message]
    #: How many messages each lease of the chunk holds, where a handler's transaction settles them.
    sizes: dict[int, int]
    #: Does each of them stand for itself? Then the chunk is told of each as soon as it has an outcome.
    apart: bool = False


@dataclass(slots=True, eq=False)
class Chunk:
    """Calls that one runner makes one after the other, and what became of their messages."""

    subscription: Subscription
    calls: deque[Call]
    #: Messages that were handled.
    done: list[Message] = field(default_factory=list)
    #: Messages that failed or were deferred, each with why.
    failed: list[tuple[Message, Exception]] = field(default_factory=list)
    seconds: float = 0.0
    #: Messages in all its calls.
    size: int = 0
    #: The call that is being made.
    current: Call | None = None
    #: How many messages had an outcome when that call began.
    _outcomes_before: int = 0
    #: Look before the next message: we are to stop, or a lease is in other hands.
    disturbed: bool = False
    _halted: bool = False
    #: Nobody waits for it any more: a handler did not come to its end.
    given_up: bool = False
    #: Leases that are in other hands now.
    _lost: set[int | None] = field(default_factory=set)
    _blocked: bool = False
    _parked: set[str] = field(default_factory=set)

    def next_call(self) -> Call | None:
        """Take the next call; messages that must wait behind a failed one are deferred."""
        while self.calls and not self._halted:
            call = self.calls.popleft()
            if self._lost:
                call.messages = [message for message in call.messages if message.lease_id not in self._lost]
            if self._blocked or self._parked:
                self._defer(call)
            if call.messages:
                self.current, self._outcomes_before = call, self.outcomes
                return call
        return None

    def halt(self) -> None:
        """Begin with no more messages."""
        self._halted = self.disturbed = True

    def lose(self, lease: int) -> None:
        """Begin with no more messages of a lease that is in other hands."""
        self._lost.add(lease)
        self.disturbed = True

    def give_up(self) -> None:
        """Wait for it no more."""
        self.given_up = True
        self.halt()

    @property
    def outcomes(self) -> int:
        """How many messages have one."""
        return len(self.done) + len(self.failed)

    def open_messages(self, call: Call) -> list[Message]:
        """Of the call that is being made: those without an outcome, the first is being handled if they stand apart."""
        return call.messages[self.outcomes - self._outcomes_before :] if call.apart else call.messages

    def note(self, call: Call, outcomes: list[Exception | None] | None) -> None:
        """Note what became of a call's messages; None: they failed together, and are to be tried one by one."""
        self.current = None
        if outcomes is None:
            self.calls.extendleft(Call([message], call.sizes) for message in reversed(call.messages))
            return
        for message, error in zip(call.messages, outcomes, strict=True):
            if error is None:
                self.done.append(message)
                continue
            self.failed.append((message, error))
            if self.subscription.on_failure and not is_final(self.subscription, message, error):
                self._hold_back(message)

    def put_back(self, calls: list[Call]) -> None:
        """Calls that were taken, and are to be made again, next."""
        self.current = None
        self.calls.extendleft(reversed(calls))

    def note_apart(self, call: Call) -> None:
        """The call has ended; messages that it did not come to are another call."""
        self.current = None
        if rest := self.open_messages(call):
            self.calls.appendleft(Call(rest, call.sizes, apart=True))

    def _hold_back(self, failed: Message) -> None:
        if self.subscription.on_failure != "park":
            self._blocked = True
        elif failed.key is not None:
            self._parked.add(failed.key)

    def _defer(self, call: Call) -> None:
        waiting = [m for m in call.messages if self._blocked or m.key in self._parked]
        self.failed.extend((message, Deferred()) for message in waiting)
        call.messages = [m for m in call.messages if not (self._blocked or m.key in self._parked)]


def is_final(subscription: Subscription, message: Message, error: Exception) -> bool:
    """Is this failure the message's last, so that it becomes a dead letter?"""
    if isinstance(error, NotBegun | Deferred):
        return False
    return (
        isinstance(error, Reject)
        or subscription.on_failure == "dead-letter"
        or message.attempt >= subscription.retries.max_attempts
        or _is_too_old(message, subscription.retries.max_age)
    )


def _is_too_old(message: Message, max_age: timedelta | None) -> bool:
    """By this machine's clock: was it published longer ago?"""
    return max_age is not None and datetime.now(UTC) - message.published_at > max_age


def cut(waiting: deque[Message], subscription: Subscription, size: int) -> Chunk:
    """Take about `size` messages from the left: whole leases, where their handler's transaction or order needs them."""
    if subscription.on_failure:
        messages = _take_lease(waiting)
    elif subscription.batch > 1 and subscription.guarantee == "exactly-once":
        messages = []
        while waiting and len(messages) < max(size, subscription.batch):
            messages += _take_lease(waiting)
    else:
        messages = [waiting.popleft() for _ in range(min(max(size, subscription.batch), len(waiting)))]
    if subscription.stands_apart:
        return Chunk(subscription, deque([Call(messages, {}, apart=True)]), size=len(messages))
    sizes = Counter(m.lease_id for m in messages) if subscription.guarantee == "exactly-once" else {}
    calls = deque(Call(part, sizes) for part in _parts(messages, subscription))  # type: ignore[arg-type]  # leased
    return Chunk(subscription, calls, size=len(messages))


def _take_lease(waiting: deque[Message]) -> list[Message]:
    lease = waiting[0].lease_id
    taken = [waiting.popleft()]
    while waiting and waiting[0].lease_id == lease:
        taken.append(waiting.popleft())
    return taken


def _parts(messages: list[Message], subscription: Subscription) -> Iterable[list[Message]]:
    """Calls of a batch at most; what was tried before is tried alone, so that its neighbours don't suffer from it."""
    if subscription.batch == 1:
        return ([message] for message in messages)
    parts: list[list[Message]] = []
    for message in messages:
        last = parts[-1] if parts else None
        alone = last is None or message.redelivered or last[0].redelivered
        if last is None or alone or len(last) == subscription.batch:
            parts.append([message])
        else:
            last.append(message)
    return parts
