"""The log, its sequences, and the cursors over it."""

from __future__ import annotations

from outbox.doctor.finding import Check, Finding, Limits, critical, duration, warning
from outbox.operations import Operation, Row, Statement

#: Partitions a statement: each sequence that it reads is a lock until its transaction ends.
_SLICE = 500


def _in_slices(sql: str, *args: object) -> Operation[list[Row]]:
    """Ask about all partitions, some at a time: `sql` has a placeholder for their ids first."""
    ids = [id for (id,) in (yield Statement("SELECT id FROM outbox.partition ORDER BY id"))]
    rows: list[Row] = []
    for start in range(0, len(ids), _SLICE):
        rows += yield Statement(sql, (ids[start : start + _SLICE], *args))
    return rows


def _sequences(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_SEQUENCES)
    return [_sequence(*row) for row in rows]


def _sequence(partition: int, topic: str, sequence: str, gone: bool, cache: int, increment: int) -> Finding:
    fields = {"partition_id": partition, "topic": topic, "sequence": sequence}
    if gone:
        what = f"the sequence of partition {partition} of topic {topic} is gone: nothing can be published to it"
        return critical("sequence-altered", what, "restore it, and point outbox.partition.sequence to it", **fields)
    what = (
        f"{sequence} (topic {topic}) was altered: CACHE {cache}, INCREMENT {increment}, or CYCLE: offsets no "
        "longer rise in "
        "the order of their transactions, and messages can be lost"
    )
    mend = f"`ALTER SEQUENCE {sequence} CACHE 1 INCREMENT BY 1 NO CYCLE`, then let publishers reconnect"
    return critical("sequence-altered", what, mend, cache=cache, increment=increment, **fields)


def _beyond_log(limits: Limits) -> Operation[list[Finding]]:
    rows = yield from _in_slices(_CURSORS_BEYOND)
    return [_cursor_beyond(*row) for row in rows]


def _cursor_beyond(subscription: str, partition: int, sequence: str, at: int, ended: int, highest: int) -> Finding:
    what = (
        f"the cursor of {subscription} stands at offset {at} of partition {partition}, {at - ended} beyond "
        "the end of its log: "
        "the sequence went backwards"
    )
    mend = (
        f"`SELECT setval('{sequence}', {highest})`; if messages were published since it went back, then "
        f"`SELECT outbox.seek('{subscription}', {partition}, …)` to the offset before them"
    )
    fields = {"subscription": subscription, "partition_id": partition, "offset": at, "last_value": ended}
    return critical("cursor-beyond-log", what, mend, **fields)


def _beyond_sequence(limits: Limits) -> Operation[list[Finding]]:
    rows = yield from _in_slices(_LOG_BEYOND)
    return [_log_beyond(*row) for row in rows]


def _log_beyond(partition: int, topic: str, sequence: str, stored: int, ended: int, highest: int) -> Finding:
    what = (
        f"partition {partition} of topic {topic} has a message at offset {stored}, and its sequence stands at "
        f"{ended}: offsets "
        "would be given out twice"
    )
    fields = {"partition_id": partition, "topic": topic, "offset": stored, "last_value": ended}
    return critical("log-beyond-sequence", what, f"`SELECT setval('{sequence}', {highest})`, now", **fields)


def _without_position(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_CURSORS_WITHOUT_POSITION)
    return [
        critical(
            "cursor-without-position",
            f"the cursor of {subscription} on partition {partition} (topic {topic}) stands nowhere: it is never read",
            f"`SELECT outbox.seek('{subscription}', {partition}, 0)` delivers all that is kept of it; NULL "
            "instead of 0: from now on",
            subscription=subscription,
            partition_id=partition,
            topic=topic,
        )
        for subscription, partition, topic in rows
    ]


def _without_cursor(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_POSITIONS_WITHOUT_CURSOR)
    return [
        warning(
            "position-without-cursor",
            f"subscription_id {reader} has {count} positions without cursors, the first on partition "
            f"{partition}: was it "
            "deleted?",
            f"`DELETE FROM outbox.position p WHERE p.subscription_id = {reader} AND NOT EXISTS (SELECT FROM "
            "outbox.cursor c "
            "WHERE (c.subscription_id, c.partition_id) = (p.subscription_id, p.partition_id))`",
            subscription_id=reader,
            partition_id=partition,
            positions=count,
        )
        for reader, partition, count in rows
    ]


