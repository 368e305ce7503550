"""Medians, percentiles and ratios: the little statistics that the benchmark needs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A measure over several rounds."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of all are not above (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ratios(values: dict[int, float], against: dict[int, float]) -> list[float]:
    """Value by value of the same round; rounds that one of them lacks are left out."""
    return [value / against[round] for round, value in values.items() if against.get(round)]
