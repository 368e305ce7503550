"""Try a competitor on a small scale: does it deliver all, each once, and end in order?

python -m tests.benchmark.competitors.check NAME …
"""

from __future__ import annotations

import sys
import time

from tests.benchmark.competitors import named
from tests.benchmark.competitors.competitor import Kind
from tests.benchmark.draining import check_books
from tests.benchmark.rig import Consumers, Rig, prepared
from tests.benchmark.server import Server, start

_MANY, _SINGLE, _ROLLED_BACK = 1_000, 100, 10


def check(server: Server, name: str, kind: Kind, processes: int) -> None:
    """Publish in bulk, in transactions, and in some that are rolled back; then consume."""
    published = _MANY + _SINGLE
    with prepared(server, name, published + _ROLLED_BACK) as rig:
        bulk_rate = _MANY / sum(rig.fill(_MANY))
        _publish(rig, start=_MANY, messages=_SINGLE)
        _publish(rig, start=published, messages=_ROLLED_BACK, rolled_back=1.0)
        assert rig.competitor.remaining(rig.url)

        consumers = rig.consumers(kind, processes, concurrency=50 if kind == "wait" else 1, seconds=0.01)
        began = time.monotonic()
        consumers.begin()
        rate = published / (consumers.wait_until_settled(published) - began)
        check_books(rig, consumers, published, effects=kind.startswith("effect"))
        assert consumers.handled == published
        _end(consumers)
    print(f"{name:22}{kind:9}{processes}  {bulk_rate:8,.0f}/s published, {rate:8,.0f}/s consumed")


def _publish(rig: Rig, **what: float) -> None:
    publisher = rig.publisher("publish_steadily", rate=1e6, **what)
    publisher.wait_until_ready()
    assert publisher.notes is not None
    publisher.notes.begin()
    publisher.result()


def _end(consumers: Consumers) -> None:
    for role in consumers.roles:
        role.stop()
        assert role.process.returncode == 0, f"ended with {role.process.returncode}:\n{role.log}"


def main() -> None:
    with start(None) as server:
        for name in sys.argv[1:]:
            competitor = named(name)
            if missing := competitor.missing():
                sys.exit(f"{name} is missing: {missing}")
            for kind in sorted(competitor.kinds):
                for processes in (1, 2):
                    check(server, name, kind, processes)


if __name__ == "__main__":
    main()