def _not_adopted(limits: Limits) -> Operation[list[Finding]]:
    rows = yield Statement(_NOT_ADOPTED)
    return [
        warning(
            "partition-without-cursor",
            f"{subscription} has no cursor on {count} partitions of topics that it is bound to, the first of "
            f"topic {topic}",
            f"`SELECT outbox.adopt({id})`",
            subscription=subscription,
            topic=topic,
            partitions=count,
        )
        for subscription, id, topic, count in rows
    ]


def _lagging(limits: Limits) -> Operation[list[tuple[str, str | None, int, int, float | None]]]:
    """Name, on_failure, live workers, lag and age in seconds of the oldest message, of subscriptions with a lag."""
    found: dict[str, tuple[str, str | None, int, int, float | None]] = {}
    for name, on_failure, workers, lag, age in (yield from _in_slices(_LAGGING)):
        _, _, _, more, older = found.get(name, (name, on_failure, workers, 0, None))
        oldest = max((a for a in (age, older) if a is not None), default=None)
        found[name] = (name, on_failure, workers, lag + more, oldest)
    return list(found.values())


def _unattended(limits: Limits) -> Operation[list[Finding]]:
    lagging = yield from _lagging(limits)
    return [
        warning(
            "subscription-without-worker",
            f"{name} has a lag of {lag}, and no live worker runs it",
            f"start a worker that runs {name}: `outbox worker MODULE:APP`",
            subscription=name,
            lag=lag,
            age_seconds=age,
        )
        for name, _, workers, lag, age in lagging
        if not workers
    ]


def _behind(limits: Limits) -> Operation[list[Finding]]:
    lagging = yield from _lagging(limits)
    return [
        warning(
            "subscription-behind",
            f"the oldest message that {name} has not taken is {duration(age)} old, though {workers} live workers run it"
            + ("" if on_failure is None else "; it is ordered: one batch, or a failure, may stand before it"),
            "look at the logs of its workers; if they keep up with none of it, start more",
            subscription=name,
            lag=lag,
            age_seconds=age,
            workers=workers,
        )
        for name, on_failure, workers, lag, age in lagging
        if workers and age is not None and age > limits.overdue
    ]


_NEWEST = """
CROSS JOIN LATERAL (SELECT q."offset" FROM outbox.position q
                    WHERE q.subscription_id = c.subscription_id AND q.partition_id = c.partition_id
                    ORDER BY q."offset" DESC LIMIT 1) AS at
"""

#: The end of a log, the highest offset in it and that of all its cursors; a sequence that is gone has none.
_ENDS = """
CROSS JOIN LATERAL (SELECT outbox.log_end(p.sequence) AS ended
                    WHERE EXISTS (SELECT FROM pg_sequence s WHERE s.seqrelid = p.sequence) OFFSET 0) AS log
"""

_HIGHEST = f"""
CROSS JOIN LATERAL (SELECT coalesce((SELECT m."offset" FROM outbox.message m WHERE m.partition_id = p.id
                                     ORDER BY m."offset" DESC LIMIT 1), 0) AS "offset" OFFSET 0) AS stored
CROSS JOIN LATERAL (SELECT max(at."offset") AS "offset" FROM outbox.cursor c {_NEWEST}
                    WHERE c.partition_id = p.id) AS taken
"""

_SEQUENCES = """
SELECT p.id, t.name, p.sequence::text, s.seqrelid IS NULL, s.seqcache, s.seqincrement
FROM outbox.partition p
JOIN outbox.topic t ON t.id = p.topic_id
LEFT JOIN pg_sequence s ON s.seqrelid = p.sequence
WHERE s.seqrelid IS NULL OR s.seqcache <> 1 OR s.seqincrement <> 1 OR s.seqcycle
ORDER BY p.id
"""

_CURSORS_BEYOND = f"""
SELECT s.name, p.id, p.sequence::text, at."offset", log.ended, greatest(stored."offset", taken."offset")
FROM outbox.cursor c
JOIN outbox.subscription s ON s.id = c.subscription_id
JOIN outbox.partition p ON p.id = c.partition_id
{_NEWEST} {_ENDS} {_HIGHEST}
WHERE p.id = ANY (%s) AND at."offset" > log.ended
ORDER BY s.name, p.id
"""

