"""What to say to the database: each operation yields statements, receives rows and returns its result.

No I/O here: `outbox.connection` runs an operation on a connection of any kind, sync or async.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

import msgspec

from outbox import version
from outbox.binding import Binding
from outbox.model import Batch, Message, MessageId
from outbox.payload import Encoded
from outbox.settings import Settings, plain

T = TypeVar("T")
Row = Sequence[Any]


class Statement(NamedTuple):
    """SQL with `%s` placeholders (`%b`: a binary one, where the driver knows it) and what goes there."""

    sql: str
    args: tuple[Any, ...] = ()
    #: Results as they came over the wire in psycopg: JSON as bytes, times as microseconds since the beginning of 2000.
    raw: bool = False


Operation = Generator[Statement, list[Row], T]


@dataclass(slots=True)
class Settlement:
    """What is to be settled in one statement: leases, what of them, and how messages of them failed."""

    leases: list[int]
    #: For each lease an int8multirange's text, or None for all that it holds; None: all of all.
    offsets: list[str | None] | None = None
    failures: list[Failure] = field(default_factory=list)


class Pulled(NamedTuple):
    """What a pull brought."""

    #: The messages of each lease, in order.
    batches: list[list[Message]]
    #: Seconds until there may be more, though nobody will ring; None: there was no more.
    again_in: float | None

    def was_limited(self, limit: int, max_bytes: int) -> bool:
        """Did a limit end the pull? Then there may be more behind it."""
        taken, size = sum(map(len, self.batches)), sum(messages[0].batch.bytes for messages in self.batches)
        return taken >= limit or size >= max_bytes or any(messages[0].redelivered for messages in self.batches)


def ranges(offsets: Iterable[int]) -> str:
    """Offsets as an int8multirange's text."""
    return "{" + ",".join(f"[{offset},{offset}]" for offset in sorted(offsets)) + "}"


class Failure(msgspec.Struct, frozen=True):
    """A failed message, as `outbox.settle` takes it."""

    lease: int
    offset: int
    #: Seconds until the next try; None: a dead letter.
    delay: float | None
    #: Why it is a dead letter: "rejected", "attempts exhausted", or "failed" where an ordered subscription goes on.
    reason: str | None
    #: class, text and traceback; None: it was not tried.
    error: dict[str, str] | None
    #: Is an attempt spent?
    charged: bool = True


def check_schema() -> Operation[None]:
    """Raise SchemaOutdated unless the schema is there and recent enough."""
    rows = yield Statement("SELECT to_regprocedure('outbox.schema_version()') IS NOT NULL")
    installed = None
    if rows[0][0]:
        rows = yield Statement("SELECT outbox.schema_version()")
        installed = rows[0][0]
    if problem := version.problem(installed):
        raise problem


def pause(subscription: str) -> Operation[bool]:
    """False: it was paused before."""
    rows = yield Statement("SELECT outbox.pause(%s)", (subscription,))
    return bool(rows[0][0])


def resume(subscription: str) -> Operation[bool]:
    """False: it was not paused."""
    rows = yield Statement("SELECT outbox.resume(%s)", (subscription,))
    return bool(rows[0][0])


def purge(subscription: str) -> Operation[int]:
    """Needs a transaction of its own; returns how many offsets and redeliveries were dropped."""
    rows = yield Statement("SELECT outbox.purge(%s)", (subscription,))
    return int(rows[0][0])


_PUBLISHED = (
    "CAST(%s AS text)",
    "CAST(CAST(%s AS text) AS json)",
    "CAST(%s AS text)",
    "CAST(CAST(%s AS text) AS jsonb)",
    "CAST(%s AS int)",
    "CAST(%s AS bytea)",
    "CAST(%s AS text)",
    "make_interval(secs => CAST(%s AS float8))",
)
#: How many arguments → the statement. An argument costs microseconds, and most messages need few.
_PUBLISH = {
    count: f'SELECT partition_id, "offset" FROM outbox.publish({", ".join(_PUBLISHED[:count])})'
    for count in (2, 4, len(_PUBLISHED))
}


def publish(topic: str, message: Encoded, priority: int) -> Operation[MessageId]:
    json, body, key, headers, idempotency_key, ttl = message
    if priority or body is not None or idempotency_key is not None or ttl is not None:
        args: tuple[Any, ...] = (topic, json, key, headers, priority, body, idempotency_key, ttl)
    else:
        args = (topic, json) if key is None and headers is None else (topic, json, key, headers)
    rows = yield Statement(_PUBLISH[len(args)], args)
    return MessageId(*rows[0])


def publish_many(topic: str, messages: list[Encoded], priority: int) -> Operation[int]:
    """Arrays go in binary where the driver can: ten times faster than as text."""
    if not messages:
        return 0
    json, bodies, keys, headers, idempotency_keys, ttls = (_array(column) for column in zip(*messages, strict=True))
    rows = yield Statement(
        "SELECT outbox.publish_many(CAST(%s AS text), CAST(CAST(%b AS text[]) AS json[]), CAST(%b AS text[]), "
        "CAST(CAST(%b AS text[]) AS jsonb[]), CAST(%s AS int), CAST(%b AS bytea[]), CAST(%b AS text[]), "
        "CAST(%s AS float8[]))",
        (topic, json, keys, headers, priority, bodies, idempotency_keys, ttls),
    )
    return int(rows[0][0])


