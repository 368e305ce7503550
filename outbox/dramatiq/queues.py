"""What the broker asks the database about its queues: declare them, count what they hold, drop it."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import psycopg

from outbox import operations
from outbox.binding import Binding
from outbox.dramatiq.envelope import HIGHEST_PRIORITY
from outbox.dramatiq.pool import Pool
from outbox.errors import InvalidDeclaration, SubscriptionNotFound
from outbox.operations import Operation, Statement


class Counts(NamedTuple):
    """How many messages a queue holds, by where they are; up to 10,000 of each priority."""

    #: In the log, for their first try.
    waiting: int = 0
    #: For another: given back by a worker, or left by one that died.
    retrying: int = 0
    #: In workers' hands.
    in_flight: int = 0
    #: For their time.
    delayed: int = 0
    dead: int = 0

    @property
    def unfinished(self) -> int:
        return self.waiting + self.retrying + self.in_flight + self.delayed


def declare(pool: Pool, name: str, max_attempts: int, works: bool) -> None:
    """Create a queue's topic and the subscription that reads it, unless they are there; who works sets its attempts.

    Who may only publish creates the topic; the first worker then finds all that was sent since.
    """
    with suppress(InvalidDeclaration):  # it exists with other settings: somebody wanted it so
        pool.run(operations.declare_topic(name, 1, HIGHEST_PRIORITY, None, "standard", None))
    with suppress(psycopg.errors.InsufficientPrivilege):
        if works or not pool.run(_exists(name)):
            pool.run(operations.subscribe(name, "at-least-once", max_attempts, None))
        pool.run(operations.bind(name, Binding(name), "first"))


def count(pool: Pool, namespace: str, queue: str) -> Counts:
    """Count all in one snapshot: a message that moves on is counted once."""
    return pool.run(_count(namespace, queue))


def flush(pool: Pool, name: str) -> None:
    """Drop what a queue holds, but for what is in hand; one that was never declared holds nothing."""
    try:
        pool.run(_flush(name))
    except SubscriptionNotFound:
        return


def _count(namespace: str, queue: str) -> Operation[Counts]:
    rows = yield Statement(
        "SELECT sum(waiting)::bigint, sum(retrying)::bigint, sum(in_flight)::bigint, sum(delayed)::bigint, "
        "sum(dead)::bigint FROM outbox.actors(%s, %s)",
        (namespace, queue),
    )
    return Counts(*(number or 0 for number in rows[0]))


def _exists(name: str) -> Operation[bool]:
    rows = yield Statement("SELECT EXISTS (SELECT FROM outbox.subscription s WHERE s.name = %s)", (name,))
    return bool(rows[0][0])


def _flush(name: str) -> Operation[int]:
    rows = yield Statement("SELECT outbox.flush_queue(%s)", (name,))
    return int(rows[0][0])
