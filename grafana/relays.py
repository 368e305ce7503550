"""Does what leaves for other systems arrive there?"""

from __future__ import annotations

from grafana.panels import Panel


def _of_relays(metric: str) -> str:
    """Of the subscriptions that relays read: each is called as its relay."""
    named = 'label_replace(group by (relay) (outbox_relay_circuit_open), "subscription", "$1", "relay", "(.+)")'
    return f"max by (subscription) ({metric}) and on (subscription) {named}"


def _quantile(q: float) -> str:
    buckets = "sum by (relay, le) (rate(outbox_relay_delivery_seconds_bucket[$__rate_interval]))"
    return f"histogram_quantile({q}, {buckets})"


_REJECTED = 'outbox_relay_delivered_total{outcome="rejected"}'
_FAILED = 'sum by (relay) (rate(outbox_relay_delivered_total{outcome!="delivered"}[$__rate_interval]))'
_ALL = "sum by (relay) (rate(outbox_relay_delivered_total[$__rate_interval]))"

ROWS = {
    "Now": (
        Panel(
            "Circuits open",
            "Relays and sources that nothing goes through. Red: `outbox status` says why, `outbox relay test` tries.",
            "short", {"sum(max by (relay) (outbox_relay_circuit_open))": "open"}, "number", red=1, width=6,
        ),
        Panel(
            "Rejected in the last hour",
            "Messages that the other side will never take. Red: `outbox dead groups RELAY` says what it answered.",
            "short", {f"sum(increase({_REJECTED}[1h]))": "messages"}, "number", red=1, width=6,
        ),
        Panel(
            "Oldest that waits",
            "Of the relay that is furthest behind. Red: its circuit is open, or the other side is slow: see below.",
            "s", {f"max({_of_relays('outbox_subscription_lag_seconds')})": "lag"}, "number", 60, 300, 6,
        ),
        Panel(
            "Paused",
            "1: somebody paused a relay, or its webhook answered 410 and wants no more. `outbox resume` goes on.",
            "short", {f"sum({_of_relays('outbox_subscription_paused')})": "paused"}, "number", 1, width=6,
        ),
    ),
    "Delivery": (
        Panel(
            "Messages by outcome",
            "A second. `retried`: refused for now, and an attempt is spent; `rejected`: a dead letter.",
            "mps",
            {
                "sum by (relay, outcome) (rate(outbox_relay_delivered_total[$__rate_interval]))": (
                    "{{relay}} {{outcome}}"
                )
            },
        ),
        Panel(
            "Part that fails",
            "Of what was answered. Red: the other side works, and refuses much: look at its log, and at `outbox dead "
            "groups`.",
            "percentunit", {f"{_FAILED} / {_ALL}": "{{relay}}"}, warn=0.01, red=0.1,
        ),
        Panel(
            "Circuit",
            "1: open; nothing is sent but a probe now and then. Red for long: the other side, or the way there, is "
            "down; nothing is lost meanwhile.",
            "short", {"max by (relay) (outbox_relay_circuit_open)": "{{relay}}"}, red=1,
        ),
        Panel(
            "Seconds until confirmed",
            "Of messages that went out together. Red: the other side is slow, and a key goes no faster than one "
            "message in this time.",
            "s", {_quantile(0.5): "{{relay}} p50", _quantile(0.99): "{{relay}} p99"}, warn=1, red=10,
        ),
    ),
    "What waits": (
        Panel(
            "Lag in messages",
            "It grows while a circuit is open; then it must fall. If not: more `concurrency`, or more processes.",
            "short", {_of_relays("outbox_subscription_lag_messages"): "{{subscription}}"},
        ),
        Panel(
            "Lag in seconds",
            "Age of the oldest message that was not pulled. Red: see Circuit, then Seconds until confirmed.",
            "s", {_of_relays("outbox_subscription_lag_seconds"): "{{subscription}}"}, warn=60, red=300,
        ),
        Panel(
            "Waiting for another try",
            "Messages that were refused for now. Yellow that stays: their attempts run out, and they are dead letters.",
            "short", {_of_relays("outbox_subscription_redeliveries"): "{{subscription}}"}, warn=1,
        ),
        Panel(
            "Dead letters",
            "That are kept. Red: `outbox dead groups RELAY`, mend, `outbox dead redrive RELAY`.",
            "short", {_of_relays("outbox_subscription_dead_letters"): "{{subscription}}"}, red=1,
        ),
    ),
}  # fmt: skip
