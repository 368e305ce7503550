"""The table of workloads: who takes part, how much, and what outbox is to reach."""

from __future__ import annotations

from tests.benchmark import capturing, depth, draining, fanout, held, latency, load, publishing, rotating, soak, storage
from tests.benchmark.competitors import PEERS
from tests.benchmark.workload import Metric, Workload

_SCAN, _DELETE, _INSERT = "keyset scan", "SKIP LOCKED", "plain INSERT"
_CONSUMER = Metric("consumer_us", "consumer CPU, µs a message")
_POSTGRES = Metric("postgres_us", "Postgres CPU, µs a message")
_CPU = (_CONSUMER, _POSTGRES)
_BOOKS = (Metric("lost", "lost"), Metric("doubled", "doubled"))


def _rate(limit: str | None, goal: str) -> tuple[Metric, ...]:
    return (Metric("rate", "messages/s", limit, goal), *_CPU)


def _steady(key: str, label: str, goal: str = "± 20 %") -> Metric:
    """A figure that is not to change from the first window to the last."""
    return Metric(f"{key}_first", f"{label}, first → last", goal=goal, end=f"{key}_last")


_HELD = (
    _steady("rate", "messages/s"),
    _steady("p99_ms", "p99, ms"),
    _steady("postgres_percent", "Postgres, % of a core", "flat"),
    Metric("dead_tuples_besides", "dead tuples a message, without those of rollbacks", goal="≤ 0.05"),
    Metric("left", "not settled in the end"),
    *_BOOKS,
)
_HELD_SIZES = {"seconds": 60.0, "rate": 2_000.0}

