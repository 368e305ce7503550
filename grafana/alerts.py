"""The alerts: when each fires, what that means and what to do. Of this `alerts.yml` and `alerts.md` are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grafana.timing import Timing

MINUTE, HOUR = 60, 3600

#: The objective of deliveries: so much of the messages is with a handler within so many seconds (a bucket's bound).
OBJECTIVE, WITHIN = 0.999, 30

_PAUSED = "max by (subscription) (outbox_subscription_paused) == 1"


@dataclass(frozen=True)
class Alert:
    name: str
    severity: str
    expr: Callable[[Timing], str]
    #: Seconds for which it must be so.
    lasts: float
    summary: str
    #: What it means.
    meaning: str
    #: What to do, step by step.
    steps: tuple[str, ...]


def worst(metric: str, by: str = "subscription") -> str:
    """Several exporters show the same: their greatest, and not their sum."""
    return f"max by ({by}) ({metric})"


def _unless_paused(expr: str) -> str:
    return f"{expr} unless on (subscription) {_PAUSED}"


def _late(t: Timing, seconds: float) -> str:
    """Which part of the deliveries in a window came too late."""
    window = t.of(seconds)
    good = f'sum by (subscription) (rate(outbox_delivery_seconds_bucket{{le="{t.bucket(WITHIN)}"}}[{window}]))'
    return f"1 - {good} / sum by (subscription) (rate(outbox_delivery_seconds_count[{window}]))"


def _burns(factor: float, long: float, short: float) -> Callable[[Timing], str]:
    """Both windows: the long one says that it matters, the short one that it goes on."""
    limit = f"{factor * (1 - OBJECTIVE):g}"

    def expr(t: Timing) -> str:
        return f"({_late(t, long)}) > {limit} and ({_late(t, short)}) > {limit}"

    return expr


ALERTS = (
    Alert(
        "OutboxDown",
        "critical",
        lambda t: "max(outbox_up) == 0",
        1 * MINUTE,
        "The exporter can't reach the database, or finds no outbox in it",
        "Nobody knows how the outbox stands. Publishers and workers of the same database are likely to fail, too.",
        (
            "Does the database answer? `outbox doctor` with the exporter's URL says what is wrong.",
            "Look into the exporter's environment: the URL, the password, the network.",
        ),
    ),
    Alert(
        "OutboxExporterDown",
        "critical",
        lambda t: "absent(outbox_up)",
        2 * MINUTE,
        "No exporter is scraped",
        "All that is known of backlogs, dead letters and slots comes from `outbox exporter`: these alerts are blind.",
        (
            "Does it run? `systemctl status outbox-exporter`, `kubectl get pods -l app=outbox-exporter`.",
            "Does Prometheus reach it? Its page *Targets* says what it gets; `curl HOST:9630/healthz` says the same.",
        ),
    ),
    Alert(
        "OutboxReadingFails",
        "warning",
        lambda t: f"{worst('outbox_reading_up', 'reading')} == 0",
        10 * MINUTE,
        "The exporter can't read {{ $labels.reading }}",
        "A statement of the exporter fails: its user lacks a privilege, or the statement takes longer than --timeout.",
        (
            "`outbox doctor` as the exporter's user names a missing privilege; `GRANT outbox_monitor TO …` gives it.",
            "Otherwise raise the exporter's --timeout.",
        ),
    ),
    Alert(
        "OutboxSchemaOutdated",
        "critical",
        lambda t: "max(outbox_schema_outdated) == 1",
        5 * MINUTE,
        "The database's schema is older than the package needs",
        "Publishers and workers of the new version refuse to start.",
        ("`outbox migrate --check` says what is missing.", "`outbox migrate` adds it, while the old ones go on."),
    ),
    Alert(
        "OutboxLagTooOld",
        "warning",
        lambda t: _unless_paused(f"{worst('outbox_subscription_lag_seconds')} > {t.seconds(5 * MINUTE)}"),
        2 * MINUTE,
        "{{ $labels.subscription }} is {{ $value | humanizeDuration }} behind",
        "Its oldest message that no worker has pulled is more than five minutes old.",
        (
            "The dashboard *Subscription*: are messages handled at all? If not, see OutboxNoWorker, and the workers' "
            "logs.",
            "They are, and too slowly: `Handler seconds` says whether handlers became slow; if not, run more workers, "
            "or "
            "raise `concurrency`.",
            "A rate limit holds them back: `outbox subscriptions show` names it.",
            "A backlog that nobody needs any more: `outbox purge`.",
        ),
    ),
    Alert(
        "OutboxNoWorker",
        "critical",
        lambda t: _unless_paused(
            f"{worst('outbox_subscription_workers')} == 0 and on (subscription) "
            f"({worst('outbox_subscription_lag_messages')} + {worst('outbox_subscription_redeliveries_due')} > 0)"
        ),
        2 * MINUTE,
        "No worker runs {{ $labels.subscription }}, and messages wait",
        "Nothing of this subscription is delivered, and its backlog keeps the log from being emptied.",
        (
            "`outbox status` lists the workers, and which subscriptions each runs.",
            "Start `outbox worker`; does an --only leave the subscription out?",
            "It is not needed any more: `outbox subscriptions delete`.",
        ),
    ),
    Alert(
        "OutboxWorkerNotReady",
        "warning",
        lambda t: "outbox_worker_ready == 0 or outbox_worker_process_up == 0",
        5 * MINUTE,
        "A worker process at {{ $labels.instance }} does not consume",
        "It can't reach the database, or does not come up.",
        ("Its log says `database away`, or why it ended.", "`curl HOST:PORT/readyz`, and `/healthz`."),
    ),
    Alert(
        "OutboxDeadLetters",
        "warning",
        lambda t: (
            f"time() - {worst('outbox_subscription_last_dead_letter_timestamp_seconds')} < {t.seconds(15 * MINUTE)}"
        ),
        0,
        "{{ $labels.subscription }} gives messages up",
        "A message became a dead letter within the last quarter of an hour: it failed at its last attempt, or was "
        "rejected.",
        (
            "`outbox dead groups SUBSCRIPTION` says which errors, from where, and how many of each.",
            "`outbox dead show` shows one of them with the history of its errors.",
            "Mend the handler or the payload, then `outbox dead redrive`; or `outbox dead purge`.",
        ),
    ),
    Alert(
        "OutboxRedeliveryStuck",
        "warning",
        lambda t: _unless_paused(
            f"{worst('outbox_subscription_redelivery_overdue_seconds')} > {t.seconds(5 * MINUTE)}"
        ),
        2 * MINUTE,
        "Messages of {{ $labels.subscription }} wait for another try that is overdue",
        "Their time has come, and no worker takes them: none runs, or all are busy with others.",
        ("See OutboxNoWorker and OutboxLagTooOld.", "`outbox doctor` says whether a lane of an ordered one is stuck."),
    ),
    Alert(
        "OutboxLeaseLost",
        "warning",
        lambda t: f"sum by (subscription) (increase(outbox_leases_lost_total[{t.of(10 * MINUTE)}])) > 0",
        0,
        "A worker of {{ $labels.subscription }} lost a lease",
        "It gave no sign of life for its --timeout, and others handled its messages again; under exactly-once its "
        "effects "
        "rolled back.",
        (
            "Was the process stopped, swapped out, or its event loop blocked? Its log says `found dead`.",
            "Coroutine handlers must not block: move what does into a thread, or use a sync handler.",
            "If handlers rightly hold up the process for long, raise --timeout.",
        ),
    ),
    Alert(
        "OutboxPublishersRejected",
        "critical",
        lambda t: (
            f"({worst('outbox_subscription_rejects_publishers')} == 1) and on (subscription) "
            f"({worst('outbox_subscription_lag_messages')} "
            f">= {worst('outbox_subscription_backlog_limit_messages')})"
        ),
        1 * MINUTE,
        "The backlog of {{ $labels.subscription }} is full: publishes to its topics fail",
        "Business transactions that publish roll back, as was asked for with overflow = reject-publish.",
        (
            "See OutboxLagTooOld: let its workers catch up.",
            "Meanwhile raise max_backlog, or let it drop the oldest: `outbox subscriptions configure`.",
        ),
    ),
    Alert(
        "OutboxPublishErrors",
        "warning",
        lambda t: f"sum by (error) (increase(outbox_publish_errors_total[{t.of(10 * MINUTE)}])) > 0",
        0,
        "Publishes fail with {{ $labels.error }}",
        "The application's transaction got an error from a publish, and probably rolled back.",
        ("BacklogFull: see OutboxPublishersRejected.", "InvalidMessage, TopicNotDeclared: a fault of the publisher's."),
    ),
    Alert(
        "OutboxMessagesLost",
        "critical",
        lambda t: f"{worst('outbox_subscription_lost_messages')} > 0",
        0,
        "Messages of {{ $labels.subscription }} expired before it took them",
        "Its backlog may expire, and did; what was lost is listed until somebody acknowledges it.",
        (
            "`SELECT * FROM outbox.lost`: which.",
            "Is it still in the source? Publish it again. `outbox retention acknowledge`.",
        ),
    ),
    Alert(
        "OutboxRotationBlocked",
        "warning",
        # whichever slot it is: a ring whose slots are short comes round before one of them has been due for long
        lambda t: (
            "max by (retention, holder, subscription) "
            f"(max_over_time(outbox_rotation_blocked[{t.of(5 * MINUTE)}])) == 1"
        ),
        30 * MINUTE,
        "Slots of {{ $labels.retention }} can't be emptied: {{ $labels.holder }} {{ $labels.subscription }} needs them",
        "The log grows until this subscription has passed them, or the lease is settled.",
        (
            "Let its workers catch up; or move it on, if nobody needs that: `outbox seek SUBSCRIPTION --to next`.",
            "A subscription that nobody runs any more: `outbox subscriptions delete`.",
            "If it may lose what is too old: `outbox subscriptions configure … backlog=expire`.",
        ),
    ),
    Alert(
        "OutboxLongTransaction",
        "warning",
        lambda t: (
            f"max(outbox_oldest_transaction_with_xid_seconds) > {t.seconds(15 * MINUTE)} or "
            f"max(outbox_oldest_transaction_without_xid_seconds) > {t.seconds(HOUR)}"
        ),
        5 * MINUTE,
        "A transaction has been open for {{ $value | humanizeDuration }}",
        "Nothing that died since can be vacuumed, and a slot in which it may have written is not emptied. Deliveries "
        "go on.",
        (
            "`outbox doctor` names the session, its application and what it holds.",
            "Let it end, or `SELECT pg_terminate_backend(PID)`; `idle_in_transaction_session_timeout` ends such by "
            "itself.",
        ),
    ),
    Alert(
        "OutboxPreparedTransaction",
        "warning",
        lambda t: f"max(outbox_oldest_prepared_transaction_seconds) > {t.seconds(15 * MINUTE)}",
        5 * MINUTE,
        "A prepared transaction has waited for {{ $value | humanizeDuration }}",
        "Its coordinator has forgotten it; it holds locks and keeps dead rows, over restarts too.",
        ("`outbox doctor` names it.", "`COMMIT PREPARED` or `ROLLBACK PREPARED`, as its coordinator decided."),
    ),
    Alert(
        "OutboxScheduledOverdue",
        "warning",
        lambda t: f"max(outbox_scheduled_overdue_seconds) > {t.seconds(5 * MINUTE)}",
        2 * MINUTE,
        "A message for later has been due for {{ $value | humanizeDuration }}",
        "Any worker publishes what is due: none runs, or publishing it fails.",
        ("`outbox scheduled list` shows the error.", "Start `outbox worker`, of whatever application."),
    ),
    Alert(
        "OutboxRelayCircuitOpen",
        "warning",
        lambda t: f"{worst('outbox_relay_circuit_open', 'relay')} == 1",
        5 * MINUTE,
        "{{ $labels.relay }} delivers nothing: the other side is away",
        "Its messages wait in the log, in order, and spend no attempt. It tries again by itself, with one message.",
        (
            "`outbox status` says why: what could not be reached, or what it answered.",
            "`outbox relay test` sends one probe through it, from where you stand: is it the network, or a password?",
            "A webhook that answered 410 is paused: `outbox resume` if it is back, else `outbox subscriptions delete`.",
            "Until the other side is back, a long backlog keeps the log from being emptied: see OutboxRotationBlocked.",
        ),
    ),
    Alert(
        "OutboxRelayRefused",
        "warning",
        lambda t: (
            f'sum by (relay) (rate(outbox_relay_delivered_total{{outcome!="delivered"}}[{t.of(5 * MINUTE)}])) / '
            f"sum by (relay) (rate(outbox_relay_delivered_total[{t.of(5 * MINUTE)}])) > 0.1"
        ),
        10 * MINUTE,
        "{{ $labels.relay }}: the other side refuses {{ $value | humanizePercentage }} of what it gets",
        "It answers, and takes more than a tenth of the messages not. Each is tried again until its attempts are used "
        "up; then it is a dead letter.",
        (
            "The log of `outbox relay` says what it answered (`retry`), and so does `outbox relay test`.",
            "All of them: its address, its rights or its schema changed. One kind: the publisher's payload did.",
            "Mend that before the last attempt; what became a dead letter: `outbox dead redrive RELAY`.",
        ),
    ),
    Alert(
        "OutboxRelayRejected",
        "warning",
        lambda t: (
            f'sum by (relay) (increase(outbox_relay_delivered_total{{outcome="rejected"}}[{t.of(10 * MINUTE)}])) > 0'
        ),
        0,
        "{{ $labels.relay }}: messages that the other side can never take",
        "Too large for it, or without a place there: a relay's are dead letters, and those behind them go on.",
        (
            "`outbox dead groups RELAY` says why, and how many; its subscription is called as the relay.",
            "The relay's log says it of a source: what came in is no event, or no topic of ours.",
            "Mend the publisher, or the other side's limit; then `outbox dead redrive RELAY`.",
        ),
    ),
    Alert(
        "OutboxNotificationQueue",
        "warning",
        lambda t: "max(outbox_notification_queue_used_ratio) > 0.5",
        5 * MINUTE,
        "The server's queue of notifications is {{ $value | humanizePercentage }} full",
        "When it is full, every COMMIT with a NOTIFY fails. A session that listens has a transaction open for long.",
        ("`outbox doctor` names the session: end it.",),
    ),
    Alert(
        "OutboxIdsRunOut",
        "critical",
        lambda t: "max(outbox_ids_used_ratio) > 0.8 or max(outbox_topic_offsets_used_ratio) > 0.8",
        0,
        "A sequence is {{ $value | humanizePercentage }} used up",
        "When it is, publishes or declarations fail.",
        ("`SELECT * FROM pg_sequences WHERE schemaname = 'outbox' ORDER BY last_value DESC` says which.",),
    ),
    Alert(
        "OutboxDeliverySloBurnsFast",
        "critical",
        _burns(14.4, HOUR, 5 * MINUTE),
        2 * MINUTE,
        "{{ $labels.subscription }}: {{ $value | humanizePercentage }} of deliveries in the last hour took over 30 s",
        "At this rate the month's budget (0.1 % of deliveries later than 30 s) is spent within two days.",
        ("See OutboxLagTooOld.",),
    ),
    Alert(
        "OutboxDeliverySloBurns",
        "warning",
        _burns(6, 6 * HOUR, 30 * MINUTE),
        15 * MINUTE,
        "{{ $labels.subscription }}: {{ $value | humanizePercentage }} of deliveries in six hours took over 30 s",
        "At this rate the month's budget (0.1 % of deliveries later than 30 s) is spent within five days.",
        ("See OutboxLagTooOld.",),
    ),
)
