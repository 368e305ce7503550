"""A transaction of Kafka: messages that are seen together or not at all, and the producer that makes such."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from outbox.relay.kafka_log import LOOK
from outbox.relay.producing import REFUSALS, Line, Together
from outbox.relay.target import Outcome, Unavailable

#: Of a message that was not sent, or whose answer was not waited for, since the transaction had failed already.
_GONE_WITH_IT = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE})
#: An abort may sweep away what the next transaction has just begun to send: nothing is wrong, and it is sent again.
_TRIES = 3
#: Seconds that a call of the library lasts at most, so that an error of the connection is seen.
_CALL = 1.0


class TransactionalProducer(Line):
    """A producer of transactions, one at a time.

    Args:
        seconds: how long each of its steps may take.
    """

    def __init__(self, settings: dict[str, Any], seconds: float) -> None:
        super().__init__(settings)
        self._seconds = seconds

    def begin(self) -> None:
        """Fence whoever had its id before, and end what that had begun. Raises Unavailable."""
        if (error := self._tried(self.producer.init_transactions)) is not None:
            raise Unavailable(f"Kafka begins no transactions: {self.trouble or error.str()}")

    def commit(self) -> KafkaError | None:
        """Returns why it could not; unless that demands an abort, the producer is broken and nobody knows."""
        error = self._tried(self.producer.commit_transaction)
        if error is not None and not error.txn_requires_abort():
            self.broken = f"it is not known whether a transaction was committed: {error.str()}"
        return error

    def abort(self) -> None:
        """Undo what was sent; else the producer is broken, and its successor does."""
        if self.broken is None and (error := self._tried(self.producer.abort_transaction)) is not None:
            self.broken = f"a transaction could not be aborted: {error.str()}"

    def give_up(self) -> None:
        if self.broken is None:
            with suppress(KafkaException):  # there is none
                self.producer.abort_transaction(_CALL)
        super().give_up()

    def _tried(self, call: Callable[[float], None]) -> KafkaError | None:
        """Make a call again as long as it wants to be resumed; returns its last error."""
        until = time.monotonic() + self._seconds
        while True:
            try:
                call(max(LOOK, min(_CALL, until - time.monotonic())))
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                self.look(0)
                if not error.retriable() or self.broken is not None or time.monotonic() >= until:
                    return error
            else:
                return None

    def look(self, seconds: float) -> KafkaError | None:
        """Hear what has become of messages; returns an error of the producer's."""
        try:
            self.producer.poll(seconds)
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            if error.fatal():
                self.broken = self.broken or error.str()
            return error
        return None


class Transaction(Together):
    """Messages that are committed together, in a thread of their own; if one of them can't be stored, none is."""

    is_committed = False
    #: Why it can't be committed.
    _trouble: str | None = None

    def run(self, line: TransactionalProducer) -> None:  # type: ignore[override]  # it needs one
        for _ in range(_TRIES):
            self._try(line)
            if self.is_committed or self._trouble or self._has_verdict or line.broken is not None:
                break
        if not self.is_committed:
            away = Unavailable(f"Kafka does not confirm: {line.broken or self._trouble or 'no answer'}")
            self.outcomes = [outcome if is_verdict(outcome) else away for outcome in self.outcomes]

    def _try(self, line: TransactionalProducer) -> None:
        self.outcomes, self._open = [Unavailable("not heard of")] * len(self.messages), set()
        try:
            line.producer.begin_transaction()
        except KafkaException as error:
            line.broken = error.args[0].str()
        else:
            self._send(line)
            self._listen(line)
            self._end(line)

    def _listen(self, line: TransactionalProducer) -> None:
        """Until there is a verdict on each; when one has failed, only as long as more is said."""
        until, left = time.monotonic() + self._relay.timeout.total_seconds() + 1, len(self._open) + 1
        while self._open and line.broken is None and time.monotonic() < until:
            if (self._trouble or self._has_verdict) and len(self._open) == left:
                break
            left = len(self._open)
            if (error := line.look(LOOK)) is not None:
                self._trouble = self._trouble or error.str()

    def _end(self, line: TransactionalProducer) -> None:
        if not self._open and all(outcome is None for outcome in self.outcomes):
            error = line.commit()
            if error is None:
                self.is_committed = True
                return
            self._trouble = error.str()
        line.abort()
        line.look(0)

    @property
    def _has_verdict(self) -> bool:
        return self.is_refused or any(is_verdict(outcome) for outcome in self.outcomes)

    def _verdict(self, line: Line, error: KafkaError) -> Outcome:
        if error.code() in REFUSALS:
            return super()._verdict(line, error)
        if error.fatal():
            line.broken = line.broken or error.str()
        if error.code() not in _GONE_WITH_IT:
            self._trouble = self._trouble or error.str()
        return Unavailable("its transaction has failed")


def is_verdict(outcome: Outcome) -> bool:
    """Does it say something of the message itself, whatever becomes of its transaction?"""
    return outcome is not None and not isinstance(outcome, Unavailable)


def fence(settings: dict[str, Any], seconds: float) -> None:
    """Let nobody commit any more who has that id now. Raises Unavailable."""
    successor = begun(settings, seconds)
    successor.give_up()


def begun(settings: dict[str, Any], seconds: float) -> TransactionalProducer:
    """A producer whose predecessors are fenced. Raises Unavailable."""
    try:
        line = TransactionalProducer(settings, seconds)
    except KafkaException as error:
        raise Unavailable(f"no producer of Kafka can be made: {error.args[0].str()}") from None
    line.begin()
    return line
