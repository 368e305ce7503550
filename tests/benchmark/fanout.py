"""Many subscriptions on one topic: what publishing costs then, and how fast one of them reads."""

from __future__ import annotations

import statistics

from tests.benchmark.draining import read
from tests.benchmark.rig import prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures


def fan_out(server: Server, competitor: str, messages: int, singles: int) -> Measures:
    """Publish in bulk, let one subscription read it, then publish one by one while nobody reads."""
    with prepared(server, competitor, messages) as rig:
        bulk = rig.fill(messages)
        found = read(rig, messages)
        rig.close()
        one_by_one = rig.run("publish_in_bulk", messages=singles, size=1)["seconds"]
    return {
        "publish_us": 1e6 * statistics.median(one_by_one),
        "bulk_us": 1e6 * sum(bulk) / messages,
        **found,
    }
