"""Durations as rules and panels write them; a test that has no hours makes them all shorter by one factor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Args: scale: 1 for what is delivered."""

    scale: float = 1.0

    def of(self, seconds: float) -> str:
        """A duration of PromQL: 5m."""
        milliseconds = round(seconds * self.scale * 1000)
        for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
            if milliseconds % size == 0 and milliseconds:
                return f"{milliseconds // size}{unit}"
        return f"{milliseconds}ms"

    def bucket(self, seconds: float) -> str:
        """A bound of a histogram's buckets, as its label has it."""
        return repr(float(seconds * self.scale))

    def seconds(self, seconds: float) -> str:
        """A number of seconds to compare with."""
        return f"{seconds * self.scale:g}"
