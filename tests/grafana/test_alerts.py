"""Each alert by itself, in `promtool`: when it fires, and when it does not, to the minute."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import rules
from grafana.alerts import ALERTS
from tests.servers import promtool

pytestmark = pytest.mark.usefixtures("needs_prometheus")


@dataclass(frozen=True)
class Case:
    """Series, a value a minute, as promtool writes them."""

    alert: str
    series: dict[str, str]
    #: Minutes at which it fires.
    fires: tuple[int, ...]
    #: Minutes at which it does not.
    quiet: tuple[int, ...]


LAG, WORKERS = 'outbox_subscription_lag_seconds{subscription="s"}', 'outbox_subscription_workers{subscription="s"}'
DUE = 'outbox_subscription_redeliveries_due{subscription="s"}'
OVERDUE = 'outbox_subscription_redelivery_overdue_seconds{subscription="s"}'
MESSAGES = 'outbox_subscription_lag_messages{subscription="s"}'
PAUSED = 'outbox_subscription_paused{subscription="s"}'
SLOT = '{retention="standard",slot="3",holder="subscription",subscription="s"}'

NEXT = SLOT.replace("3", "4")


def late(per_minute: int, of: int) -> dict[str, str]:
    """Deliveries: of so many a minute so many are late, for seven hours."""
    return {
        'outbox_delivery_seconds_bucket{subscription="s",le="30.0"}': f"0+{of - per_minute}x420",
        'outbox_delivery_seconds_count{subscription="s"}': f"0+{of}x420",
    }


def answers(**series: str) -> dict[str, str]:
    """What a relay's other side said, by outcome; nothing of the outcomes that are not given."""
    outcomes = dict.fromkeys(("delivered", "retried", "rejected"), "0x40") | series
    return {
        f'outbox_relay_delivered_total{{relay="r",outcome="{outcome}"}}': values for outcome, values in outcomes.items()
    }


