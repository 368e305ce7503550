"""Run workloads, competitors in turns round by round, and keep one record of each run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.benchmark import machine
from tests.benchmark.competitors import named
from tests.benchmark.server import Server
from tests.benchmark.workload import Workload

Record = dict[str, Any]
Tell = Callable[[str], None]

#: Messages that even the slowest gets.
_LEAST = 500


class Runs:
    """All runs of one call of the benchmark.

    Args:
        server: on which everybody is measured.
        keep: is given each record when its run has ended.
        tell: is given a line about what is going on.
    """

    def __init__(self, server: Server, keep: Callable[[Record], None], tell: Tell) -> None:
        self._server, self._keep, self._tell = server, keep, tell
        self._environment = {**machine.environment(), "postgres": server.settings()}

    def run(self, workload: Workload, competitors: Iterable[str], sizes: dict[str, Any], rounds: int) -> None:
        """Measure each competitor once a round: A B C, A B C."""
        able = [name for name in competitors if self._can_run(workload, name, sizes)]
        for round in range(rounds):
            for name in able:
                self._keep(self._run_once(workload, name, sizes, round))

    def _can_run(self, workload: Workload, name: str, sizes: dict[str, Any]) -> bool:
        competitor = named(name)
        if missing := competitor.missing():
            self._tell(f"{workload.name} {name}: left out, it needs {missing}")
            return False
        return "kind" not in sizes or sizes["kind"] in competitor.kinds

    def _run_once(self, workload: Workload, name: str, sizes: dict[str, Any], round: int) -> Record:
        sizes = _for_the_slow(sizes, named(name).share)
        noise, began, others = machine.noise(self._server.folder), time.monotonic(), self._others()
        record = {"workload": workload.name, "competitor": name, "round": round, "sizes": sizes, "noise": noise}
        try:
            measures = workload.measure(self._server, name, **sizes)
            record |= {"series": measures.pop("series", []), "measures": measures}
        except Exception as error:  # whatever it is, it must not end hours of measuring
            record["failed"] = f"{type(error).__name__}: {error}"
        took = time.monotonic() - began
        noise["others_percent"] = max(0.0, 100 * (self._others() - others) / took)
        self._tell(f"{workload.name} {name}, round {round + 1}: {took:.1f} s{_first_of(record)}")
        return {**record, "environment": self._environment}

    def _others(self) -> float:
        """Processor time of everybody but us and the server."""
        return machine.busy_seconds() - machine.own_seconds() - (self._server.cpu_seconds() or 0)


def _first_of(record: Record) -> str:
    """The figure that matters most, for whoever watches."""
    if "failed" in record:
        return f", FAILED: {record['failed']}"
    key, value = next(iter(record["measures"].items()))
    return f", {key} {value:,.2f}"


def _for_the_slow(sizes: dict[str, Any], share: float) -> dict[str, Any]:
    """Only a share of the messages; a rate is a rate all the same."""
    if share == 1 or "messages" not in sizes:
        return sizes
    return {**sizes, "messages": min(sizes["messages"], max(_LEAST, int(share * sizes["messages"])))}


def sizes_of(workload: Workload, is_quick: bool, given: Sequence[str] = ()) -> dict[str, Any]:
    """The workload's sizes, and what is different now; `given` are name=value, for workloads that have the name."""
    sizes = {**workload.sizes, **(workload.quick if is_quick else {})}
    for text in given:
        key, _, value = text.partition("=")
        if key in sizes:
            kind = type(sizes[key])
            sizes[key] = value if kind is str else kind(float(value))
    return sizes
