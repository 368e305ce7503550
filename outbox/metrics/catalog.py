"""The words that Prometheus gets: what a metric is called, what it means, and which labels it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

Plain = CounterMetricFamily | GaugeMetricFamily
Family = Plain | HistogramMetricFamily

#: Seconds, for what takes a millisecond as well as for what takes an hour.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
#: Messages in a batch.
MESSAGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)

_PLAIN: dict[str, type[Plain]] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


@dataclass(frozen=True)
class Metric:
    """One metric. Its name ends with its unit; a counter's with `_total`."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"] = "gauge"
    labels: tuple[str, ...] = ()
    #: Upper bounds of a histogram's buckets, ascending; infinity is added.
    buckets: tuple[float, ...] = ()

    def family(self, samples: Iterable[tuple[Sequence[str], float]] = ()) -> Plain:
        """A counter or gauge, with samples: values of its labels, and a number."""
        family = _PLAIN[self.kind](self.name, self.help, labels=self.labels)
        for labels, value in samples:
            family.add_metric(list(labels), value)
        return family

    def histogram(self) -> HistogramMetricFamily:
        """A histogram without samples."""
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)

    @property
    def unit(self) -> str:
        """What its numbers count."""
        stem = self.name.removesuffix("_total")
        known = ("seconds", "bytes", "ratio", "messages", "rows", "info")
        return next((unit for unit in known if stem.endswith(f"_{unit}")), "")
