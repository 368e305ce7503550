"""Is it flowing?"""

from __future__ import annotations

from grafana.panels import Panel

_OF = '{subscription=~"$subscription"}'


def _worst(metric: str) -> str:
    return f"max by (subscription) ({metric}{_OF})"


ROWS = {
    "Now": (
        Panel(
            "Database",
            "1: the exporter reaches the database. Red: nobody can publish or consume; `outbox doctor` says why.",
            "short", {"max(outbox_up)": "up"}, "number", red=1, width=4, less_is_worse=True,
        ),
        Panel(
            "Workers",
            "Live workers. Red: none runs, nothing is delivered: start `outbox worker`.",
            "short", {"max(outbox_workers_alive)": "workers"}, "number", red=1, width=4, less_is_worse=True,
        ),
        Panel(
            "Oldest message not pulled",
            "Of the subscription that is furthest behind. Red: see which one below, then the dashboard Subscription.",
            "s", {f"max({_worst('outbox_subscription_lag_seconds')})": "lag"}, "number", 60, 300, 4,
        ),
        Panel(
            "Waiting",
            "Messages that are not pulled yet, in all subscriptions that are chosen.",
            "short", {f"sum({_worst('outbox_subscription_lag_messages')})": "messages"}, "number", width=4,
        ),
        Panel(
            "Waiting for another try",
            "Messages that failed and will be tried again. Yellow: look at the errors in the workers' log (`retry`).",
            "short", {f"sum({_worst('outbox_subscription_redeliveries')})": "messages"}, "number", 1, width=4,
        ),
        Panel(
            "Dead letters",
            "Messages that were given up on. Red: `outbox dead groups SUBSCRIPTION` says why; then redrive or purge.",
            "short", {f"sum({_worst('outbox_subscription_dead_letters')})": "messages"}, "number", red=1, width=4,
        ),
    ),
    "Flow": (
        Panel(
            "Published",
            "Messages a second by topic, as the database counts them. A line that falls to 0: is the publisher down?",
            "mps", {"max by (topic) (rate(outbox_topic_published_messages_total[$__rate_interval]))": "{{topic}}"},
        ),
        Panel(
            "Taken",
            "Messages a second that cursors move on. Below what is published: the backlog grows.",
            "mps",
            {
                "max by (subscription) "
                f"(rate(outbox_subscription_taken_messages_total{_OF}[$__rate_interval]))": "{{subscription}}"
            },
        ),
        Panel(
            "Lag in seconds",
            "Age of the oldest message that was not pulled. Red: too few workers, or slow handlers, or a pause.",
            "s", {_worst("outbox_subscription_lag_seconds"): "{{subscription}}"}, warn=60, red=300,
        ),
        Panel(
            "Lag in messages",
            "What waits. It should come back to 0 in quiet times; if it only grows, run more workers.",
            "short", {_worst("outbox_subscription_lag_messages"): "{{subscription}}"},
        ),
    ),
    "Outcomes": (
        Panel(
            "Handled by outcome",
            "Messages a second. A rise of `retry` or `dead`: an error in a handler, or in what it calls.",
            "mps",
            {f"sum by (outcome) (rate(outbox_handled_messages_total{_OF}[$__rate_interval]))": "{{outcome}}"},
        ),
        Panel(
            "Publish to handler, p99",
            "Of first tries. Red: the delivery objective (99.9 % within 30 s) is at risk.",
            "s",
            {
                "histogram_quantile(0.99, sum by (subscription, le) "
                f"(rate(outbox_delivery_seconds_bucket{_OF}[$__rate_interval])))": "{{subscription}}"
            },
            warn=5, red=30,
        ),
    ),
}  # fmt: skip
