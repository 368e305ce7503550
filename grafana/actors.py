"""Do dramatiq's actors keep up?"""

from __future__ import annotations

from grafana.panels import Panel


def _sum(metric: str) -> str:
    """Several exporters show the same. An actor of which nothing is there has no series."""
    return f"sum({_by_actor(metric)}) or vector(0)"


def _by_actor(metric: str) -> str:
    return f"max by (queue, actor) ({metric})"


def _of_queues(metric: str) -> str:
    """Of the subscriptions behind queues in which anything is: each is called as its queue."""
    named = 'label_replace(group by (queue) (outbox_actor_waiting_messages), "subscription", "$1", "queue", "(.+)")'
    return f"max by (subscription) ({metric}) and on (subscription) {named}"


def _rate(metric: str) -> str:
    """A second, as dramatiq's middleware counts."""
    return f"sum by (queue_name, actor_name) (rate({metric}[$__rate_interval]))"


def _duration(q: float) -> str:
    buckets = "sum by (actor_name, le) (rate(dramatiq_message_duration_milliseconds_bucket[$__rate_interval]))"
    return f"histogram_quantile({q}, {buckets})"


_NAME, _OWN = "{{queue}} {{actor}}", "{{queue_name}} {{actor_name}}"

ROWS = {
    "Now": (
        Panel(
            "Waiting",
            "Messages for their first try. Of an actor 10,000 a priority are counted at most.",
            "short", {_sum("outbox_actor_waiting_messages"): "messages"}, "number", width=6,
        ),
        Panel(
            "Oldest that waits",
            "Of the queue that is furthest behind. Red: no `dramatiq` process runs it, or too few threads: see below.",
            "s", {f"max({_of_queues('outbox_subscription_lag_seconds')}) or vector(0)": "lag"}, "number", 60, 300, 6,
        ),
        Panel(
            "Left behind",
            "Messages that a worker gave back, or that died with it, and that nobody took yet. Yellow that stays: "
            "processes are killed, by their memory perhaps.",
            "short", {_sum("outbox_actor_retrying_messages"): "messages"}, "number", 1, width=6,
        ),
        Panel(
            "Dead letters",
            "Messages whose retries are used up. Red: `outbox dead groups QUEUE` says why; then redrive or purge.",
            "short", {_sum("outbox_actor_dead_letters"): "messages"}, "number", red=1, width=6,
        ),
    ),
    "Actors, as the database sees them": (
        Panel(
            "Waiting",
            "By actor. One that grows while the others stand still: it is slow, or fails and is retried.",
            "short", {_by_actor("outbox_actor_waiting_messages"): _NAME},
        ),
        Panel(
            "In flight",
            "In workers' hands. As many as there are threads, for long: run more processes.",
            "short", {_by_actor("outbox_actor_in_flight_messages"): _NAME},
        ),
        Panel(
            "Delayed",
            "Sent with a delay, or to be retried. It grows: an actor fails again and again; its log says why.",
            "short", {_by_actor("outbox_actor_delayed_messages"): _NAME},
        ),
        Panel(
            "Dead letters",
            "Red: `outbox dead groups QUEUE` says which errors, and of which actor.",
            "short", {_by_actor("outbox_actor_dead_letters"): _NAME}, red=1,
        ),
        Panel(
            "Lag in seconds",
            "By queue, of those in which anything is. Red: see whether workers run it, and how long its actors take.",
            "s", {_of_queues("outbox_subscription_lag_seconds"): "{{subscription}}"}, warn=60, red=300,
        ),
        Panel(
            "Workers",
            "Live `dramatiq` processes by queue, of those in which anything is. Red: none; start one, or look at its "
            "--queues.",
            "short", {_of_queues("outbox_subscription_workers"): "{{subscription}}"}, red=1, less_is_worse=True,
        ),
    ),
    "Actors, as dramatiq's Prometheus middleware counts (empty without it)": (
        Panel(
            "Handled",
            "Messages a second that came to an end, well or not.",
            "mps", {_rate("dramatiq_messages_total"): _OWN},
        ),
        Panel(
            "Errors and retries",
            "A second. Errors without retries: the actor has none left, and its messages become dead letters.",
            "mps",
            {
                _rate("dramatiq_message_errors_total"): f"{_OWN} errors",
                _rate("dramatiq_message_retries_total"): f"{_OWN} retries",
                _rate("dramatiq_message_rejects_total"): f"{_OWN} rejects",
            },
        ),
        Panel(
            "Duration",
            "Of a message. A rise: what the actor calls became slow.",
            "ms", {_duration(0.5): "{{actor_name}} p50", _duration(0.99): "{{actor_name}} p99"},
        ),
        Panel(
            "In progress",
            "Messages that threads are at work on, now.",
            "short", {"sum by (queue_name, actor_name) (dramatiq_messages_inprogress)": _OWN},
        ),
    ),
}  # fmt: skip
