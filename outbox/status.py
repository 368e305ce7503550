"""How things stand: topics, subscriptions with their lag, and workers."""

from __future__ import annotations

import msgspec

from outbox.operations import Operation, Statement


class TopicStatus(msgspec.Struct, frozen=True):
    name: str
    partitions: int
    #: Offsets drawn in all its partitions: messages, and holes of transactions that rolled back.
    offsets: int
    subscriptions: int


class SubscriptionStatus(msgspec.Struct, frozen=True):
    name: str
    guarantee: str
    patterns: list[str]
    #: Offsets between its cursors and the ends of their partitions.
    lag: int
    #: Messages in workers' hands.
    in_flight: int
    #: Messages waiting for another try.
    retrying: int
    dead: int
    #: Live workers that run it.
    workers: int
    #: Do pulls return nothing until it is resumed?
    paused: bool
    #: Messages whose retention ended before it took them, and nobody has taken note of that.
    lost: int


class WorkerStatus(msgspec.Struct, frozen=True):
    id: int
    name: str
    subscriptions: list[str]
    alive: bool
    #: Seconds since its last heartbeat could have been missed; negative while it is alive.
    overdue: float
    #: Seconds since it registered.
    age: float


class ActorStatus(msgspec.Struct, frozen=True):
    """An actor of dramatiq, whose messages are in one of our databases; at most 10,000 of each priority are counted."""

    #: The subscription: `dramatiq.default`.
    queue: str
    name: str
    #: In the log, for their first try.
    waiting: int
    #: For another try: given back by a worker, or left by one that died.
    retrying: int
    in_flight: int
    #: For their time: sent with a delay, or to be retried.
    delayed: int
    dead: int


class RelayStatus(msgspec.Struct, frozen=True):
    #: Of a relay, or of a source.
    name: str
    #: The worker, or process, that runs it.
    process: str
    target: str
    #: "closed": messages flow; "open": the other side is away; "half-open": it is being tried; "disabled".
    state: str
    reason: str | None
    #: Seconds since it is so.
    age: float
    #: Messages, since the process began.
    delivered: int
    failed: int


class Status(msgspec.Struct, frozen=True):
    topics: list[TopicStatus]
    subscriptions: list[SubscriptionStatus]
    #: Of dramatiq, with messages; empty if nobody uses it here.
    actors: list[ActorStatus]
    workers: list[WorkerStatus]
    #: Messages to come: of `publish_later`, and ticks of schedules that could not be published yet.
    scheduled: int
    #: Of processes that have said how they stand within the last minute.
    relays: list[RelayStatus] = []


def status() -> Operation[Status]:
    """Read it all, a statement a list."""
    topics = yield Statement(_TOPICS)
    subscriptions = yield Statement(_SUBSCRIPTIONS)
    actors = yield Statement("SELECT * FROM outbox.actors()")
    workers = yield Statement(_WORKERS)
    scheduled = yield Statement("SELECT count(id) FROM outbox.scheduled")
    relays = yield Statement(_RELAYS)
    return Status(
        [TopicStatus(*row) for row in topics],
        [SubscriptionStatus(*row) for row in subscriptions],
        [ActorStatus(*row) for row in actors],
        [WorkerStatus(*row) for row in workers],
        scheduled[0][0],
        [RelayStatus(*row) for row in relays],
    )


_TOPICS = """
SELECT t.name, t.partitions, coalesce(sum(outbox.log_end(p.sequence)), 0)::bigint,
       (SELECT count(DISTINCT c.subscription_id) FROM outbox.cursor c JOIN outbox.partition q ON q.id = c.partition_id
        WHERE q.topic_id = t.id)
FROM outbox.topic t JOIN outbox.partition p ON p.topic_id = t.id
GROUP BY t.id ORDER BY t.name
"""

_SUBSCRIPTIONS = """
SELECT s.name, s.guarantee,
       ARRAY(SELECT b.pattern FROM outbox.binding b WHERE b.subscription_id = s.id ORDER BY b.pattern),
       (SELECT coalesce(sum(l.lag), 0)::bigint FROM outbox.lag l WHERE l.subscription = s.name),
       (SELECT coalesce(sum(f.messages), 0)::bigint FROM outbox.in_flight f WHERE f.subscription = s.name),
       (SELECT count(*) FROM outbox.redelivery r WHERE r.subscription_id = s.id AND r.lease_id IS NULL),
       (SELECT count(*) FROM outbox.dead_letter d WHERE d.subscription_id = s.id),
       (SELECT count(*) FROM outbox.worker w WHERE s.name = ANY (w.subscriptions)
        AND w.alive_until > clock_timestamp() AND w.retired_at IS NULL),
       s.paused_at IS NOT NULL,
       (SELECT coalesce(sum(l.messages), 0)::bigint FROM outbox.lost l WHERE l.subscription = s.name)
FROM outbox.subscription s ORDER BY s.name
"""

_WORKERS = """
SELECT w.id, w.name, w.subscriptions, w.alive_until > clock_timestamp(),
       extract(epoch FROM clock_timestamp() - w.alive_until)::float8,
       extract(epoch FROM clock_timestamp() - w.started_at)::float8
FROM outbox.worker w WHERE w.retired_at IS NULL ORDER BY w.id
"""

_RELAYS = """
SELECT r.name, r.process, r.target, r.state, r.reason, extract(epoch FROM clock_timestamp() - r.since)::float8,
       r.delivered, r.failed
FROM outbox.relay r WHERE r.noted_at > clock_timestamp() - interval '1 minute' ORDER BY r.name, r.process
"""
