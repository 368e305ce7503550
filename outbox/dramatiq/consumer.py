"""What dramatiq's consumer threads hold: an iterator of a queue's messages, and how they end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, ConnectionFailed, DecodeError

from outbox import handling, model
from outbox.dramatiq.envelope import Envelope
from outbox.dramatiq.intake import Intake, given_back
from outbox.dramatiq.settler import Outcome
from outbox.logs import log
from outbox.operations import Failure

#: Seconds until a message is handled again after which there was no connection to send what follows it.
_LATER = 5.0


class PostgresMessage(MessageProxy):
    """A message in a worker's hands."""

    def __init__(self, message: Message[Any], delivery: model.Message, intake: Intake) -> None:
        super().__init__(message)
        self.delivery, self.intake = delivery, intake
        #: What is published with its settlement.
        self.follow_ups: list[Envelope] = []
        #: Why something that follows it could not be sent: dramatiq logs what its middleware raises, and goes on.
        self.refused: Exception | None = None
        self._is_done = False

    @property
    def redelivered(self) -> bool:
        """Was it handed out before: given back, or in the hands of a worker that died?"""
        return self.delivery.redelivered

    def end(self, failure: Failure | None = None) -> None:
        """Settle it, soon; a second time is passed over. It does not end well while its retry could not be sent."""
        if self._is_done:
            return
        self._is_done = True
        lease, offset = self.delivery.lease_id, self.delivery.offset
        assert lease is not None
        if failure is None and self.refused is not None:
            self.follow_ups.clear()
            failure = _refused(lease, offset, self.refused)
        self.intake.done(Outcome(lease, offset, failure, self.follow_ups))


class PostgresConsumer(Consumer):
    """Iterates over a queue's messages, until it is closed.

    Args:
        prefetch: messages that may be taken and not be settled.
        timeout: milliseconds after which an iteration returns None.
    """

    def __init__(self, intake: Intake, prefetch: int, timeout: int) -> None:
        self._intake, self._timeout = intake, timeout / 1000
        intake.open(prefetch)

    def __next__(self) -> MessageProxy | None:
        delivery = self._intake.take(self._timeout)
        if delivery is None:
            return None
        try:
            return PostgresMessage(Message.decode(delivery.raw), delivery, self._intake)
        except DecodeError as error:
            log(logging.ERROR, "dead letter: it can't be decoded", subscription=self._intake.name, message=delivery.id)
            lease = delivery.lease_id
            assert lease is not None
            self._intake.done(Outcome(lease, delivery.offset, _rejected(lease, delivery.offset, error)))
            return None

    def ack(self, message: MessageProxy) -> None:
        """Settle it, with what its middleware sent after it was processed; returns before that has committed."""
        if isinstance(message, PostgresMessage):
            message.end()

    def nack(self, message: MessageProxy) -> None:
        """Make it a dead letter, with its error; returns before that has committed."""
        if isinstance(message, PostgresMessage):
            lease = message.delivery.lease_id
            assert lease is not None
            message.end(_rejected(lease, message.delivery.offset, message._exception))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back that no actor has begun with: they are due for others at once, and spend no attempt."""
        for message in messages:
            if isinstance(message, PostgresMessage):
                message.follow_ups.clear()
                message.end(given_back(message.delivery).failure)

    def close(self) -> None:
        """Take no more; what was taken can still be settled."""
        self._intake.close()


class IdleConsumer(Consumer):
    """That of a delay queue: what is delayed waits in the database, and comes by the queue itself."""

    def __init__(self, timeout: int) -> None:
        self._timeout = timeout / 1000

    def __next__(self) -> None:
        time.sleep(self._timeout)


def _refused(lease: int, offset: int, error: Exception) -> Failure:
    if isinstance(error, ConnectionFailed | ConnectionClosed):
        return Failure(lease, offset, _LATER, None, None, charged=False)
    return _rejected(lease, offset, error)


def _rejected(lease: int, offset: int, error: BaseException | None) -> Failure:
    return Failure(lease, offset, None, "rejected", handling.describe(error) if error else None)
