"""Measure outbox beside hand-written loops and its peers.

    python -m tests.benchmark [WORKLOAD …] [--quick] [--rounds N] [--competitors A,B] [--jsonl FILE] [--minutes N]
    python -m tests.benchmark --from FILE [--markdown]

Read the ratios of one run: the numbers are those of the machine.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmark import competitors, report, server
from tests.benchmark.runs import Record, Runs, sizes_of
from tests.benchmark.workload import Workload
from tests.benchmark.workloads import BY_NAME, WORKLOADS

_ROUNDS, _QUICK_ROUNDS = 5, 1


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: whatever was started is stopped
    chosen = _arguments().parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=180)
    if chosen.list:
        for workload in WORKLOADS:
            console.print(f"{workload.name:8}{workload.title}", highlight=False)
    elif chosen.read:
        _show(report.read(chosen.read), console, chosen.markdown)
    else:
        records = _measure(chosen, console)
        _show(records, console, chosen.markdown)
        return int(any("failed" in record for record in records))
    return 0


def _measure(chosen: argparse.Namespace, console: Console) -> list[Record]:
    records: list[Record] = []

    def keep(record: Record) -> None:
        records.append(record)
        if chosen.jsonl:
            with open(chosen.jsonl, "a") as file:
                file.write(json.dumps(record) + "\n")

    with server.start(chosen.database_url) as started:
        runs = Runs(started, keep, lambda line: console.print(line, style="dim", markup=False, highlight=False))
        for workload in _workloads(chosen):
            runs.run(workload, _competitors(chosen, workload), _sizes(chosen, workload), _rounds(chosen, workload))
    return records


def _show(records: list[Record], console: Console, as_markdown: bool) -> None:
    if as_markdown:
        print(report.markdown(records))
    else:
        report.print_tables(records, console)


def _workloads(chosen: argparse.Namespace) -> list[Workload]:
    if chosen.workloads:
        return [BY_NAME[name] for name in chosen.workloads]
    return [workload for workload in WORKLOADS if workload.is_quick or not chosen.quick]


def _competitors(chosen: argparse.Namespace, workload: Workload) -> list[str]:
    """Those that are named, of those that take part."""
    if chosen.competitors:
        asked = [name.strip() for name in chosen.competitors.split(",")]
        return [name for name in workload.competitors if name in asked]
    if chosen.quick:
        without_peers = [name for name in workload.competitors if name not in competitors.PEERS]
        return list(workload.quick_competitors or without_peers)
    return list(workload.competitors)


def _sizes(chosen: argparse.Namespace, workload: Workload) -> dict[str, Any]:
    given = list(chosen.set)
    if chosen.minutes:
        given += [f"minutes={chosen.minutes}"]
    if chosen.jsonl:
        given += [f"samples={chosen.jsonl}.samples"]
    return sizes_of(workload, chosen.quick, given)


def _rounds(chosen: argparse.Namespace, workload: Workload) -> int:
    if chosen.rounds:
        return int(chosen.rounds)
    return min(_QUICK_ROUNDS if chosen.quick else _ROUNDS, workload.most_rounds or _ROUNDS)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description="Measure outbox beside others.")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", choices=[*BY_NAME, []], help="see --list")
    parser.add_argument("--quick", action="store_true", help="two minutes: small sizes, no peers")
    parser.add_argument("--rounds", type=int, help=f"default: {_ROUNDS}, quick {_QUICK_ROUNDS}")
    parser.add_argument(
        "--competitors", help="names, as in the tables, with a comma between two; default: all that take part"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SIZE=VALUE", help="another size, for the workloads that have it"
    )
    parser.add_argument("--minutes", type=float, help="of the soak; default: 60")
    parser.add_argument("--database-url", help="of a user that may create databases; default: a server of our own")
    parser.add_argument("--jsonl", type=Path, help="append a line for each run to this file")
    parser.add_argument("--from", dest="read", type=Path, metavar="JSONL", help="measure nothing: show these runs")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--list", action="store_true", help="list the workloads")
    return parser


if __name__ == "__main__":
    sys.exit(main())
