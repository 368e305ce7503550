"""Publishers at full speed, and whoever consumes beside them."""

from __future__ import annotations

from typing import Any

from tests.benchmark.draining import per_message
from tests.benchmark.figures import percentile
from tests.benchmark.notes import Arrival, Notes, arrivals, ledger, merged
from tests.benchmark.rig import Consumers, Rig, Role, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

PUBLISHERS = 4
#: Numbers that are kept free for each second: more than anybody publishes.
_FASTEST = 40_000
#: Seconds until processes have warmed up.
_WARM_UP = 1.0
#: Seconds after the last COMMIT when what has not been handled is a backlog, and not just on its way.
_ON_ITS_WAY = 0.1


def full_speed(server: Server, competitor: str, seconds: float, publishers: int = PUBLISHERS) -> Measures:
    """How fast they publish, what of it is left when they stop, and how long messages took.

    A competitor that can't consume only publishes.
    """
    with prepared(server, competitor, int(seconds * _FASTEST)) as rig:
        consumers = rig.consumers("nothing", processes=1 if rig.competitor.kinds else 0)
        consumers.begin()
        started = [
            rig.publisher("publish_at_full_speed", seconds=seconds, start=nth, step=publishers)
            for nth in range(publishers)
        ]
        for publisher in started:
            publisher.wait_until_ready()
        with consumers.measured() as cost:
            begin(started)
            for publisher in started:
                publisher.result()
        pages = pages_of(started)
        found = published(pages)
        messages = sum(notes.done for notes in pages)
        if consumers.roles:
            found |= arrived(pages, consumers)
    return {**found, **per_message(cost, messages)}


def begin(publishers: list[Role]) -> None:
    """Let publishers begin together, when all are ready."""
    for publisher in publishers:
        publisher.wait_until_ready()
    for publisher in publishers:
        publisher.notes.begin()


def steady(rig: Rig, messages: int, rate: float, **more: Any) -> list[Role]:
    """Start publishers that share the messages and the rate; each has numbers of its own, one after the other."""
    each = messages // PUBLISHERS
    return [
        rig.publisher("publish_steadily", start=nth * each, messages=each, rate=rate / PUBLISHERS, **more)
        for nth in range(PUBLISHERS)
    ]


def pages_of(roles: list[Role]) -> list[Notes]:
    return [role.notes for role in roles]


def published(pages: list[Notes]) -> Measures:
    """Transactions a second, from the first COMMIT to the last."""
    first, last = min(notes.first for notes in pages), max(notes.last for notes in pages)
    return {"rate": 1e9 * sum(notes.done for notes in pages) / (last - first)}


def arrived(pages: list[Notes], consumers: Consumers) -> Measures:
    """Whether all came, how soon, and what was left when the publishers stopped; waits until all is settled."""
    consumers.wait_until_settled()
    end = max(notes.last for notes in pages) + _ON_ITS_WAY * 1e9
    begun = min(notes.first for notes in pages) + _WARM_UP * 1e9
    found = arrivals(pages, consumers.notes)
    books = ledger(pages, consumers.notes)
    late = sum(1 for at in merged(consumers.notes) if at > end)
    return {
        **latencies([arrival for arrival in found if arrival.committed > begun]),
        "backlog": late,
        "lost": books.lost,
        "doubled": books.doubled,
        "made_up": books.made_up,
    }


def latencies(found: list[Arrival]) -> Measures:
    times = [arrival.latency for arrival in found]
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99), "max_ms": max(times, default=0)}
