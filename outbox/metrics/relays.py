"""What relays and sources of this process have come to, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from outbox.metrics.catalog import Metric
from outbox.relay.tally import BUCKETS, Tally, Verdict

_VERDICTS: tuple[Verdict, ...] = ("delivered", "retried", "rejected")

DELIVERED = Metric(
    "outbox_relay_delivered_total",
    "Messages by outcome: delivered; retried (refused for now, and an attempt is spent); rejected (for ever: a dead "
    "letter). A source's are those that it brought in.",
    "counter",
    ("relay", "outcome"),
)
DELIVERY = Metric(
    "outbox_relay_delivery_seconds",
    "Time until messages that went out together were all confirmed, or given up.",
    "histogram",
    ("relay",),
    BUCKETS,
)
CIRCUIT = Metric(
    "outbox_relay_circuit_open",
    "1 while nothing is delivered: the other side is away, or (a webhook that is gone) wants nothing any more.",
    labels=("relay",),
)

#: All that a process of `outbox relay` shows, in this order.
RELAY = (DELIVERED, DELIVERY, CIRCUIT)


class RelayCollector(Collector):
    """Reads tallies when it is asked, and keeps nothing."""

    def __init__(self, tallies: Callable[[], list[Tally]]) -> None:
        self._tallies = tallies

    def describe(self) -> list[Family]:
        """Nothing: registering must not need a relay that runs."""
        return []

    def collect(self) -> Iterator[Family]:
        tallies = self._tallies()
        yield DELIVERED.family(
            ((tally.name, verdict), tally.outcomes[verdict]) for tally in tallies for verdict in _VERDICTS
        )
        seconds, bounds = DELIVERY.histogram(), [*map(floatToGoString, BUCKETS), "+Inf"]
        for tally in tallies:
            counts = accumulate(tally.rounds.copy())
            seconds.add_metric([tally.name], list(zip(bounds, counts, strict=True)), tally.seconds)
        yield seconds
        yield CIRCUIT.family(([tally.name], tally.circuit.state != "closed") for tally in tallies)
