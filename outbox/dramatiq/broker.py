"""The broker: what dramatiq asks of one, on Postgres."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from threading import Lock
from typing import Any

from dramatiq import Broker, Message
from dramatiq.broker import Consumer
from dramatiq.common import q_name
from dramatiq.errors import QueueJoinTimeout
from dramatiq.middleware import Middleware

from outbox import connection as connections
from outbox.dramatiq import envelope, queues
from outbox.dramatiq.consumer import IdleConsumer, PostgresConsumer, PostgresMessage
from outbox.dramatiq.envelope import HIGHEST_PRIORITY
from outbox.dramatiq.pool import Pool
from outbox.dramatiq.process import WorkerProcess
from outbox.dramatiq.queues import Counts
from outbox.dramatiq.transaction import Sending
from outbox.errors import InvalidDeclaration, InvalidMessage
from outbox.payload import Limits, is_topic

#: Without a heartbeat for this long others take over; a process that died on the same machine is found within seconds.
TIMEOUT = timedelta(seconds=30)


def lower_first(priority: int) -> int:
    """dramatiq's priority of an actor, the lower first, as ours, the higher first: 0 is 9, 9 and beyond are 0."""
    return HIGHEST_PRIORITY - min(max(priority, 0), HIGHEST_PRIORITY)


