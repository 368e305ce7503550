"""The table of all metrics in README.md, between two marks."""

from __future__ import annotations

from outbox.metrics.catalog import Metric
from outbox.metrics.children import PROCESS_UP
from outbox.metrics.readings import DATABASE
from outbox.metrics.relays import RELAY
from outbox.metrics.worker import WORKER

_BEGIN, _END = "<!-- metrics: made by `python -m grafana` -->\n", "<!-- end of metrics -->\n"

_SHOWN = {
    "outbox exporter": DATABASE,
    "outbox worker --metrics": (*WORKER, PROCESS_UP),
    "outbox relay --metrics": (*RELAY, PROCESS_UP),
}


def with_tables(text: str) -> str:
    """The README with tables of what there is now."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin + end == _BEGIN + _END, "grafana/README.md has lost the marks between which the tables stand"
    chapters = "\n".join(f"### Of `{command}`\n\n{_table(metrics)}" for command, metrics in _SHOWN.items())
    return f"{before}{_BEGIN}\n{chapters}\n{_END}{after}"


def _table(metrics: tuple[Metric, ...]) -> str:
    rows = (
        f"| `{metric.name}` | {metric.kind} | {metric.unit} | {', '.join(metric.labels)} | {metric.help} |\n"
        for metric in metrics
    )
    return "| metric | kind | unit | labels | |\n|---|---|---|---|---|\n" + "".join(rows)
