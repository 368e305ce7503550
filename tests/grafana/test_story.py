"""The panels and alerts on a real Prometheus, which scrapes a real worker and exporter through a story."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from grafana.alerts import ALERTS
from grafana.dashboards import expressions
from tests.grafana.story import TIMING, story, tell
from tests.shop_floor import Database

#: What no story can make happen in a minute; `test_alerts` has them in promtool.
NOT_TOLD = {
    "OutboxNotificationQueue", "OutboxDeliverySloBurns", "OutboxDeliverySloBurnsFast", "OutboxRelayRejected",
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_prometheus")]


def test_every_alert_fires_and_clears_and_every_expression_gives_data(own_postgres: Database, tmp_path: Path) -> None:
    with story(own_postgres, tmp_path) as on:
        told = tell(on)
        assert told == {alert.name for alert in ALERTS} - NOT_TOLD
        empty = [(board, panel) for board, panel, expr in expressions() if not has_data(on.series(expr))]
        assert empty == []
        silent = [alert.name for alert in ALERTS if not has_data(on.series(without_limit(alert.expr(TIMING))))]
        assert silent == []


def has_data(series: list[dict[str, list[tuple[float, str]]]]) -> bool:
    return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def without_limit(expr: str) -> str:
    """Of a comparison with a number the left side, where the story does not pass the limit: it is looked at."""
    if expr.startswith("max(outbox_notification"):
        return expr.partition(" > 0.")[0]
    return expr.removesuffix(" > 0") if 'outcome="rejected"' in expr else expr
