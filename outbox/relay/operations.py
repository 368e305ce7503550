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