WORKLOADS: tuple[Workload, ...] = (
    Workload(
        "W1",
        "publish one message inside a business transaction",
        publishing.transact,
        (
            Metric("publish_us", "with publish, µs"),
            Metric("insert_us", "with a plain INSERT, µs"),
            Metric("nothing_us", "with nothing more, µs"),
            Metric("ratio_to_insert", "publish / INSERT", goal="≤ 1.3"),
            Metric("publish_p99_us", "with publish, p99 µs"),
            Metric("insert_p99_us", "with INSERT, p99 µs"),
        ),
        ("outbox", *PEERS),
        {"transactions": 1_000},
        quick={"transactions": 300},
    ),
    Workload(
        "W2",
        "bulk publish, 1,000 a call",
        publishing.bulk,
        (Metric("rate", "messages/s", _SCAN, "≥ 0.7 of the limit, ≥ 5 × the best SQL queue"), _POSTGRES),
        (_SCAN, "outbox", *PEERS),
        {"messages": 50_000},
        quick={"messages": 20_000},
    ),
    Workload(
        "W3",
        "drain, no-op handler, one worker process",
        draining.drain,
        _rate(_SCAN, "≥ 0.6 of the limit, ≥ 2 × PgQue, ≥ 8 × pgqueuer"),
        (_SCAN, _DELETE, "outbox", *PEERS),
        {"messages": 50_000, "kind": "nothing"},
        quick={"messages": 20_000},
    ),
    *(
        Workload(
            f"W3x{processes}",
            f"drain, no-op handler, {processes} worker processes on one subscription",
            draining.drain_by_several,
            (Metric("ratio_to_one", "of one process", goal=goal), *_rate(_DELETE, "")),
            (_DELETE, "outbox", "outbox (4 partitions)", *PEERS),
            {"messages": 50_000, "kind": "nothing", "processes": processes},
            quick={"messages": 20_000},
            is_quick=processes == 2,
            quick_competitors=(_DELETE, "outbox"),
        )
        for processes, goal in ((2, "≥ 1.3"), (4, "≥ 1"))
    ),
    Workload(
        "W4",
        "effect: a row and the settlement in one transaction, each message alone",
        draining.drain,
        _rate(_SCAN, "≥ 0.35 of the limit, ≥ 3 × the best peer"),
        (_SCAN, _DELETE, "outbox", "outbox (pipeline)", *PEERS),
        {"messages": 5_000, "kind": "effect"},
        quick={"messages": 1_500},
    ),
    Workload(
        "W4-100",
        "effects: a row each and the settlement in one transaction, 100 messages together",
        draining.drain,
        _rate(_SCAN, "≥ 0.7 of the limit, one by one ≥ 0.35, ≥ 3 × the best peer"),
        (_SCAN, _DELETE, "outbox", "outbox (one by one)", *PEERS),
        {"messages": 20_000, "kind": "effects", "batch": 100},
        quick={"messages": 10_000},
    ),
    Workload(
        "W5",
        "commit to handler at rest, a message every 20 ms",
        latency.at_rest,
        (
            Metric("p50_ms", "p50, ms", _SCAN, "≤ 1.2 × the limit"),
            Metric("p99_ms", "p99, ms", _SCAN, "≤ 1.5 × the limit"),
            Metric("max_ms", "highest, ms"),
            *_CPU,
        ),
        (_SCAN, _DELETE, "outbox", *PEERS),
        {"probes": 400, "kind": "nothing"},
        quick={"probes": 120},
        quick_competitors=(_SCAN, "outbox"),
    ),
    Workload(
        "W5b",
        "the same behind PgBouncer in transaction pooling; and the cost of idling",
        latency.at_rest,
        (
            Metric("p50_ms", "p50, ms", "outbox", "≤ 4 × direct"),
            Metric("p99_ms", "p99, ms", "outbox", "≤ 5 × direct"),
            Metric("idle_consumer_percent", "idle worker, % of a core", goal="with Postgres < 1 %"),
            Metric("idle_postgres_percent", "Postgres for it, % of a core"),
        ),
        ("outbox", "outbox (PgBouncer)"),
        {"probes": 400, "idle": 20.0},
        quick={"probes": 60, "idle": 2.0},
    ),
    Workload(
        "W6",
        "four publishers at full speed, and one worker",
        load.full_speed,
        (
            Metric("rate", "published/s", _INSERT, "≥ 0.9 of the limit"),
            Metric("p50_ms", "p50, ms", _SCAN),
            Metric("p99_ms", "p99, ms", _SCAN, "≤ 2 × the loop's"),
            Metric("backlog", "backlog in the end", goal="0"),
            *_BOOKS,
            *_CPU,
        ),
        (_INSERT, _SCAN, _DELETE, "outbox", *PEERS),
        {"seconds": 30.0},
        quick={"seconds": 4.0},
        quick_competitors=(_INSERT, _SCAN, "outbox"),
    ),
    Workload(
        "W7a",
        "messages at a steady rate while a REPEATABLE READ reader holds its snapshot",
        held.held,
        _HELD,
        (_DELETE, "outbox", *PEERS),
        {**_HELD_SIZES, "holder": "snapshot", "rolled_back": 0.0},
        is_quick=False,
        most_rounds=1,
    ),
    Workload(
        "W7b",
        "messages at a steady rate while an idle transaction holds its xid, and 5 % of publishes roll back",
        held.held,
        _HELD,
        (_DELETE, "outbox", *PEERS),
        {**_HELD_SIZES, "holder": "xid", "rolled_back": 0.05},
        quick={"seconds": 8.0, "rate": 1_000.0},
        quick_competitors=("outbox",),
        most_rounds=1,
    ),
    *(
        Workload(
            name,
            f"bytes of a message, from publish to settled, {size:,} a commit",
            storage.bytes_left,
            (
                Metric("wal_bytes", "bytes of WAL", _SCAN, "≤ 1.4 × the limit"),
                Metric("disk_bytes", "bytes left on disk", _SCAN, "≤ 1.4 × the limit"),
            ),
            (_SCAN, _DELETE, "outbox", *PEERS),
            {"messages": messages, "size": size},
            quick={"messages": messages // 5},
        )
        for name, size, messages in (("W8", 1_000, 50_000), ("W8-1", 1, 10_000))
    ),
    *(
        Workload(
            name,
            f"handlers of 5 ms, 50 at once, {kind}",
            draining.wait,
            (
                Metric("ideal_percent", "% of the ideal", goal="≥ 90"),
                Metric("bare_percent", "without a queue, % of the ideal"),
                *_rate(None, ""),
            ),
            ("outbox",),
            {"messages": 50_000, "concurrency": 50, "seconds": 0.005, "is_async": kind == "coroutines"},
            quick={"messages": 10_000},
        )
        for name, kind in (("W9", "threads"), ("W9-async", "coroutines"))
    ),
    Workload(
        "W10",
        "fan-out: one of 1, 10 and 100 subscriptions on the topic reads",
        fanout.fan_out,
        (
            Metric("publish_us", "publish one, µs", "outbox", "flat"),
            Metric("bulk_us", "publish 1,000, µs a message", "outbox", "flat"),
            Metric("rate", "read/s", "outbox", "≥ 0.5"),
            *_CPU,
        ),
        ("outbox", "outbox (0 subscriptions)", "outbox (10 subscriptions)", "outbox (100 subscriptions)"),
        {"messages": 50_000, "singles": 500},
        quick={"messages": 10_000, "singles": 200},
    ),
    Workload(
        "W10x10",
        "ten subscriptions read the same topic at once, each by a process of its own",
        fanout.all_at_once,
        (Metric("rate", "deliveries/s, together", "outbox", "≥ 1"),),
        ("outbox", "outbox (10 subscriptions)"),
        {"messages": 50_000},
        is_quick=False,
    ),
    Workload(
        "W11",
        "depth: a pull of 100 messages, and its settlement, before a long backlog",
        depth.backlog,
        (
            Metric("deep_to_shallow", "pull, deepest / shallowest", goal="0.8 to 1.2"),
            *(Metric(f"pull_us_at_{10**n}", f"pull at 10^{n}, µs") for n in (4, 5, 6, 7)),
            *(Metric(f"settle_us_at_{10**n}", f"settle at 10^{n}, µs") for n in (4, 5, 6, 7)),
        ),
        ("outbox",),
        {"deepest": 1_000_000},
        quick={"deepest": 100_000},
    ),
    Workload(
        "W11b",
        "scatter: messages in 1,000 topics that one subscription reads",
        depth.scatter,
        (
            *_rate("outbox", "≥ 0.5"),
            Metric("idle_pull_us", "a pull that finds nothing, µs", "outbox", "< 2, or < 1 % of a core"),
            Metric("idle_consumer_percent", "idle worker, % of a core"),
            Metric("idle_postgres_percent", "Postgres for it, % of a core"),
        ),
        ("outbox", "outbox (1000 topics)"),
        {"messages": 50_000, "idle": 20.0},
        quick={"messages": 5_000, "idle": 2.0},
    ),
    Workload(
        "W12",
        "soak at half of W6's rate: retries, rotation, a transaction held for the second third of the time",
        soak.soak,
        (
            Metric("verdict", "held (1) or not (0)", goal="1"),
            _steady("rate", "messages/s"),
            _steady("p99_ms", "p99, ms"),
            _steady("worker_mb", "worker, MB", "flat"),
            _steady("log_mb", "tables of outbox, MB", "bounded"),
            _steady("postgres_percent", "Postgres, % of a core", "flat"),
            *_BOOKS,
        ),
        ("outbox",),
        {"minutes": 60.0, "rate": 0.0, "samples": ""},
        is_quick=False,
        most_rounds=1,
    ),
    Workload(
        "W15",
        "W12 in three minutes, with other settings of the small tables that turn over with every pull",
        soak.soak,
        (
            _steady("p99_ms", "p99, ms"),
            _steady("log_mb", "tables of outbox, MB"),
            _steady("postgres_percent", "Postgres, % of a core"),
            *_BOOKS,
        ),
        ("outbox", "outbox (common autovacuum)", "outbox (full pages)"),
        {"minutes": 3.0, "rate": 1_500.0, "samples": ""},
        is_quick=False,
        most_rounds=1,
    ),
    Workload(
        "W13",
        "rotation under full load: four publishers and a worker while a slot of the log is emptied each second",
        rotating.rotated,
        (
            Metric("p99_ratio", "p99 of a publish, with / without", goal="flat"),
            Metric("rate_ratio", "published/s, with / without", goal="flat"),
            Metric("p99_us_without", "p99 without, µs", end="p99_us_with"),
            Metric("max_us_without", "highest without, µs", end="max_us_with"),
            Metric("emptied", "slots emptied"),
        ),
        ("outbox",),
        {"seconds": 20.0},
        quick={"seconds": 4.0},
    ),
    Workload(
        "W14",
        "capture: transactions on a table whose changes are published, in turns with one whose are not",
        capturing.capture,
        tuple(
            Metric(f"{kind}_{number}{key}", f"{kind} {number}, {label}")
            for kind in ("insert", "update")
            for number in ("one", "many")
            for key, label in (("_us", "captured, µs a row"), ("_plain_us", "plain, µs a row"), ("_ratio", "ratio"))
        ),
        ("outbox",),
        {"transactions": 1_000, "bulks": 20},
        quick={"transactions": 300, "bulks": 5},
    ),
)

BY_NAME = {workload.name: workload for workload in WORKLOADS}
