"""What do the worker processes do?"""

from __future__ import annotations

from grafana.panels import Panel

_OF = '{subscription=~"$subscription"}'

ROWS = {
    "Processes": (
        Panel(
            "Alive",
            "Workers whose heartbeat is not overdue, as the database sees them. Red: none.",
            "short", {"max(outbox_workers_alive)": "workers"}, "number", red=1, width=6, less_is_worse=True,
        ),
        Panel(
            "Not ready",
            "Processes that do not consume. Red: `curl HOST:PORT/readyz`; their log says `database away`, or why.",
            "short", {"count(outbox_worker_ready == 0) or vector(0)": "processes"}, "number", red=1, width=6,
        ),
        Panel(
            "Youngest",
            "Age of the process that started last. Always young: it is replaced again and again; its log says why.",
            "s", {"time() - max(outbox_worker_start_time_seconds)": "age"}, "number", width=6,
        ),
        Panel(
            "Versions",
            "More than one: a deploy is under way, or stopped half-way.",
            "short", {"count by (version) (outbox_worker_build_info)": "{{version}}"}, "number", width=6,
        ),
    ),
    "Load": (
        Panel(
            "Handlers at work",
            "Part of the handlers that are busy. Red: all of them are; raise `concurrency`, or run more processes.",
            "percentunit",
            {
                "sum by (subscription) "
                '(outbox_worker_in_hand_messages{subscription=~"$subscription",state="handling"}) '
                f"/ sum by (subscription) (outbox_worker_concurrency{_OF})": "{{subscription}}"
            },
        ),
        Panel(
            "In hand",
            "Messages that processes have pulled and not finished.",
            "short", {f"sum by (subscription, state) "
            f"(outbox_worker_in_hand_messages{_OF})": "{{subscription}} {{state}}"},
        ),
        Panel(
            "Published by workers",
            "Follow-up messages a second, of handlers.",
            "mps", {"sum by (topic) (rate(outbox_published_messages_total[$__rate_interval]))": "{{topic}}"},
        ),
        Panel(
            "Publishes that fail",
            "By the error's class. Red: BacklogFull is a full subscription; the others are faults of the publisher.",
            "short", {"sum by (error) (increase(outbox_publish_errors_total[$__rate_interval]))": "{{error}}"}, red=1,
        ),
    ),
    "Pulling and settling": (
        Panel(
            "Pulls by result",
            "A second. `away`: no database; `lost`: it was found dead; `wait`: a rate limit, or another's turn.",
            "ops", {f"sum by (result) (rate(outbox_pulls_total{_OF}[$__rate_interval]))": "{{result}}"},
        ),
        Panel(
            "Messages a pull",
            "The mean. Small in a quiet flow, and as large as handlers are fast in a backlog.",
            "short",
            {
                f"sum by (subscription) (rate(outbox_pulled_messages_sum{_OF}[$__rate_interval])) / "
                f"sum by (subscription) (rate(outbox_pulled_messages_count{_OF}[$__rate_interval]))": "{{subscription}}"
            },
        ),
        Panel(
            "Pull seconds, p99",
            "Red: the database is busy, or dead rows pile up: see Database health.",
            "s",
            {
                "histogram_quantile(0.99, sum by (subscription, le) "
                f"(rate(outbox_pull_seconds_bucket{_OF}[$__rate_interval])))": "{{subscription}}"
            },
            warn=0.1, red=1,
        ),
        Panel(
            "Leases settled",
            "A second, outside of handlers' transactions.",
            "ops",
            {f"sum by (subscription) (rate(outbox_settled_leases_total{_OF}[$__rate_interval]))": "{{subscription}}"},
        ),
        Panel(
            "Notifications",
            "A second. Many: messages come one by one; in a flow workers look by themselves.",
            "ops", {"sum(rate(outbox_notifications_total[$__rate_interval]))": "notifications"},
        ),
    ),
    "Connections": (
        Panel(
            "Connections of pools",
            "By pool and state. All `used`: see who waits.",
            "short", {"sum by (pool, state) (outbox_pool_connections)": "{{pool}} {{state}}"},
        ),
        Panel(
            "Waits for a connection",
            "Requests a second that found none free, and how long they waited, a second. Above 0 for long: handlers "
            "hold connections elsewhere, or the database refuses new ones.",
            "short",
            {
                "sum by (pool) (rate(outbox_pool_waits_total[$__rate_interval]))": "{{pool}} waits",
                "sum by (pool) (rate(outbox_pool_wait_seconds_total[$__rate_interval]))": "{{pool}} seconds",
            },
        ),
    ),
}  # fmt: skip
