"""One subscription in depth."""

from __future__ import annotations

from grafana.panels import Panel

_OF = '{subscription=~"$subscription"}'


def _max(metric: str) -> str:
    return f"max by (subscription) ({metric}{_OF})"


def _quantiles(metric: str) -> dict[str, str]:
    buckets = f"sum by (le) (rate({metric}_bucket{_OF}[$__rate_interval]))"
    return {f"histogram_quantile({q}, {buckets})": f"p{q * 100:g}" for q in (0.5, 0.95, 0.99)}


ROWS = {
    "State": (
        Panel(
            "Workers",
            "Live workers that run it. Red: nobody does; start `outbox worker`, or look at its --only.",
            "short", {_max("outbox_subscription_workers"): "workers"}, "number", red=1, width=4, less_is_worse=True,
        ),
        Panel(
            "Paused",
            "1: nothing is handed out until `outbox resume`.",
            "short", {_max("outbox_subscription_paused"): "paused"}, "number", 1, width=4,
        ),
        Panel(
            "In flight",
            "Messages in workers' hands.",
            "short", {_max("outbox_subscription_in_flight_messages"): "messages"}, "number", width=4,
        ),
        Panel(
            "Oldest unsettled",
            "Age of the oldest message that waits or is in hand. Red while the lag is small: a handler hangs; its time "
            "limit ends it.",
            "s", {_max("outbox_subscription_oldest_unsettled_seconds"): "age"}, "number", 60, 300, 4,
        ),
        Panel(
            "Lost",
            "Messages that expired before it took them. Red: `SELECT * FROM outbox.lost`, then `outbox retention "
            "acknowledge`.",
            "short", {_max("outbox_subscription_lost_messages"): "messages"}, "number", red=1, width=4,
        ),
        Panel(
            "Dead letters",
            "Red: `outbox dead groups` says why, `outbox dead redrive` tries them again.",
            "short", {_max("outbox_subscription_dead_letters"): "messages"}, "number", red=1, width=4,
        ),
    ),
    "Backlog": (
        Panel(
            "Lag in messages, and its limit",
            "Red beyond the limit: publishes fail, or the oldest are dropped, as its `overflow` says.",
            "short",
            {
                _max("outbox_subscription_lag_messages"): "waiting",
                _max("outbox_subscription_backlog_limit_messages"): "max_backlog",
            },
        ),
        Panel(
            "Lag in seconds",
            "Age of the oldest message that was not pulled. Red: slow handlers, too few workers, a rate limit, a "
            "pause.",
            "s", {_max("outbox_subscription_lag_seconds"): "lag"}, warn=60, red=300,
        ),
        Panel(
            "Waiting for another try",
            "`due` that stays above 0: no worker has time for them.",
            "short",
            {
                _max("outbox_subscription_redeliveries"): "waiting",
                _max("outbox_subscription_redeliveries_due"): "due",
            },
        ),
        Panel(
            "Redelivery overdue",
            "For how long the first of them has been due. Red: none runs, or an ordered lane is stuck: `outbox "
            "doctor`.",
            "s", {_max("outbox_subscription_redelivery_overdue_seconds"): "overdue"}, warn=60, red=300,
        ),
    ),
    "Handling": (
        Panel(
            "Handled by outcome",
            "Messages a second; `deferred` were not tried, since something before them failed.",
            "mps", {f"sum by (outcome) (rate(outbox_handled_messages_total{_OF}[$__rate_interval]))": "{{outcome}}"},
        ),
        Panel(
            "Dead letters by reason",
            "Messages a second. `rejected`: the handler said so; `attempts exhausted`: it went on failing.",
            "mps", {f"sum by (reason) (rate(outbox_dead_letters_total{_OF}[$__rate_interval]))": "{{reason}}"},
        ),
        Panel(
            "Handler seconds",
            "A rise: what the handler calls became slow. More workers help as long as that has room.",
            "s", _quantiles("outbox_handler_seconds"),
        ),
        Panel(
            "Publish to handler",
            "Of first tries. Red: over the objective of 30 s.",
            "s", _quantiles("outbox_delivery_seconds"), warn=5, red=30,
        ),
        Panel(
            "Leases lost",
            "Above 0: a worker gave no sign of life for its --timeout, and its messages were handled again.",
            "short",
            {f"sum by (subscription) (increase(outbox_leases_lost_total{_OF}[$__rate_interval]))": "lost"},
            red=1,
        ),
        Panel(
            "Settle seconds",
            "Red: the database's disk is slow, or it is busy: see what else runs there.",
            "s", _quantiles("outbox_settle_seconds"), warn=0.5, red=2,
        ),
    ),
}  # fmt: skip