class PostgresBroker(Broker):
    """Keeps dramatiq's queues in Postgres, as topics that a subscription of the same name reads.

    A message is delivered if and only if the transaction in which it was sent commits, at least once. What middleware
    sends after an actor has ended (its retry, the next step of a pipeline, a callback) commits with the settlement of
    the actor's message: neither lost nor doubled.

    Args:
        url: the database, `postgresql://user:password@host/name`; None: `OUTBOX_DATABASE_URL`.
        middleware: instead of dramatiq's default.
        namespace: what topics and subscriptions begin with: a queue's is `dramatiq.default`. Applications that share
            a database, and no actors, have each its own.
        connection: returns the connection to send on where no `transaction` is open, Django's for example; where it
            returns None, or is not given, messages are sent on connections of the broker's own, and committed at once.
        priority: an actor's priority as ours, 0 to 9 and the higher first.
        max_attempts: how many worker processes a message may take with it before it is a dead letter, 1 or more.
        timeout: without a sign of life for this long a process counts as dead.
        pool_size: connections for sends at most, 1 or more.
        limits: what a message may hold.
        fail_fast: for tests: keep the error of a message that becomes a dead letter in this process, and let `join`
            raise it, as dramatiq's stub broker does.

    Raises:
        InvalidDeclaration: there is no URL, or the namespace is no name of a topic.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        middleware: list[Middleware] | None = None,
        namespace: str = "dramatiq",
        connection: Callable[[], Any] | None = None,
        priority: Callable[[int], int] = lower_first,
        max_attempts: int = 20,
        timeout: timedelta = TIMEOUT,
        pool_size: int = 10,
        limits: Limits | None = None,
        fail_fast: bool = False,
    ) -> None:
        super().__init__(middleware=middleware)
        if not is_topic(namespace):
            raise InvalidDeclaration(f"namespace {namespace!r}: it is words of letters, digits, _ and - between dots")
        self.pool = Pool(url, pool_size)
        self.namespace, self.max_attempts, self.timeout = namespace, max_attempts, timeout
        self.queues: set[str] = set()
        self._connection, self._priority, self._limits = connection, priority, limits or Limits()
        self._sending = Sending()
        #: Queues that are in the database; and those that were declared as one does that works.
        self._declared: set[tuple[str, bool]] = set()
        self._lock = Lock()
        self._process: WorkerProcess | None = None
        #: queue → the error of a dead letter that no `join` has raised yet; None: they are not kept.
        self.errors: dict[str, BaseException] | None = {} if fail_fast else None

    def transaction(self, connection: Any) -> AbstractContextManager[None]:
        """Send what is sent in the block in the transaction of a connection; begins, commits and rolls back nothing.

        Blocks may be nested: the innermost counts. Each thread, and each task, has its own.

        Args:
            connection: a psycopg or SQLAlchemy connection, a SQLAlchemy session, or any DB-API connection (Django's).
        """
        return self._sending.on(connection)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Send a message: in the transaction that is open, or committed when this returns.

        `before_enqueue` and `after_enqueue` are called here and now, also where the transaction is still to commit.
        Where middleware can't send what follows a message, the message does not end well: it is a dead letter, or, if
        the connection is to blame, handled again. A retry is never too large.

        Args:
            delay: milliseconds. It waits in the database, and in no worker's memory.

        Raises:
            InvalidMessage: it is too large, or its delay is more than ten years.
            dramatiq.errors.ConnectionFailed: there was no connection; nothing was sent.
            dramatiq.errors.ConnectionClosed: it broke, and whether the message was sent is not known.
        """
        with self._sending.noting_refusals():
            queue = q_name(message.queue_name)
            self.declare_queue(queue)
            self._ensure(queue)
            message = envelope.with_eta(message, delay)
            self.emit_before("enqueue", message, delay)
            self._send(envelope.seal(message, self.topic(queue), self._priority_of(message), self._most(message)))
            self.emit_after("enqueue", message, delay)
            return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> Consumer:
        """Pull from a queue until the consumer is closed. The first one registers this process as a worker.

        Raises:
            dramatiq.errors.ConnectionFailed: the database does not answer.
        """
        queue = q_name(queue_name)
        if queue != queue_name:
            return IdleConsumer(timeout)
        self.declare_queue(queue)
        self._ensure(queue, works=True)
        with self._lock:
            if self._process is None or self._process.pid != os.getpid():  # a fork has none of its parent's threads
                self._process = WorkerProcess(self.pool.url, self.timeout)
            process = self._process
        return PostgresConsumer(process.intake(self.topic(queue)), prefetch, timeout)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue; it is created at its first message, or consumer. There are no delay queues.

        Raises:
            InvalidMessage: its name can't be one of a topic.
        """
        queue = q_name(queue_name)
        if queue in self.queues:
            return
        if not is_topic(self.topic(queue)):
            raise InvalidMessage(f"queue {queue!r}: a name is words of letters, digits, _ and - between dots")
        self.emit_before("declare_queue", queue)
        self.queues.add(queue)
        self.emit_after("declare_queue", queue)

    def get_declared_queues(self) -> set[str]:
        """The queues that were declared so far."""
        return self.queues.copy()

    def topic(self, queue_name: str) -> str:
        """The topic of a queue, and the subscription that reads it."""
        return f"{self.namespace}.{q_name(queue_name)}"

    def count(self, queue_name: str) -> Counts:
        """Count what a queue holds, in one snapshot. It reads what waits: meant for tests and for people."""
        return queues.count(self.pool, self.namespace, q_name(queue_name))

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """What RabbitMQ's broker counts: messages that wait, that are delayed, and that are dead."""
        counts = self.count(queue_name)
        return counts.waiting + counts.retrying, counts.delayed, counts.dead

    def flush(self, queue_name: str) -> None:
        """Drop a queue's messages, delayed ones and dead letters too; what actors are at goes on."""
        queues.flush(self.pool, self.topic(queue_name))

    def flush_all(self) -> None:
        """Drop the messages of all declared queues."""
        for queue in self.get_declared_queues():
            self.flush(queue)

    def join(
        self, queue_name: str, *, interval: int = 20, timeout: int | None = None, fail_fast: bool | None = None
    ) -> None:
        """Wait until all messages of a queue are settled, delayed ones too; for tests.

        Args:
            interval: milliseconds between looks.
            timeout: milliseconds.
            fail_fast: raise the error of a message that became a dead letter here; None: as the broker was told. Needs
                a broker that was made with `fail_fast`.

        Raises:
            QueueJoinTimeout: some are not within that time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            left = self.count(queue_name).unfinished
            error = self.errors.pop(queue_name, None) if self.errors is not None else None
            if error is not None and fail_fast is not False:
                raise error
            del error  # it holds the frames that it went through
            if not left:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(interval / 1000)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call middleware; what it sends once an actor has ended is sent with the settlement of the actor's message."""
        if signal == "nack" and self.errors is not None and args[0]._exception is not None:
            self.errors[q_name(args[0].queue_name)] = args[0]._exception
        if signal in ("process_message", "skip_message") and isinstance(args[0], PostgresMessage):
            with self._sending.after(args[0]):
                super().emit_after(signal, *args, **kwargs)
            return
        super().emit_after(signal, *args, **kwargs)
        if signal == "worker_shutdown":
            self._retire()

    def close(self) -> None:
        """Give back what is in hand, and close all connections; the broker can be used again."""
        self._retire()
        self.pool.close()

    def _retire(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _ensure(self, queue: str, works: bool = False) -> None:
        """Create a queue in the database, outside of the caller's transaction: a rollback must not undo it."""
        if (queue, works) not in self._declared:
            queues.declare(self.pool, self.topic(queue), self.max_attempts, works)
            self._declared |= {(queue, works), (queue, False)}

    def _send(self, sealed: envelope.Envelope) -> None:
        connection, processed = self._sending.connection, self._sending.processed
        if connection is None and processed is not None:
            processed.follow_ups.append(sealed)
            return
        if connection is None and self._connection is not None:
            connection = self._connection()
        if connection is not None:
            connections.run(envelope.publish(sealed), connection)
            return
        self.pool.run(envelope.publish(sealed))
        if sealed.delay is not None and (process := self._process) is not None:
            process.look_for_due()

    def _most(self, message: Message[Any]) -> float:
        """Bytes that a message may have: a retry has its traceback besides, and its data was accepted before."""
        processed = self._sending.processed
        is_retry = processed is not None and processed.message_id == message.message_id
        return math.inf if is_retry else self._limits.payload

    def _priority_of(self, message: Message[Any]) -> int:
        """What the message says as RabbitMQ's `broker_priority`, the higher first; else what its actor says."""
        said = message.options.get("broker_priority")
        if said is not None:
            return int(min(max(said, 0), HIGHEST_PRIORITY))
        actor = self.actors.get(message.actor_name)
        return min(max(self._priority(actor.priority if actor else 0), 0), HIGHEST_PRIORITY)
