"""A histogram that one thread fills, without a lock, and others read."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Histogram:
    """Counts values between bounds.

    Args:
        bounds: ascending; what is above the last counts, too.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value so many times; 0 or more."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def into(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        """Show what there is, as one series; a value that is added meanwhile is in it or not."""
        sums = list(accumulate(self._counts.copy()))
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, sums, strict=True)), self._sum)
