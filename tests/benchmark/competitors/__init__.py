"""Who takes part: each in a module of its own, imported only when it runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from tests.benchmark.competitors.competitor import Competitor

#: name in the tables → module of this package, and what makes the competitor there
_WHERE = {
    "outbox": ("outbox", "Ours"),
    "outbox (PgBouncer)": ("outbox", "behind_pgbouncer"),
    "outbox (one by one)": ("outbox", "one_by_one"),
    "outbox (pipeline)": ("outbox", "pipelined"),
    "outbox (common autovacuum)": ("outbox", "common_autovacuum"),
    "outbox (full pages)": ("outbox", "full_pages"),
    "outbox (4 partitions)": ("outbox", "four_partitions"),
    "outbox (1000 topics)": ("outbox", "thousand_topics"),
    "outbox (0 subscriptions)": ("outbox", "nobody"),
    "outbox (10 subscriptions)": ("outbox", "ten_subscriptions"),
    "outbox (100 subscriptions)": ("outbox", "hundred_subscriptions"),
    "plain INSERT": ("hand_written", "PlainInsert"),
    "keyset scan": ("hand_written", "KeysetScan"),
    "SKIP LOCKED": ("hand_written", "SkipLocked"),
}

#: Other products, and our broker for dramatiq beside its others: name in the tables → as above.
_PEERS = {
    "pgmq": ("pgmq", "Pgmq"),
    "PgQue": ("pgque", "PgQue"),
    "pgqueuer": ("pgqueuer", "PgQueuer"),
    "procrastinate": ("procrastinate", "Procrastinate"),
    "dramatiq on outbox": ("dramatiq_outbox", "DramatiqOutbox"),
    "dramatiq-postgres": ("dramatiq_postgres", "DramatiqPostgres"),
    "dramatiq on RabbitMQ": ("dramatiq_rabbitmq", "DramatiqRabbitMQ"),
}

PEERS = tuple(_PEERS)
NAMES = (*_WHERE, *PEERS)


def named(name: str) -> Competitor:
    """Make a competitor."""
    module, maker = {**_WHERE, **_PEERS}[name]
    make: Callable[[], Competitor] = getattr(importlib.import_module(f"{__name__}.{module}"), maker)
    return make()
