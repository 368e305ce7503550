"""What publishers notice of a log that is rotated under them."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmark import load
from tests.benchmark.rig import Rig, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

#: Numbers that are kept free for each second: more than anybody publishes.
_FASTEST = 40_000
#: So wide that none changes; and so narrow that one is emptied every second.
_NEVER, _ALWAYS = "1 year", "1 second"


def rotated(server: Server, competitor: str, seconds: float) -> Measures:
    """Four publishers at full speed and a worker, first without rotation, then while a slot is emptied each second."""
    with prepared(server, competitor, 2 * int(seconds * _FASTEST)) as rig:
        consumers = rig.consumers("nothing")
        consumers.begin()
        found = _publish(rig, _NEVER, seconds, 0, "without")
        with _rotation(rig) as emptied:
            found |= _publish(rig, _ALWAYS, seconds, int(seconds * _FASTEST), "with")
        consumers.wait_until_settled()
    return {
        **found,
        "emptied": len(emptied),
        "p99_ratio": found["p99_us_with"] / found["p99_us_without"],
        "rate_ratio": found["rate_with"] / found["rate_without"],
    }


def _publish(rig: Rig, slot_width: str, seconds: float, start: int, phase: str) -> Measures:
    with rig.connect() as db:
        db.execute("UPDATE outbox.retention SET slot_width = %s::interval", (slot_width,))
    started = [
        rig.publisher("publish_at_full_speed", seconds=seconds, start=start + nth, step=load.PUBLISHERS)
        for nth in range(load.PUBLISHERS)
    ]
    load.begin(started)
    results = [publisher.result() for publisher in started]
    figures = {f"{key}_{phase}": statistics.median(one[key] for one in results) for key in ("p50_us", "p99_us")}
    highest = max(one["max_us"] for one in results)
    return {**figures, f"max_us_{phase}": highest, f"rate_{phase}": load.published(load.pages_of(started))["rate"]}


@contextmanager
def _rotation(rig: Rig) -> Iterator[list[int]]:
    """Rotates again and again, as fast as slots come due; the slots that it emptied."""
    emptied: list[int] = []
    over = threading.Event()

    def rotate() -> None:
        with rig.connect() as db:
            while not over.wait(0.1):
                rows = db.execute("SELECT slot, held_by FROM outbox.rotate()").fetchall()
                emptied.extend(slot for slot, held_by in rows if held_by is None)

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        yield emptied
    finally:
        over.set()
        thread.join()
