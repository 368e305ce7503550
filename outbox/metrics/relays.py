"""What relays and sources of this process have come to, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox.relay.tally import BUCKETS, Tally, Verdict

_VERDICTS: tuple[Verdict, ...] = ("delivered", "retried", "rejected")


class RelayCollector(Collector):
    """Reads tallies when it is asked, and keeps nothing."""

    def __init__(self, tallies: Callable[[], list[Tally]]) -> None:
        self._tallies = tallies

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        delivered = CounterMetricFamily(
            "outbox_relay_delivered_total", "Messages by what became of them.", labels=("relay", "outcome")
        )
        seconds = HistogramMetricFamily(
            "outbox_relay_delivery_seconds", "How long messages that went out together took.", labels=("relay",)
        )
        circuit = GaugeMetricFamily(
            "outbox_relay_circuit_open", "1 while nothing is delivered: the other side is away.", labels=("relay",)
        )
        for tally in self._tallies():
            for verdict in _VERDICTS:
                delivered.add_metric([tally.name, verdict], tally.outcomes[verdict])
            counts = zip((*map(str, BUCKETS), "+Inf"), accumulate(tally.rounds), strict=True)
            seconds.add_metric([tally.name], list(counts), tally.seconds)
            circuit.add_metric([tally.name], tally.circuit.state != "closed")
        yield from (delivered, seconds, circuit)
