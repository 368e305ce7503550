"""How fast a backlog is handled and settled."""

from __future__ import annotations

from typing import Any

from tests.benchmark.competitors.competitor import Kind
from tests.benchmark.notes import missing
from tests.benchmark.rig import Consumers, Cost, Rig, RunFailed, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures


def drain(
    server: Server, competitor: str, messages: int, kind: Kind = "nothing", processes: int = 1, **work: Any
) -> Measures:
    """Messages a second, from the first that is handled to the last settlement; nothing is published meanwhile."""
    with prepared(server, competitor, messages) as rig:
        rig.fill(messages)
        return read(rig, messages, kind, processes, **work)


def drain_by_several(server: Server, competitor: str, messages: int, kind: Kind, processes: int) -> Measures:
    """Drain with several processes, and right before with one, to see what the others add."""
    one = drain(server, competitor, messages, kind)
    several = drain(server, competitor, messages, kind, processes)
    return {**several, "rate_of_one": one["rate"], "ratio_to_one": several["rate"] / one["rate"]}


def read(rig: Rig, messages: int, kind: Kind = "nothing", processes: int = 1, **work: Any) -> Measures:
    """Drain what a rig was filled with."""
    return read_by(rig, rig.consumers(kind, processes, **work), messages, effects=kind in ("effect", "effects"))


def read_by(rig: Rig, consumers: Consumers, messages: int, effects: bool = False) -> Measures:
    """Drain by consumers that wait for it; their start does not count, neither as time nor as cost."""
    consumers.begin()
    consumers.wait_until_handled(1)
    with consumers.measured() as cost:
        settled = consumers.wait_until_settled(messages)
    check_books(rig, consumers, messages, effects)
    seconds, doubled = settled - consumers.first / 1e9, consumers.handled - messages
    return {"rate": messages / seconds, "doubled": doubled, **per_message(cost, messages)}


def wait(server: Server, competitor: str, messages: int, concurrency: int, seconds: float, is_async: bool) -> Measures:
    """Drain with handlers that wait, many at once.

    Beside what they would reach if nothing else took any time, and what bare threads or a bare event loop reach.
    """
    waiting = {"concurrency": concurrency, "seconds": seconds, "is_async": is_async}
    with prepared(server, competitor, messages) as rig:
        bare = rig.run("only_wait", messages=messages // 5, **waiting)["rate"]
        rig.fill(messages)
        found = read(rig, messages, "wait", **waiting)
    ideal = concurrency / seconds
    return {"ideal_percent": 100 * found["rate"] / ideal, "bare_percent": 100 * bare / ideal, **found}


def check_books(rig: Rig, consumers: Consumers, messages: int, effects: bool) -> None:
    """Raise RunFailed unless each message was handled, and, if there are effects, each has one."""
    if lost := missing(consumers.notes, messages):
        raise RunFailed(f"{lost} of {messages} messages were lost")
    if effects:
        with rig.connect() as db:
            rows = db.execute("SELECT count(*), count(DISTINCT id) FROM effect").fetchone()
        if rows != (messages, messages):
            raise RunFailed(f"{messages} messages had {rows} effects and different ones")


def per_message(cost: Cost, messages: int) -> Measures:
    """Microseconds of processor time."""
    found = {"consumer_us": 1e6 * cost.consumers / messages}
    return found if cost.postgres is None else {**found, "postgres_us": 1e6 * cost.postgres / messages}
