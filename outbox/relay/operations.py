"""What relays and sources say to the database; no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from outbox import operations
from outbox.operations import Operation, Statement
from outbox.payload import Encoded
from outbox.relay.tally import Tally
from outbox.relay.target import Step


def note(tally: Tally, process: str) -> Operation[None]:
    """Note how one stands in a process, for `outbox status`."""
    circuit = tally.circuit
    yield Statement(
        "SELECT outbox.note_relay(%s, %s, %s, %s, %s, CAST(%s AS float8), CAST(%s AS bigint), CAST(%s AS bigint))",
        (
            tally.name,
            process,
            tally.target,
            circuit.state,
            circuit.reason,
            circuit.seconds,
            tally.delivered,
            tally.failed,
        ),
    )


def is_paused(subscription: str) -> Operation[bool]:
    rows = yield Statement("SELECT paused_at IS NOT NULL FROM outbox.subscription WHERE name = %s", (subscription,))
    return bool(rows and rows[0][0])


def holders(leases: Iterable[int]) -> Operation[dict[int, int]]:
    """The worker that holds each of some leases; those that nobody holds who is alive are left out."""
    rows = yield Statement(
        "SELECT l.id, l.worker_id FROM outbox.lease l JOIN outbox.worker w ON w.id = l.worker_id "
        "WHERE l.id = ANY (CAST(%s AS bigint[])) AND w.retired_at IS NULL",
        (list(leases),),
    )
    return dict(rows)  # type: ignore[arg-type]  # two bigints each


def open_producer(id: str, relay: str, worker: int) -> Operation[bool]:
    """Note that a worker produces under a transactional id. False: it was found dead, and must not."""
    rows = yield Statement("SELECT outbox.open_producer(%s, %s, CAST(%s AS bigint))", (id, relay, worker))
    return bool(rows[0][0])


def dead_producers(relay: str) -> Operation[list[str]]:
    """The transactional ids of workers that live no more, and that nobody has fenced yet."""
    rows = yield Statement("SELECT outbox.dead_producers(%s)", (relay,))
    return [row[0] for row in rows]


def close_producer(id: str) -> Operation[None]:
    """Forget a transactional id: it is fenced."""
    yield Statement("SELECT outbox.close_producer(%s)", (id,))


def position(source: str, partition: str) -> Operation[int | None]:
    """The first offset of a partition there that is not published; waits for whoever is just publishing some."""
    rows = yield Statement("SELECT outbox.lock_source(%s, %s)", (source, partition))
    return rows[0][0]  # type: ignore[no-any-return]  # a bigint


def publish(source: str, steps: Iterable[Step], messages: dict[str, list[Encoded]]) -> Operation[int]:
    """Publish what was received, by topic, and move on by its steps. Returns how many were new.

    Runs in the caller's transaction; does not commit. Raises LeaseLost if somebody else has published a step.
    """
    for step in sorted(steps, key=lambda step: step.partition):  # in one order, so that two don't wait for each other
        yield Statement(
            "SELECT outbox.advance_source(%s, %s, CAST(%s AS bigint), CAST(%s AS bigint))",
            (source, step.partition, step.from_offset, step.to_offset),
        )
    published = 0
    for topic, encoded in messages.items():
        published += yield from operations.publish_many(topic, encoded, priority=0)
    return published
