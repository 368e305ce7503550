"""Charts of what was measured, from a file of JSON lines.

    python -m tests.benchmark.charts FILE [FOLDER]

Axes begin at zero; a bar is the median, its whisker goes from the lowest to the highest round.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # needs no screen; before pyplot is imported

from matplotlib import pyplot, ticker
from matplotlib.axes import Axes

from tests.benchmark import report
from tests.benchmark.competitors import PEERS
from tests.benchmark.figures import spread
from tests.benchmark.runs import Record
from tests.benchmark.workloads import BY_NAME

FOLDER = Path(__file__).parent / "charts"
_OURS, _HAND_WRITTEN, _PEERS = "#1f6f8b", "#9a9a9a", "#d98e04"
#: For lines of others, one after the other.
_OTHERS = ("#9a9a9a", "#d98e04", "#a23b72", "#5a8f29", "#7f5539", "#c44536", "#5e548e")
_INCH, _DPI = 0.32, 110


@dataclass(frozen=True)
class Bars:
    """One figure of each competitor's."""

    file: str
    workload: str
    metric: str
    label: str
    #: Is more better?
    more: bool = True


@dataclass(frozen=True)
class Lines:
    """Figures over time, one below the other."""

    file: str
    workload: str
    #: key in the samples → label
    figures: tuple[tuple[str, str], ...]


_RATE = "messages a second"
_STEADY = (("p99_ms", "p99, ms"), ("rate", _RATE), ("postgres_percent", "Postgres, % of a core"))
BARS = (
    Bars("w1-transaction", "W1", "ratio_to_insert", "× a transaction with a plain INSERT", more=False),
    Bars("w2-bulk", "W2", "rate", _RATE),
    Bars("w3-drain", "W3", "rate", _RATE),
    Bars("w3x2-drain-by-two", "W3x2", "rate", _RATE),
    Bars("w3x4-drain-by-four", "W3x4", "rate", _RATE),
    Bars("w4-effect", "W4", "rate", _RATE),
    Bars("w4-effects", "W4-100", "rate", _RATE),
    Bars("w5-latency-p50", "W5", "p50_ms", "p50, ms", more=False),
    Bars("w5-latency-p99", "W5", "p99_ms", "p99, ms", more=False),
    Bars("w6-publishers", "W6", "rate", "transactions a second of four publishers"),
    Bars("w6-latency-p99", "W6", "p99_ms", "p99, ms", more=False),
    Bars("w8-wal", "W8", "wal_bytes", "bytes of WAL a message", more=False),
    Bars("w10-fan-out", "W10", "rate", "messages a second of one reader"),
)
LINES = (
    Lines("w7a-held-snapshot", "W7a", _STEADY),
    Lines("w7b-held-xid", "W7b", _STEADY),
    Lines(
        "w12-soak",
        "W12",
        (*_STEADY, ("worker_mb", "memory of the worker, MB"), ("log_mb", "tables of outbox, MB")),
    ),
)


def draw(records: list[Record], folder: Path) -> list[Path]:
    """Draw what there are records of; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = {workload.name: found for workload, found in report.by_workload(records)}
    drawn = [_bars(chart, measured[chart.workload], folder) for chart in BARS if chart.workload in measured]
    return drawn + [_lines(chart, measured[chart.workload], folder) for chart in LINES if chart.workload in measured]


def _bars(chart: Bars, records: list[Record], folder: Path) -> Path:
    names = [name for name in _names(records) if report.by_round(records, name, chart.metric)]
    figures = [spread(list(report.by_round(records, name, chart.metric).values())) for name in names]
    figure, axes = pyplot.subplots(figsize=(7, 1.1 + _INCH * len(names)))
    medians = [one.median for one in figures]
    whiskers = [[one.median - one.lowest for one in figures], [one.highest - one.median for one in figures]]
    axes.barh(names, medians, xerr=whiskers, color=[_colour(name) for name in names], height=0.7, ecolor="#444444")
    for nth, one in enumerate(figures):
        axes.text(one.highest, nth, f"  {report.number(one.median)}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(one.highest for one in figures))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,g}"))
    axes.set_xlabel(f"{chart.label} ({'more' if chart.more else 'less'} is better)", fontsize=8)
    return _finish(figure, [axes], chart, folder)


def _lines(chart: Lines, records: list[Record], folder: Path) -> Path:
    figure, found = pyplot.subplots(len(chart.figures), 1, figsize=(7, 1.7 * len(chart.figures)), sharex=True)
    for axes, (key, label) in zip(found, chart.figures, strict=True):
        others = iter(_OTHERS)
        for name in _names(records):
            series = next(record["series"] for record in records if record["competitor"] == name)
            minutes = [sample["second"] / 60 for sample in series]
            colour = _OURS if name.startswith("outbox") else next(others)
            axes.plot(minutes, [sample[key] for sample in series], label=name, marker=".", color=colour)
        _shade(axes, records[0]["series"])
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.set_ylabel(label, fontsize=8)
    found[0].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    found[-1].set_xlabel("minutes", fontsize=8)
    return _finish(figure, list(found), chart, folder)


def _shade(axes: Axes, series: Sequence[dict[str, Any]]) -> None:
    """Where a transaction was held, if not all the time: a sample is about the time before it."""
    held = [nth for nth, sample in enumerate(series) if sample.get("held")]
    if held:
        axes.axvspan(series[max(0, held[0] - 1)]["second"] / 60, series[held[-1]]["second"] / 60, color="#eeeeee")


def _finish(figure: Any, axes: Sequence[Axes], chart: Bars | Lines, folder: Path) -> Path:
    for one in axes:
        one.tick_params(labelsize=8)
        one.spines[["top", "right"]].set_visible(False)
    axes[0].set_title(BY_NAME[chart.workload].title, fontsize=9, loc="left")
    path = folder / f"{chart.file}.png"
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)
    return path


def _names(records: list[Record]) -> list[str]:
    return list(dict.fromkeys(record["competitor"] for record in records))


def _colour(name: str) -> str:
    if name.startswith("outbox"):
        return _OURS
    return _PEERS if name in PEERS else _HAND_WRITTEN


if __name__ == "__main__":
    for path in draw(report.read(Path(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER):
        print(path)
