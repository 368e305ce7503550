"""Many subscriptions on one topic: what publishing costs then, and how fast they read."""

from __future__ import annotations

import statistics

from tests.benchmark.competitors.outbox import Ours
from tests.benchmark.draining import check_books, read
from tests.benchmark.rig import Rig, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures


def fan_out(server: Server, competitor: str, messages: int, singles: int) -> Measures:
    """Publish in bulk, let one subscription, if any, read it, then publish one by one while nobody reads."""
    with prepared(server, competitor, messages) as rig:
        bulk = rig.fill(messages)
        found = read(rig, messages) if _subscriptions(rig) else {}
        rig.close()
        one_by_one = rig.run("publish_in_bulk", messages=singles, size=1)["seconds"]
    return {
        "publish_us": 1e6 * statistics.median(one_by_one),
        "bulk_us": 1e6 * sum(bulk) / messages,
        **found,
    }


def all_at_once(server: Server, competitor: str, messages: int) -> Measures:
    """All subscriptions read the same messages, each by a process of its own: deliveries a second of all together."""
    with prepared(server, competitor, messages) as rig:
        rig.fill(messages)
        readers = [rig.consumers("nothing", reader=number) for number in range(_subscriptions(rig))]
        for reader in readers:
            reader.begin()
        for reader in readers:
            reader.wait_until_handled(messages)
            check_books(rig, reader, messages, effects=False)
        first, last = min(one.first for one in readers), max(one.notes[0].last for one in readers)
    return {"rate": 1e9 * messages * len(readers) / (last - first)}


def _subscriptions(rig: Rig) -> int:
    assert isinstance(rig.competitor, Ours)
    return rig.competitor.subscriptions