CASES = (
    Case("OutboxDown", {"outbox_up": "1x4 0x5 1x5"}, (7,), (3, 12)),
    Case("OutboxDown", {'outbox_up{instance="a"}': "1x20", 'outbox_up{instance="b"}': "0x20"}, (), (10,)),
    Case("OutboxExporterDown", {"outbox_up": "_x5 1x10"}, (3,), (8,)),
    Case("OutboxReadingFails", {'outbox_reading_up{reading="topics"}': "0x15 1x5"}, (12,), (5, 18)),
    Case("OutboxSchemaOutdated", {"outbox_schema_outdated": "1x10 0x5"}, (7,), (2, 13)),
    Case("OutboxLagTooOld", {LAG: "0x4 301x10 0x10"}, (8, 14), (5, 17)),
    Case("OutboxLagTooOld", {LAG: "299x20"}, (), (10, 20)),
    Case("OutboxLagTooOld", {LAG: "301x20", PAUSED: "1x20"}, (), (10,)),
    Case("OutboxLagTooOld", {LAG.replace("}", f',instance="{i}"}}'): "301x9" for i in "ab"}, (5,), ()),
    Case("OutboxNoWorker", {WORKERS: "0x9 1x9", MESSAGES: "5x20", DUE: "0x20"}, (5,), (1, 14)),
    Case("OutboxNoWorker", {WORKERS: "0x9", MESSAGES: "0x9", DUE: "2x9"}, (5,), ()),
    Case("OutboxNoWorker", {WORKERS: "0x9", MESSAGES: "0x9", DUE: "0x9"}, (), (5,)),
    Case("OutboxNoWorker", {WORKERS: "0x9", MESSAGES: "5x9", DUE: "0x9", PAUSED: "1x9"}, (), (5,)),
    Case("OutboxWorkerNotReady", {'outbox_worker_ready{instance="w"}': "1x2 0x9 1x4"}, (9,), (4, 14)),
    Case("OutboxWorkerNotReady", {'outbox_worker_process_up{process="1"}': "0x9"}, (7,), (3,)),
    Case(
        "OutboxDeadLetters",
        {'outbox_subscription_last_dead_letter_timestamp_seconds{subscription="s"}': "0x19 1200x30"},
        (21, 34), (18, 36),
    ),
    Case("OutboxRedeliveryStuck", {OVERDUE: "0 400x9 0x5"}, (5,), (2, 12)),
    Case("OutboxLeaseLost", {'outbox_leases_lost_total{subscription="s"}': "0x5 1x30"}, (8,), (4, 20)),
    Case(
        "OutboxPublishersRejected",
        {
            MESSAGES: "50x4 100x5 50x5",
            'outbox_subscription_backlog_limit_messages{subscription="s"}': "100x20",
            'outbox_subscription_rejects_publishers{subscription="s"}': "1x20",
        },
        (7,), (3, 12),
    ),
    Case(
        "OutboxPublishersRejected",
        {
            MESSAGES: "100x9",
            'outbox_subscription_backlog_limit_messages{subscription="s"}': "100x9",
            'outbox_subscription_rejects_publishers{subscription="s"}': "0x9",
        },
        (), (5,),
    ),
    Case("OutboxPublishErrors", {'outbox_publish_errors_total{error="BacklogFull"}': "0x5 3x30"}, (8,), (4, 20)),
    Case("OutboxMessagesLost", {'outbox_subscription_lost_messages{subscription="s"}': "0x3 7x5 0x5"}, (6,), (2, 11)),
    Case(
        "OutboxRotationBlocked",
        {f"outbox_rotation_blocked{SLOT}": "1x20 0x100", f"outbox_rotation_blocked{NEXT}": "0x23 1x30 0x9"},
        (35, 56), (25, 60),
    ),
    Case("OutboxLongTransaction", {"outbox_oldest_transaction_with_xid_seconds": "0+60x30 0x5"}, (22,), (15, 34)),
    Case("OutboxLongTransaction", {"outbox_oldest_transaction_without_xid_seconds": "0+60x70"}, (67,), (30, 60)),
    Case("OutboxPreparedTransaction", {"outbox_oldest_prepared_transaction_seconds": "0+60x30 0x5"}, (22,), (15, 34)),
    Case("OutboxScheduledOverdue", {"outbox_scheduled_overdue_seconds": "0+60x12 0x5"}, (9,), (4, 16)),
    Case("OutboxRelayCircuitOpen", {'outbox_relay_circuit_open{relay="r"}': "0x2 1x9 0x5"}, (9, 11), (6, 14)),
    Case(
        "OutboxRelayCircuitOpen",
        {f'outbox_relay_circuit_open{{relay="r",process="{i}"}}': values for i, values in enumerate(("0x9", "1x9"))},
        (7,), (3,),
    ),
    Case("OutboxRelayRefused", answers(delivered="0+100x40", retried="0x5 0+20x20 400x15"), (21, 26), (12, 32)),
    Case("OutboxRelayRefused", answers(delivered="0+100x40", retried="0+10x40"), (), (20, 35)),
    Case("OutboxRelayRefused", answers(delivered="0x40", retried="0x5 1x35"), (), (8, 15, 18)),
    Case("OutboxRelayRejected", answers(delivered="0+100x40", rejected="0x5 1x35"), (8, 14), (4, 20)),
    Case("OutboxNotificationQueue", {"outbox_notification_queue_used_ratio": "0.6x9 0.1x5"}, (6,), (2, 12)),
    Case("OutboxIdsRunOut", {"outbox_ids_used_ratio": "0.5x3 0.9x3"}, (5,), (2,)),
    Case("OutboxDeliverySloBurnsFast", late(2, 100), (70,), ()),
    Case("OutboxDeliverySloBurnsFast", late(1, 100), (), (70, 400)),
    Case("OutboxDeliverySloBurns", late(1, 100), (400,), ()),
    Case("OutboxDeliverySloBurns", late(1, 200), (), (400,)),
)  # fmt: skip


def check(case: Case) -> dict[str, Any]:
    """A test of promtool; ALERTS is what Prometheus itself writes of an alert."""
    asked = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    firing = [(minute, [{"labels": "{}", "value": 1}]) for minute in case.fires]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {"expr": asked, "eval_time": f"{minute}m", "exp_samples": samples}
            for minute, samples in [*firing, *((minute, []) for minute in case.quiet)]
        ],
    }


def run(folder: Path, cases: list[Case]) -> subprocess.CompletedProcess[str]:
    (folder / "alerts.yml").write_text(rules.yaml_text())
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [check(case) for case in cases]}
    (folder / "tests.yml").write_text(yaml.safe_dump(tests))
    return promtool("test", "rules", str(folder / "tests.yml"))


@pytest.mark.parametrize("alert", [alert.name for alert in ALERTS])
def test_an_alert_fires_and_clears_as_it_should(tmp_path: Path, alert: str) -> None:
    cases = [case for case in CASES if case.alert == alert]
    assert any(case.fires for case in cases), "no case in which it fires"
    assert any(case.quiet for case in cases), "no case in which it does not"
    result = run(tmp_path, cases)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_committed_rules_are_valid() -> None:
    result = promtool("check", "rules", "grafana/prometheus/alerts.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    result = promtool("check", "config", "--syntax-only", "grafana/prometheus/prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr
