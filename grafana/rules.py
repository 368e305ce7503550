"""The alerts as Prometheus reads them, and as people do."""

from __future__ import annotations

from typing import Any

import yaml

from grafana.alerts import ALERTS, Alert
from grafana.timing import Timing

_MADE = "# Made by `python -m grafana` of grafana/alerts.py.\n"


def rules(timing: Timing) -> dict[str, Any]:
    """A rule file, with all durations by the timing."""
    return {"groups": [{"name": "outbox", "rules": [_rule(alert, timing) for alert in ALERTS]}]}


def yaml_text(timing: Timing | None = None) -> str:
    """The file."""
    return _MADE + yaml.safe_dump(rules(timing or Timing()), sort_keys=False, allow_unicode=True, width=110)


def runbook() -> str:
    """What each alert means, and what to do."""
    made = "<!-- Made by `python -m grafana` of grafana/alerts.py. -->\n\n# Alerts\n\n"
    return made + "\n".join(map(_chapter, ALERTS))


def _rule(alert: Alert, timing: Timing) -> dict[str, Any]:
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(alert.steps, 1))
    return {
        "alert": alert.name,
        "expr": alert.expr(timing),
        **({"for": timing.of(alert.lasts)} if alert.lasts else {}),
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.meaning, "runbook": steps},
    }


def _chapter(alert: Alert) -> str:
    lasts = f" for {Timing().of(alert.lasts)}" if alert.lasts else ""
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(alert.steps, 1))
    return f"## {alert.name}\n\n*{alert.severity}*{lasts}. {alert.meaning}\n\n{steps}\n"