def _array(values: tuple[Any, ...]) -> list[Any] | None:
    """A column as an array, or None if no message has one."""
    return None if values.count(None) == len(values) else list(values)


def declare_topic(
    name: str,
    partitions: int,
    max_priority: int,
    deduplication_window: timedelta | None,
    retention: str,
    compact: bool | None,
) -> Operation[None]:
    window = deduplication_window.total_seconds() if deduplication_window else None
    yield Statement(
        "SELECT outbox.declare_topic(CAST(%s AS text), CAST(%s AS int), CAST(%s AS int), CAST(%s AS text), "
        "make_interval(secs => CAST(%s AS float8)), CAST(%s AS boolean))",
        (name, partitions, max_priority, retention, window, compact),
    )


def alter_topic(name: str, partitions: int | None, max_priority: int | None, retention: str | None) -> Operation[bool]:
    """Returns whether that changed anything."""
    rows = yield Statement(
        "SELECT outbox.alter_topic(CAST(%s AS text), CAST(%s AS int), CAST(%s AS int), CAST(%s AS text))",
        (name, partitions, max_priority, retention),
    )
    return bool(rows[0][0])


def once(consumer: str, key: str, remembered: timedelta) -> Operation[bool]:
    rows = yield Statement(
        "SELECT outbox.once(CAST(%s AS text), CAST(%s AS text), make_interval(secs => CAST(%s AS float8)))",
        (consumer, key, remembered.total_seconds()),
    )
    return bool(rows[0][0])


def subscribe(name: str, guarantee: str, max_attempts: int, on_failure: str | None) -> Operation[None]:
    yield Statement(
        "SELECT outbox.subscribe(CAST(%s AS text), CAST(%s AS text), CAST(%s AS int), CAST(%s AS text))",
        (name, guarantee, max_attempts, on_failure),
    )


def configure(subscription: str, settings: Settings) -> Operation[bool]:
    """Change the settings that are named; returns whether that changed anything."""
    rows = yield Statement(
        "SELECT outbox.configure(CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb))",
        (subscription, msgspec.json.encode(plain(settings)).decode()),
    )
    return bool(rows[0][0])


def bind(subscription: str, binding: Binding, start: str) -> Operation[int]:
    """Needs a transaction of its own; returns the number of new cursors.

    Args:
        start: where those are, as `outbox.start.text` writes it.
    """
    rows = yield Statement(
        "SELECT outbox.bind(CAST(%s AS text), CAST(%s AS text), CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), "
        "CAST(%s AS text), CAST(%s AS text), CAST(%s AS boolean))",
        (
            subscription,
            binding.pattern,
            start,
            msgspec.json.encode(binding.headers).decode() if binding.headers else None,
            binding.match,
            binding.filter,
            binding.alternate,
        ),
    )
    return int(rows[0][0])


def unbind(subscription: str, binding: Binding) -> Operation[int | None]:
    """End a binding; returns the number of cursors that went with it, None if there was no such binding."""
    rows = yield Statement(
        "SELECT outbox.unbind(CAST(%s AS text), CAST(%s AS text), CAST(CAST(%s AS text) AS jsonb), CAST(%s AS text), "
        "CAST(%s AS text), CAST(%s AS boolean))",
        (
            subscription,
            binding.pattern,
            msgspec.json.encode(binding.headers).decode() if binding.headers else None,
            binding.match,
            binding.filter,
            binding.alternate,
        ),
    )
    return None if rows[0][0] is None else int(rows[0][0])


def unsubscribe(name: str, force: bool = False) -> Operation[None]:
    """Remove a subscription; forced, even if live workers run it, and with its dead letters."""
    yield Statement("SELECT outbox.unsubscribe(CAST(%s AS text), CAST(%s AS boolean))", (name, force))


def bindings_of(subscription: str) -> Operation[list[Binding]]:
    rows = yield Statement(
        "SELECT b.pattern, b.headers, b.match, b.filter, b.alternate FROM outbox.binding b "
        "JOIN outbox.subscription s ON s.id = b.subscription_id WHERE s.name = %s ORDER BY b.pattern",
        (subscription,),
    )
    return [Binding(*row) for row in rows]


def adopt(subscription: str) -> Operation[int]:
    rows = yield Statement("SELECT outbox.adopt(s.id) FROM outbox.subscription s WHERE s.name = %s", (subscription,))
    return sum(adopted for (adopted,) in rows)


def topics_of(subscription: str) -> Operation[dict[int, int]]:
    """The topics that a subscription reads, and the wake lock of each."""
    rows = yield Statement(
        "SELECT DISTINCT p.topic_id, outbox.wake_lock(p.topic_id) FROM outbox.cursor c "
        "JOIN outbox.partition p ON p.id = c.partition_id "
        "JOIN outbox.subscription s ON s.id = c.subscription_id WHERE s.name = %s",
        (subscription,),
    )
    return {row[0]: row[1] for row in rows}


