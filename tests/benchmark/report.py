"""Tables of what was measured: for the terminal, and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmark.figures import Spread, ratios, spread
from tests.benchmark.runs import Record
from tests.benchmark.workload import Metric, Workload
from tests.benchmark.workloads import WORKLOADS

_NOISE = "noise: CPU ms, fsync ms, others' %"


def read(path: Path) -> list[Record]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def conditions(records: list[Record]) -> str:
    """Where and when all this was measured; a line for each place and day."""
    found = {}
    for record in records:
        place = record.get("environment", {})
        postgres = place.get("postgres", {})
        parts = [f"Python {place.get('python')}", f"PostgreSQL {postgres.get('server_version')}"]
        parts += [f"{place.get('cores')} cores, {place.get('memory_gb')} GB", f"commit {place.get('commit')}"]
        parts += [str(place.get("date", ""))[:10]]
        parts += [f"{name} {version}" for name, version in place.get("packages", {}).items()]
        found[", ".join(parts)] = None
    return "\n".join(found)


def print_tables(records: list[Record], console: Console) -> None:
    console.print(conditions(records), style="dim", highlight=False, markup=False)
    for workload, of_workload in by_workload(records):
        table = Table(title=_title(workload, of_workload), title_justify="left", title_style="bold", show_lines=True)
        head, *rows = _grid(workload, of_workload)
        for nth, cell in enumerate(head):
            table.add_column(cell, justify="right" if nth else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        if goals := _goals(workload):
            console.print(f"goals of outbox: {goals}", style="dim", highlight=False, markup=False)
        console.print()
    for line in failures(records):
        console.print(line, style="red", markup=False)


def markdown(records: list[Record]) -> str:
    parts = [f"{conditions(records)}\n"]
    for workload, of_workload in by_workload(records):
        head, *rows = [[cell.replace("\n", "<br>") for cell in row] for row in _grid(workload, of_workload)]
        rule = ["---"] + ["---:"] * (len(head) - 1)
        table = "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
        parts.append(f"### {_title(workload, of_workload)}\n\n{table}\n")
        if goals := _goals(workload):
            parts.append(f"Goals of outbox: {goals}.\n")
    return "\n".join([*parts, *failures(records)])


def failures(records: list[Record]) -> Iterator[str]:
    """Runs that came to nothing, and runs in which messages came to nothing."""
    for record in records:
        where = f"{record['workload']} {record['competitor']}, round {record['round'] + 1}"
        if "failed" in record:
            yield f"{where}: {record['failed'].splitlines()[0]}"
        for books in ("lost", "doubled", "made_up"):
            if count := record.get("measures", {}).get(books):
                yield f"{where}: {count:,.0f} messages {books.replace('_', ' ')}"


def by_workload(records: list[Record]) -> Iterator[tuple[Workload, list[Record]]]:
    """In the order of the table of workloads, those that came to something."""
    for workload in WORKLOADS:
        if found := [record for record in records if record["workload"] == workload.name and "measures" in record]:
            yield workload, found


def by_round(records: Iterable[Record], competitor: str | None, key: str) -> dict[int, float]:
    """A figure of one competitor's, in each round that has it."""
    return {
        record["round"]: record["measures"][key]
        for record in records
        if record["competitor"] == competitor and key in record["measures"]
    }


def number(value: float) -> str:
    """Three figures or so."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _title(workload: Workload, records: list[Record]) -> str:
    rounds = 1 + max(record["round"] for record in records)
    return f"{workload.name}: {workload.title}" + (f" ({rounds} rounds: lowest – highest)" if rounds > 1 else "")


def _grid(workload: Workload, records: list[Record]) -> Iterator[list[str]]:
    """A head, and a row for each competitor; only the figures that somebody has."""
    names = list(dict.fromkeys(record["competitor"] for record in records))
    metrics = [metric for metric in workload.metrics if any(by_round(records, name, metric.key) for name in names)]
    yield ["", *(metric.label for metric in metrics), _NOISE]
    for name in names:
        yield [_shown(records, name), *(_cell(records, name, metric) for metric in metrics), _noise(records, name)]


def _shown(records: list[Record], name: str) -> str:
    """Its name; and how many messages it had, if others had more."""
    had, most = (
        max(record["sizes"].get("messages", 0) for record in records if who in (None, record["competitor"]))
        for who in (name, None)
    )
    return name if had == most else f"{name}\n({had:,} messages)"


def _cell(records: list[Record], name: str, metric: Metric) -> str:
    """The median, its spread, and how it compares with the limit of the same round."""
    values = by_round(records, name, metric.key)
    if not values:
        return ""
    lines = [_with_spread(spread(list(values.values())))]
    if metric.end:
        lines.append(f"→ {_with_spread(spread(list(by_round(records, name, metric.end).values())))}")
    if metric.limit != name and (compared := ratios(values, by_round(records, metric.limit, metric.key))):
        lines.append(f"× {_with_spread(spread(compared))}")
    return "\n".join(lines)


def _with_spread(found: Spread) -> str:
    if found.lowest == found.highest:
        return number(found.median)
    return f"{number(found.median)}\n({number(found.lowest)} – {number(found.highest)})"


def _noise(records: list[Record], name: str) -> str:
    probes = [record["noise"] for record in records if record["competitor"] == name]
    kinds = ("cpu_ms", "fsync_ms", "others_percent")
    cpu, fsync, others = (spread([probe[kind] for probe in probes]).median for kind in kinds)
    return f"{cpu:.1f}, {fsync:.2f}, {others:.0f}"


def _goals(workload: Workload) -> str:
    found = []
    for metric in workload.metrics:
        if metric.goal:
            against = f" ({metric.limit})" if metric.limit else ""
            found.append(f"{metric.label} {metric.goal}{against}")
    return "; ".join(found)
