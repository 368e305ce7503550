"""From the return of COMMIT to the handler, when there is little to do; and what waiting costs."""

from __future__ import annotations

import time

from tests.benchmark import notes
from tests.benchmark.competitors.competitor import Kind, order
from tests.benchmark.draining import per_message
from tests.benchmark.figures import percentile
from tests.benchmark.rig import Consumers, Rig, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

#: The first messages are left out: connections plan their statements at their first call.
WARM_UP = 20


def at_rest(
    server: Server, competitor: str, probes: int, kind: Kind = "nothing", pause: float = 0.02, idle: float = 0.0
) -> Measures:
    """One message every so many seconds.

    Args:
        probes: messages.
        idle: seconds for which the consumers then have nothing to do, to see what that costs.
    """
    total = probes + WARM_UP
    with prepared(server, competitor, total + 1) as rig:
        consumers = rig.consumers(kind)
        begin_and_warm_up(rig, consumers, number=total)
        publisher = rig.publisher("publish_steadily", messages=total, rate=1 / pause)
        publisher.wait_until_ready()
        with consumers.measured() as cost:
            publisher.notes.begin()
            publisher.result()
            consumers.wait_until_settled(total + 1)
        arrived = notes.arrivals([publisher.notes], consumers.notes)
        found = [arrival.latency for arrival in arrived if WARM_UP <= arrival.number < total]
        more = idle_cost(consumers, idle) if idle else {}
    figures = {"p50_ms": percentile(found, 50), "p99_ms": percentile(found, 99), "max_ms": max(found)}
    return {**figures, **per_message(cost, total), **more}


def begin_and_warm_up(rig: Rig, consumers: Consumers, number: int) -> None:
    """Let consumers begin, and wait until they handle a first message, of this number."""
    consumers.begin()
    with rig.competitor.publisher(rig.url) as publisher:
        publisher.in_transaction(order(number))
    consumers.wait_until_settled(1)


def idle_cost(consumers: Consumers, seconds: float) -> Measures:
    """Percent of a core that consumers with nothing to do take, and Postgres for them."""
    time.sleep(seconds / 2)  # they come to rest
    with consumers.measured() as cost:
        time.sleep(seconds)
    found = {"idle_consumer_percent": 100 * cost.consumers / cost.wall}
    return found if cost.postgres is None else {**found, "idle_postgres_percent": 100 * cost.postgres / cost.wall}