#: What publishers notify with, instead of a topic, when a message is due soon.
SCHEDULING = "-1"


def scheduling() -> Operation[dict[int, int]]:
    """The wake lock of who publishes what is due, as `topics_of` gives those of topics."""
    rows = yield Statement("SELECT outbox.wake_lock(%s)", (int(SCHEDULING),))
    return {int(SCHEDULING): rows[0][0]}


def pull(
    subscription: str, worker: int, limit: int, max_bytes: int, lease_size: int | None, overdue: bool, leased: bool
) -> Operation[Pulled]:
    """Needs a transaction of its own."""
    rows = yield Statement(
        "SELECT * FROM outbox.pull_batches(%s, %s, %s, %s, %s, %s, %s)",
        (subscription, worker, limit, lease_size, overdue, leased, max_bytes),
        raw=True,
    )
    again_in = None
    batches = []
    for row in rows:
        if row[-1] is None:
            batches.append(_messages(*row))
        else:
            again_in = row[-1]  # the last one knows best
    return Pulled(batches, again_in)


def _messages(
    lease: int | None, attempt: int, redelivered: bool, topic: str, partition: int, priority: int, partition_id: int,
    offsets: list[int], *more: Any,
) -> list[Message]:  # fmt: skip  # a row of outbox.batch
    """The messages of a batch, from its columns; a column that no message has is None."""
    *columns, history, _ = more
    size = sum(sum(map(len, filter(None, column))) for column in columns[-2:] if column)
    batch = Batch(lease, attempt, redelivered, topic, partition, priority, partition_id, size, history)
    return list(map(Message, repeat(batch), offsets, *(repeat(None) if c is None else c for c in columns)))


def settle(worker: int, settlement: Settlement, durable: bool) -> Operation[None]:
    yield Statement(
        "SELECT outbox.settle(CAST(%s AS bigint), CAST(%s AS bigint[]), CAST(CAST(%s AS text[]) AS int8multirange[]), "
        "CAST(CAST(%s AS text) AS jsonb), CAST(%s AS boolean))",
        (
            worker,
            settlement.leases,
            settlement.offsets,
            msgspec.json.encode(settlement.failures).decode() if settlement.failures else None,
            durable,
        ),
    )


def held(worker: int, lease: int) -> Operation[set[int]]:
    """The offsets that a worker holds of a lease; none if the lease is not its own any more."""
    rows = yield Statement(
        "SELECT held FROM outbox.lease l CROSS JOIN LATERAL unnest(l.offsets) AS part "
        "CROSS JOIN LATERAL generate_series(lower(part), upper(part) - 1) AS held WHERE l.id = %s AND l.worker_id = %s",
        (lease, worker),
    )
    return {offset for (offset,) in rows}


def release_unknown(subscription: str, worker: int, known: list[int]) -> Operation[int]:
    """Give back the leases that the database holds for a worker and the worker does not know of."""
    rows = yield Statement(
        "SELECT outbox.release(%s, ARRAY(SELECT l.id FROM outbox.lease l "
        "JOIN outbox.subscription s ON s.id = l.subscription_id "
        "WHERE s.name = %s AND l.worker_id = %s AND l.id <> ALL (%s)))",
        (worker, subscription, worker, known),
    )
    return int(rows[0][0])


def register(name: str, subscriptions: list[str], timeout: timedelta) -> Operation[int]:
    rows = yield Statement("SELECT outbox.register(%s, %s, %s)", (name, subscriptions, timeout))
    return int(rows[0][0])


def heartbeat(worker: int, timeout: timedelta) -> Operation[bool]:
    """False: the worker was found dead and must register anew."""
    rows = yield Statement("SELECT outbox.heartbeat(%s, %s)", (worker, timeout))
    return bool(rows[0][0])


def clock() -> Operation[float]:
    """The database's clock, in seconds since 1970."""
    rows = yield Statement("SELECT extract(epoch FROM clock_timestamp())::float8")
    return float(rows[0][0])


def retire(worker: int) -> Operation[int]:
    rows = yield Statement("SELECT outbox.retire(%s)", (worker,))
    return int(rows[0][0])


def recover() -> Operation[int]:
    rows = yield Statement("SELECT outbox.recover()")
    return int(rows[0][0])


def recover_named(name: str) -> Operation[int]:
    """Recover what a worker held that is known to have died."""
    rows = yield Statement("SELECT outbox.recover(w.id) FROM outbox.worker w WHERE w.name = %s", (name,))
    return sum(messages for (messages,) in rows)


class SlotDue(NamedTuple):
    """A slot whose time was over."""

    #: "message", "deduplication" or "inbox".
    log: str
    slot: int
    #: Who kept it from being emptied; None: it is empty now.
    held_by: str | None


def rotate() -> Operation[list[SlotDue]]:
    """Empty a slot of each log at most; returns those that were due. Needs a transaction of its own."""
    rows = yield Statement("SELECT * FROM outbox.rotate()")
    return [SlotDue(*row) for row in rows]


def mend_lanes() -> Operation[int]:
    rows = yield Statement("SELECT outbox.mend_lanes()")
    return int(rows[0][0])