_LOG_BEYOND = f"""
SELECT p.id, t.name, p.sequence::text, stored."offset", log.ended, greatest(stored."offset", taken."offset")
FROM outbox.partition p
JOIN outbox.topic t ON t.id = p.topic_id
{_HIGHEST} {_ENDS}
WHERE p.id = ANY (%s) AND stored."offset" > log.ended
ORDER BY p.id
"""

_CURSORS_WITHOUT_POSITION = """
SELECT s.name, c.partition_id, t.name
FROM outbox.cursor c
JOIN outbox.subscription s ON s.id = c.subscription_id
JOIN outbox.partition p ON p.id = c.partition_id
JOIN outbox.topic t ON t.id = p.topic_id
WHERE (SELECT q."offset" FROM outbox.position q
       WHERE q.subscription_id = c.subscription_id AND q.partition_id = c.partition_id
       ORDER BY q."offset" DESC LIMIT 1) IS NULL
ORDER BY s.name, c.partition_id
"""

#: From cursor to cursor, each by its newest position: no dead row of an older one is met.
_POSITIONS_WITHOUT_CURSOR = """
WITH RECURSIVE newest AS (
    (SELECT q.subscription_id, q.partition_id FROM outbox.position q
     ORDER BY q.subscription_id DESC, q.partition_id DESC, q."offset" DESC LIMIT 1)
    UNION ALL
    SELECT next.* FROM newest n CROSS JOIN LATERAL (
        SELECT q.subscription_id, q.partition_id FROM outbox.position q
        WHERE (q.subscription_id, q.partition_id) < (n.subscription_id, n.partition_id)
        ORDER BY q.subscription_id DESC, q.partition_id DESC, q."offset" DESC LIMIT 1) AS next
)
SELECT n.subscription_id, min(n.partition_id), count(*)
FROM newest n
WHERE NOT EXISTS (SELECT FROM outbox.cursor c
                  WHERE c.subscription_id = n.subscription_id AND c.partition_id = n.partition_id)
GROUP BY n.subscription_id ORDER BY n.subscription_id
"""

_NOT_ADOPTED = """
SELECT s.name, s.id, min(t.name), count(DISTINCT p.id)
FROM outbox.binding b
JOIN outbox.subscription s ON s.id = b.subscription_id
JOIN outbox.topic t ON CASE WHEN b.pattern ~ '[*#]' THEN outbox.topic_matches(t.name, b.pattern)
                            ELSE t.name = b.pattern END
JOIN outbox.partition p ON p.topic_id = t.id
WHERE NOT EXISTS (SELECT FROM outbox.cursor c WHERE c.subscription_id = s.id AND c.partition_id = p.id)
GROUP BY s.id ORDER BY s.name
"""

#: By the next message after each cursor that is behind.
_LAGGING = f"""
SELECT s.name, s.on_failure, (SELECT count(*) FROM outbox.worker w WHERE s.name = ANY (w.subscriptions)
                              AND w.alive_until > clock_timestamp() AND w.retired_at IS NULL),
       sum(log.ended - at."offset")::bigint, extract(epoch FROM clock_timestamp() - min(next.published_at))::float8
FROM outbox.cursor c
JOIN outbox.subscription s ON s.id = c.subscription_id
JOIN outbox.partition p ON p.id = c.partition_id
{_NEWEST} {_ENDS}
LEFT JOIN LATERAL (SELECT m.published_at FROM outbox.message m
                   WHERE m.partition_id = p.id AND m."offset" > at."offset" ORDER BY m."offset" LIMIT 1) AS next ON true
WHERE p.id = ANY (%s) AND log.ended > at."offset"
GROUP BY s.id ORDER BY s.name
"""

CHECKS = (
    Check("sequence-altered", "every sequence is as it was created", _sequences),
    Check("cursor-beyond-log", "no cursor stands beyond its log", _beyond_log),
    Check("log-beyond-sequence", "no sequence would give an offset twice", _beyond_sequence),
    Check("cursor-without-position", "every cursor has a position", _without_position),
    Check("position-without-cursor", "every position has a cursor", _without_cursor),
    Check("partition-without-cursor", "every binding has its cursors", _not_adopted),
    Check("subscription-without-worker", "whatever has lag has a worker", _unattended),
    Check("subscription-behind", "no worker leaves a message waiting for long", _behind),
)
