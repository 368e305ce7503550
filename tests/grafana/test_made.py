"""What is made of code and committed is what the code makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from grafana.__main__ import made
from grafana.alerts import ALERTS
from grafana.dashboards import PAGES, expressions
from grafana.timing import Timing
from outbox.metrics.children import PROCESS_UP
from outbox.metrics.readings import DATABASE
from outbox.metrics.relays import RELAY
from outbox.metrics.worker import WORKER
from tests.shop_floor import ROOT, outbox

METRICS = (*DATABASE, *WORKER, *RELAY, PROCESS_UP)


@pytest.mark.parametrize("path", made(), ids=lambda path: path.name)
def test_a_file_that_is_made_is_current(path: Path) -> None:
    assert path.read_text() == made()[path], "python -m grafana makes it anew"


def test_every_metric_that_is_asked_for_exists() -> None:
    series = {metric.name for metric in METRICS}
    for metric in METRICS:
        if metric.kind == "histogram":
            series |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    text = " ".join([*(expr for *_, expr in expressions()), *(alert.expr(Timing()) for alert in ALERTS)])
    assert set(re.findall(r"\boutbox_[a-z_]+", text)) - series == set()


def test_every_panel_says_what_it_is_and_what_to_do() -> None:
    for page in PAGES.values():
        for panels in page.rows.values():
            for panel in panels:
                assert len(panel.description) > 20, panel.title
                red = panel.red is not None
                assert not red or re.search(r"Red|0:|1:|Above 0", panel.description), f"{panel.title}: what to do "
                "when it is red?"


def test_a_dashboard_has_ids_units_variables_and_annotations() -> None:
    for name in PAGES:
        board = json.loads((ROOT / "grafana" / "dashboards" / f"{name}.json").read_text())
        assert board["uid"] == f"outbox-{name}"
        assert "datasource" in {variable["name"] for variable in board["templating"]["list"]}
        assert {one["name"] for one in board["annotations"]["list"]} == {"Deploys", "Pauses", "Seeks back"}
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)


def test_every_alert_says_what_to_do() -> None:
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)
    assert all(alert.steps and alert.meaning.endswith(".") for alert in ALERTS)


def test_every_command_that_is_named_exists() -> None:
    text = "".join(
        path.read_text() for path in (ROOT / "grafana").rglob("*") if path.suffix in (".md", ".yml", ".json")
    )
    for command in sorted(set(re.findall(r"`outbox ([a-z]+(?: [a-z]+)?)\b", text))):
        first, _, second = command.partition(" ")
        words = [first, second] if first in ("dead", "subscriptions", "retention", "scheduled") and second else [first]
        assert outbox("", *words, "--help").returncode == 0, command


@pytest.mark.parametrize("path", sorted((ROOT / "grafana").rglob("*.y*ml")), ids=lambda path: path.name)
def test_what_is_yaml_can_be_read(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text()))
