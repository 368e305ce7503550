"""What a transaction a batch costs a Kafka relay: beside the idempotent producer, one after the other in one run.

python -m tests.benchmark.relayed_transactions      # Tansu; librdkafka's cluster, each answer after 5 ms
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from outbox.definitions import Relay
from tests.benchmark.relays import Kafka, database, fill, latencies, relayed
from tests.relay.brokers import Tansu
from tests.relay.mocked import MockCluster
from tests.relay.running import RelayProcess

ROUNDS = 3
#: Milliseconds that each answer of librdkafka's cluster takes.
ANSWER = 5


class Transactional(Kafka):
    """To a server that others use, too; each run has a topic of its own."""

    def __init__(self, server: Any, address: str, transactional: bool) -> None:
        self._shared, self.address, self._transactional = server, address, transactional
        super().__init__()

    def started(self) -> Any:
        return self._shared

    def relay(self) -> Relay:
        return msgspec.structs.replace(super().relay(), transactional=self._transactional)


def measure(peer: Transactional) -> tuple[float, list[float]]:
    """Messages a second; milliseconds from commit to arrival."""
    with database() as url, tempfile.TemporaryDirectory() as folder:
        fill(url, peer.messages)
        rate = asyncio.run(relayed(peer, url))
        relay = peer.relay()
        fields = (
            f'url = "{relay.url}"\naddress = "{relay.address}"\ntransactional = {str(relay.transactional).lower()}\n'
        )
        process = RelayProcess(url, Path(folder), f'[relays.bench]\nbindings = ["bench"]\n{fields}')
        try:
            process.wait_for_line("worker started")
            return rate, asyncio.run(latencies(peer, url))
        finally:
            process.kill()


def compare(what: str, server: Any) -> None:
    rates: dict[bool, list[float]] = {False: [], True: []}
    times: dict[bool, list[float]] = {False: [], True: []}
    for round in range(ROUNDS):
        for transactional in (False, True):
            rate, found = measure(Transactional(server, f"bench-{round}-{transactional}", transactional))
            rates[transactional].append(rate)
            times[transactional] += found
    plain, whole = (statistics.median(rates[kind]) for kind in (False, True))
    parts = [
        f"{statistics.median(times[k]):.1f} / {sorted(times[k])[int(len(times[k]) * 0.99)]:.1f}" for k in (False, True)
    ]
    print(f"| {what} | {plain:,.0f} | {whole:,.0f} | {whole / plain:.2f} | {parts[0]} | {parts[1]} |", flush=True)


def main() -> None:
    print("| broker | idempotent /s | transactional /s | ratio | p50 / p99 ms | transactional p50 / p99 ms |")
    print("|---|---|---|---|---|---|")
    tansu = Tansu()
    try:
        compare("Tansu", tansu)
    finally:
        tansu.remove()
    cluster = MockCluster()
    cluster.slow(ANSWER)
    try:
        compare(f"each answer takes {ANSWER} ms", cluster)
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
