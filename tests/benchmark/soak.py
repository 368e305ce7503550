"""An hour at half of what it can do, with retries, rotation, and a transaction that is held for a third of the time."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from tests.benchmark import held, load, machine
from tests.benchmark.figures import percentile
from tests.benchmark.notes import ledger
from tests.benchmark.rig import Consumers, Rig, Role, prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

#: One message in so many fails at its first try.
_RETRIED = 100
#: Seconds between samples.
_PAUSE = 10.0
#: Seconds for which the speed is measured, half of which is the rate.
_TRIAL = 10.0
#: So that slots of the log are emptied again and again within the time.
_ROTATE_OFTEN = "UPDATE outbox.retention SET slot_width = interval '2 minutes'"
_LOG_BYTES = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'outbox'::regnamespace"

Sample = dict[str, float]


def soak(server: Server, competitor: str, minutes: float, rate: float = 0.0, samples: str = "") -> Measures:
    """Compare the first third, after a warm-up, with the last.

    Args:
        rate: messages a second; 0: half of what four publishers at full speed reach in a moment.
        samples: a file that gets each sample as a line of JSON, at once.
    """
    rate = rate or load.full_speed(server, competitor, _TRIAL)["rate"] / 2
    messages = int(60 * minutes * rate)
    with prepared(server, competitor, messages) as rig:
        with rig.connect() as db:
            db.execute(_ROTATE_OFTEN)
        consumers = rig.consumers("nothing", retry_one_in=_RETRIED)
        consumers.begin()
        publishers = load.steady(rig, messages, rate)
        load.begin(publishers)
        series = _watch(rig, Sampler(rig, consumers, publishers), 60 * minutes, samples)
        for publisher in publishers:
            publisher.result()
        consumers.wait_until_settled()
        books = ledger(load.pages_of(publishers), consumers.notes)
    found = compared(series)
    return {
        "verdict": int(is_steady(found) and books.lost == books.made_up == 0),
        "rate": rate,
        **found,
        "lost": books.lost,
        "doubled": books.doubled,
        "made_up": books.made_up,
        "series": series,
    }


def _watch(rig: Rig, sampler: Sampler, seconds: float, samples: str) -> list[dict[str, float]]:
    """A sample every ten seconds; in the second third of the time a transaction is held."""
    series: list[dict[str, float]] = []
    began = time.monotonic()
    with rig.connect() as db, psycopg.connect(rig.url) as holding:
        while (elapsed := time.monotonic() - began) < seconds - 1:
            is_held = seconds / 3 <= elapsed < 2 * seconds / 3
            _hold_or_let_go(holding, is_held)
            time.sleep(min(_PAUSE, seconds - elapsed))
            rig.check()
            series.append({"second": time.monotonic() - began, "held": is_held, **sampler.sample(db)})
            if samples:
                with Path(samples).open("a") as file:
                    file.write(json.dumps(series[-1]) + "\n")
    return series


def _hold_or_let_go(holding: psycopg.Connection[Any], is_held: bool) -> None:
    idle = holding.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if is_held and idle:
        held.hold(holding, "both")
    if not is_held and not idle:
        holding.rollback()


class Sampler:
    """Looks at what happened since it looked last."""

    def __init__(self, rig: Rig, consumers: Consumers, publishers: list[Role]) -> None:
        self._rig, self._consumers, self._published = rig, consumers, load.pages_of(publishers)
        #: For each publisher the number after the last that was looked at.
        self._next = [publisher.arguments["start"] for publisher in publishers]
        self._at, self._handled, self._cpu = time.monotonic(), 0, self._cpu_seconds()

    def sample(self, db: psycopg.Connection[Any]) -> Sample:
        now, handled, cpu = time.monotonic(), self._consumers.handled, self._cpu_seconds()
        wall = now - self._at
        times = self._latencies()
        found = {
            "rate": (handled - self._handled) / wall,
            "p50_ms": percentile(times, 50),
            "p99_ms": percentile(times, 99),
            "postgres_percent": 100 * (cpu - self._cpu) / wall,
            "worker_mb": sum(machine.resident_bytes(one.process.pid) for one in self._consumers.roles) / 2**20,
            "log_mb": held.scalar(db, _LOG_BYTES) / 2**20,
            "database_mb": held.scalar(db, "SELECT pg_database_size(current_database())") / 2**20,
            "dead_tuples": held.scalar(db, held.DEAD_TUPLES),
        }
        self._at, self._handled, self._cpu = now, handled, cpu
        return found

    def _latencies(self) -> list[float]:
        """Of messages that were committed since the last look; one that has not come yet counts with its age.

        Those that are tried again, on purpose, are left out.
        """
        found, handled, now = [], self._consumers.notes[0].times(), time.monotonic_ns()
        for nth, notes in enumerate(self._published):
            times = notes.times()
            number = self._next[nth]
            while number < len(times) and times[number]:  # they are published in order
                if number % _RETRIED:
                    found.append(max(0, (handled[number] or now) - times[number]) / 1e6)
                number += 1
            self._next[nth] = number
        return found

    def _cpu_seconds(self) -> float:
        return self._rig.server.cpu_seconds() or 0.0


def is_steady(found: Measures) -> bool:
    """No decay, the worker's memory flat, the log bounded."""
    return bool(
        found["rate_ratio"] > 0.95
        and found["p99_ms_ratio"] < 1.2
        and found["worker_mb_ratio"] < 1.1
        and found["log_mb_last"] < 1.1 * found["log_mb_middle"]
    )


def compared(series: Sequence[Sample]) -> Measures:
    """The last third beside the first third, without its first minute or, of a short run, its first half."""
    third = max(1, len(series) // 3)
    first, last = series[min(6, third // 2) : third], series[-third:]
    found: Measures = {}
    for key in ("rate", "p50_ms", "p99_ms", "postgres_percent", "worker_mb", "log_mb", "dead_tuples"):
        before, after = (statistics.median(sample[key] for sample in part) for part in (first, last))
        found |= {f"{key}_first": before, f"{key}_last": after}
        if before:
            found[f"{key}_ratio"] = after / before
    middle = max(sample["log_mb"] for sample in series[third : 2 * third] or series)
    return {**found, "log_mb_middle": middle, "log_mb_highest": max(sample["log_mb"] for sample in series)}
