"""What a transaction of effects writes down beside them: how far another log is read, and what is done."""

from __future__ import annotations

import time
from typing import cast

from outbox.chunks import Call
from outbox.handling import Outcomes
from outbox.operations import Operation
from outbox.relay.feeding import operations
from outbox.relay.feeding.lanes import Lane
from outbox.relay.feeding.message import Fed
from outbox.subscription import Subscription


class FeedBooks:
    """Of the calls of one chunk, whose messages are of one lane.

    Args:
        is_fenced: does the lane's position move in these transactions? Then they come one after the other.
    """

    def __init__(self, subscription: Subscription, lane: Lane, is_fenced: bool) -> None:
        self._subscription, self._lane, self._is_fenced = subscription, lane, is_fenced

    def last(self, call: Call, outcomes: Outcomes) -> Operation[None] | None:
        """The position moves up to the first message that is not done; those done behind it are known by name."""
        if self._subscription.guarantee != "exactly-once":
            return None
        to_offset = self._reached(call, outcomes)
        keys = [
            message.inbox
            for message, error in zip(call.messages, outcomes, strict=True)
            if error is None and isinstance(message, Fed) and self._is_marked(message, to_offset)
        ]
        if to_offset is None and not keys:
            return None
        stands = self._lane.stands if to_offset is not None else None
        looked = time.monotonic() - min(cast(Fed, message).judged_at for message in call.messages)
        return operations.move(self._subscription.name, self._lane.name, stands, to_offset, keys, [], True, looked)

    def committed(self, call: Call, outcomes: Outcomes) -> None:
        if self._subscription.guarantee == "exactly-once" and (to_offset := self._reached(call, outcomes)) is not None:
            self._lane.stands = to_offset

    def _reached(self, call: Call, outcomes: Outcomes) -> int | None:
        """Where the lane stands afterwards; None: where it does."""
        if not self._is_fenced:
            return None
        failed = (message.offset for message, error in zip(call.messages, outcomes, strict=True) if error is not None)
        to_offset = next(failed, call.messages[-1].offset + 1)
        return to_offset if to_offset > (self._lane.stands or 0) else None

    def _is_marked(self, message: Fed, to_offset: int | None) -> bool:
        """What has no name need not be known where the position says that it is done."""
        return bool(message.inbox) and (message.is_named or to_offset is None or message.offset >= to_offset)
