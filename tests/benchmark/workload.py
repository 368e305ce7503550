"""What a workload is: a function that measures one competitor once, and what its figures mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: key → figure; and under "series", if there is one, a list of samples, each a dict of figures.
Measures = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """One figure of a workload's."""

    key: str
    #: With its unit.
    label: str
    #: The competitor that the others are compared with, round by round.
    limit: str | None = None
    #: What outbox is to reach, in words.
    goal: str = ""
    #: Another figure, that this one became by the end.
    end: str | None = None


@dataclass(frozen=True)
class Workload:
    """A line of the table of workloads."""

    name: str
    title: str
    #: Takes the server, the competitor's name and the sizes; raises RunFailed.
    measure: Callable[..., Measures]
    metrics: tuple[Metric, ...]
    #: Who takes part if nobody is named; those that others are compared with come first.
    competitors: tuple[str, ...]
    #: Sizes of the full run; and what is different in a quick one.
    sizes: Mapping[str, Any]
    quick: Mapping[str, Any] = field(default_factory=dict)
    #: Takes part in the quick run?
    is_quick: bool = True
    #: Who takes part in the quick run; None: all but the peers.
    quick_competitors: tuple[str, ...] | None = None
    #: Rounds at most, unless rounds are asked for; None: as many as the others.
    most_rounds: int | None = None
