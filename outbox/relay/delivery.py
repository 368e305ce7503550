"""A relay's handler: batches go out in waves, in which no key comes twice; what the other side confirms is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable

from outbox.chunks import Deferred
from outbox.definitions.relays import Relay
from outbox.logs import log
from outbox.model import Message, MessageId, Reject, Retry
from outbox.relay.circuit import Circuit, Stopped, Ticket
from outbox.relay.tally import Tally
from outbox.relay.target import Gone, Outcome, Target, Unavailable

#: A connection that breaks so many times in a row under the same message, though it can be made, breaks because of it.
_STRIKES = 3
#: Seconds that a message waits for the look that finds a disabled relay resumed.
_LOOK = 1.0


class Delivery:
    """Delivers the messages of one relay, from several batches at once. What it returns is settled.

    Args:
        disable: lets the relay's workers get no more messages; waits until that is so.
    """

    def __init__(self, name: str, relay: Relay, target: Target, disable: Callable[[], Awaitable[None]]) -> None:
        self.name, self._disable = name, disable
        #: Does the database know that it is disabled?
        self.is_paused = False
        self._pausing = asyncio.Lock()
        self.circuit = Circuit(relay.longest_pause.total_seconds())
        self.tally = Tally(name, relay.url, self.circuit)
        self._target = target
        self._by_waves = relay.ordered and not target.keeps_order
        self._ordered = relay.ordered
        self._strikes: Counter[MessageId] = Counter()

    async def __call__(self, messages: list[Message]) -> list[Exception | None]:
        """Deliver a batch; of a key nothing goes out behind a message that failed.

        Waits while the other side is away. What is not delivered when the relay stops is given back, at no cost.
        """
        outcomes: dict[MessageId, Outcome] = {}
        held: set[str | None] = set()
        try:
            for wave in waves(messages) if self._by_waves else [messages]:
                await self._deliver(wave, outcomes, held)
        except Stopped:
            if self.circuit.state == "disabled":
                await self._pause()
        return [outcomes.get(message.id, Deferred()) for message in messages]

    def stop(self) -> None:
        """Wait for the other side no longer."""
        self.circuit.stop()

    async def close(self) -> None:
        await self._target.close()

    def enable(self) -> None:
        """Somebody has resumed it."""
        self.is_paused = False
        self.circuit.enable()

    async def _pause(self) -> None:
        """Once: what comes in though it is paused says that somebody has resumed it, and is not overruled."""
        async with self._pausing:
            if not self.is_paused:
                await self._disable()
                self.is_paused = True
                return
        await self.circuit.change(_LOOK)

    async def _deliver(
        self, messages: list[Message], outcomes: dict[MessageId, Outcome], held: set[str | None]
    ) -> None:
        """Until the other side has said something of each message; of what it has not, nothing is known: it goes again.

        Those of a key that is held do not go at all.
        """
        waiting = messages
        while waiting := [message for message in waiting if message.key not in held]:
            ticket = await self.circuit.admit()
            going = waiting[:1] if ticket.is_probe and not self._target.is_whole else waiting
            found = await self._round(ticket, going)
            again = []
            for message, outcome in zip(going, found, strict=True):
                judged = self._judge(message, outcome, ticket)
                if isinstance(judged, Unavailable | Gone):
                    again.append(message)
                else:
                    outcomes[message.id] = judged
                    if self._ordered and message.key is not None and is_held(judged):
                        held.add(message.key)
            waiting = again + waiting[len(going) :]

    async def _round(self, ticket: Ticket, messages: list[Message]) -> list[Outcome]:
        began = time.monotonic()
        try:
            found = await self._target.deliver(messages)
        except BaseException as error:  # cancelled, or a fault of ours: whoever waits must not wait for this one
            self.circuit.failed(ticket, type(error).__name__)
            raise
        self.tally.note_round(time.monotonic() - began)
        self._tell(ticket, found)
        return found

    def _tell(self, ticket: Ticket, found: list[Outcome]) -> None:
        """What a round says about the other side."""
        gone = next((outcome for outcome in found if isinstance(outcome, Gone)), None)
        away = next((outcome for outcome in found if isinstance(outcome, Unavailable)), None)
        if gone is not None:
            self.circuit.disable(str(gone))
            log(logging.CRITICAL, "relay disabled: the other side wants no more", relay=self.name, reason=str(gone))
        elif away is not None:
            after = max((o.after for o in found if isinstance(o, Unavailable) and o.after is not None), default=None)
            if self.circuit.failed(ticket, str(away), after):
                log(logging.WARNING, "relay's circuit open", relay=self.name, reason=str(away))
        else:
            if self.circuit.state != "closed":
                log(logging.INFO, "relay's circuit closed", relay=self.name)
            self.circuit.succeeded(ticket)

    def _judge(self, message: Message, outcome: Outcome, ticket: Ticket) -> Outcome:
        """What it means for the message; Unavailable and Gone: nothing."""
        if isinstance(outcome, Unavailable):
            if not (outcome.is_charged or self._is_guilty(message, outcome, ticket)):
                return outcome
            outcome = Retry(reason=str(outcome))
        if isinstance(outcome, Gone | Deferred):
            return outcome
        self._strikes.pop(message.id, None)
        self.tally.note("delivered" if outcome is None else "rejected" if isinstance(outcome, Reject) else "retried")
        return outcome

    def _is_guilty(self, message: Message, outcome: Unavailable, ticket: Ticket) -> bool:
        if not (ticket.is_probe and outcome.is_cut):
            return False
        self._strikes[message.id] += 1
        return self._strikes[message.id] >= _STRIKES


def waves(messages: Iterable[Message]) -> list[list[Message]]:
    """Part a batch so that no wave has a key twice, and those of a key come in order."""
    parted: dict[int, list[Message]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for message in messages:
        parted[seen[message.key] if message.key is not None else 0].append(message)
        if message.key is not None:
            seen[message.key] += 1
    return [parted[number] for number in sorted(parted)]


def is_held(outcome: Outcome) -> bool:
    """Must those of its key wait behind a message with such an outcome? Not behind one that is dead."""
    return outcome is not None and not isinstance(outcome, Reject)
