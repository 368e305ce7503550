"""A day in two minutes, on a real Prometheus: flow, an outage, retries, dead letters, a held slot, recovery.

All durations of the rules are a sixtieth of what they are: five minutes are five seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from grafana import rules
from grafana.timing import Timing
from outbox import Outbox
from outbox.errors import SchemaOutdated
from tests.grafana.elsewhere import RELAY, acting, receiving, send
from tests.library.workshop import PREAMBLE
from tests.relay.running import relaying
from tests.servers import Prometheus, free_port
from tests.shop_floor import CommandProcess, Database, WorkerProcess, wait_for

TIMING = Timing(1 / 60)

APP = f"""{PREAMBLE}
@app.subscribe("mailer", "orders.*", retries=SOON, concurrency=2)
def mail(message, connection: psycopg.Connection):
    match message.payload:
        case "bad":
            raise ValueError
        case "slow":
            while not os.path.exists("lost"):
                time.sleep(0.05)
        case "overfill":
            app.publish(connection, "full", 1)

@app.subscribe("ledger", "orders.*", guarantee="exactly-once", batch=20)
def book(message, connection: psycopg.Connection):
    app.publish(connection, "bookings", message.payload)

FOR_LONG = Retries(first=timedelta(milliseconds=200), longest=timedelta(seconds=1), max_attempts=1000)

@app.subscribe("patient", "patience", retries=FOR_LONG)
def wait(message):
    if os.path.exists("broken"):
        raise ConnectionError
"""

#: Who reads without a worker: what holds the log, and whose backlog is full.
SET_UP = """
SELECT outbox.grant_roles(true);
CREATE ROLE watcher LOGIN IN ROLE outbox_monitor;
SELECT outbox.declare_topic('full');
SELECT outbox.declare_topic('old', retention => 'short');
SELECT outbox.subscribe('archive');
SELECT outbox.subscribe('narrow');
SELECT outbox.configure('narrow', '{"max_backlog": 3, "overflow": "reject-publish"}');
UPDATE outbox.retention SET slot_width = interval '1 second' WHERE name = 'short';
"""


class Story:
    """The stage: a database, a worker, an exporter, a Prometheus, and somebody who publishes all the time."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        for statement in SET_UP.strip().splitlines():
            database.execute(statement)
        database.execute("SELECT outbox.bind('archive', 'old', 'first')")
        database.execute("SELECT outbox.bind('narrow', 'full', 'first')")
        database.execute("SELECT outbox.pause('archive')")  # nobody is to be told that no worker runs it
        self._ports = free_port(), free_port()
        #: Of `outbox relay`, and of dramatiq's own metrics.
        self.relay_port, self.actors_port = free_port(), free_port()
        #: What is published all the time; `old` nobody reads, so that its slots can't be emptied.
        self.flow: dict[str, object] = {"orders.placed": "good", "old": 1}
        self.worker, self.exporter = self.start_worker(), self.start_exporter()
        self.prometheus = Prometheus(
            {
                "outbox-exporter": [f"127.0.0.1:{self._ports[0]}"],
                "outbox-worker": [f"127.0.0.1:{self._ports[1]}"],
                "outbox-relay": [f"127.0.0.1:{self.relay_port}"],
                "dramatiq": [f"127.0.0.1:{self.actors_port}"],
            },
            rules.yaml_text(TIMING),
            "500ms",
        )
        self.began = time.time()
        self._over = threading.Event()
        self._publisher = threading.Thread(target=self._publish_on_and_on)
        self._publisher.start()

    def start_worker(self) -> WorkerProcess:
        address = f"127.0.0.1:{self._ports[1]}"
        return WorkerProcess(self.database.url, self.folder, APP, "--metrics", address, "--timeout", "2")

    def start_exporter(self) -> CommandProcess:
        url = self.database.url.replace("postgres@", "watcher@")
        listen = f"127.0.0.1:{self._ports[0]}"
        return CommandProcess(url, self.folder, "exporter", "--listen", listen, "--share", "0.05", "--timeout", "1")

    def publish(self, topic: str, *payloads: object) -> None:
        with psycopg.connect(self.database.url) as connection:
            for payload in payloads:
                Outbox().publish(connection, topic, payload)

    def _publish_on_and_on(self) -> None:
        """Some orders a second, whatever happens."""
        while not self._over.wait(0.1):
            try:
                for topic, payload in list(self.flow.items()):
                    self.publish(topic, payload)
            except (psycopg.OperationalError, SchemaOutdated):
                continue

    def firing(self) -> set[str]:
        alerts = self.prometheus.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def wait_until_firing(self, *names: str) -> None:
        try:
            wait_for(lambda: set(names) <= self.firing(), f"firing: {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; firing are {self.firing()}") from None

    def wait_until_quiet(self, *names: str) -> None:
        wait_for(lambda: not set(names) & self.firing(), f"not firing any more: {names}")

    def series(self, expr: str) -> list[dict[str, Any]]:
        """What an expression gave over the whole story."""
        asked = expr.replace("$__rate_interval", "5s").replace("$subscription", ".*")
        span = {"start": f"{self.began}", "end": f"{time.time()}", "step": "0.5"}
        found: list[dict[str, Any]] = self.prometheus.ask("query_range", query=asked, **span)["result"]
        return found

    def close(self) -> None:
        self._over.set()
        self._publisher.join()
        self.worker.kill()
        self.exporter.kill()
        self.prometheus.remove()


@contextmanager
def story(database: Database, folder: Path) -> Iterator[Story]:
    told = Story(database, folder)
    try:
        wait_for(told.prometheus.is_ready, "Prometheus answers")
        wait_for(lambda: told.series("outbox_worker_ready == 1") and told.series("outbox_up == 1"), "both are scraped")
        yield told
    finally:
        told.close()


def tell(on: Story) -> set[str]:
    """From flow to recovery; returns the alerts that fired and cleared. What takes long begins early."""
    told: set[str] = set()

    def clear(*names: str) -> None:
        on.wait_until_quiet(*names)
        told.update(names)

    held = on.database.connect()
    held.execute("SELECT pg_current_xact_id()")
    prepared = on.database.connect()
    prepared.execute("SELECT pg_current_xact_id()")
    prepared.execute("PREPARE TRANSACTION 'forgotten'")
    prepared.close()

    on.publish("orders.placed", *["bad"] * 5)
    on.wait_until_firing("OutboxDeadLetters")
    clear("OutboxDeadLetters")
    _be_full(on)
    clear("OutboxPublishersRejected")
    _lose_a_lease(on)
    clear("OutboxLeaseLost", "OutboxPublishErrors")
    _act(on)
    _deliver(on)
    clear("OutboxRelayCircuitOpen", "OutboxRelayRefused")

    on.wait_until_firing("OutboxLongTransaction", "OutboxPreparedTransaction")
    held.rollback()
    on.database.execute("ROLLBACK PREPARED 'forgotten'")
    clear("OutboxLongTransaction", "OutboxPreparedTransaction")

    _be_odd(on)
    clear("OutboxSchemaOutdated", "OutboxReadingFails", "OutboxMessagesLost", "OutboxIdsRunOut")
    _lose_all_workers(on)
    clear("OutboxNoWorker", "OutboxLagTooOld", "OutboxRedeliveryStuck", "OutboxScheduledOverdue")
    _lose_the_database(on)
    clear("OutboxDown", "OutboxWorkerNotReady")

    on.wait_until_firing("OutboxRotationBlocked")
    on.database.execute("SELECT outbox.unsubscribe('archive', true)")
    clear("OutboxRotationBlocked")
    on.exporter.kill()
    on.wait_until_firing("OutboxExporterDown")
    on.exporter = on.start_exporter()
    clear("OutboxExporterDown")
    return told


def _be_full(on: Story) -> None:
    on.publish("full", 1, 2, 3)
    on.publish("orders.placed", "overfill")
    on.wait_until_firing("OutboxPublishersRejected", "OutboxPublishErrors")
    on.database.execute("SELECT outbox.purge('narrow')")


def _lose_a_lease(on: Story) -> None:
    """The database takes the worker for dead, while its handler is at work."""
    on.publish("orders.placed", "slow")
    at_work = "SELECT count(*) FROM outbox.in_flight WHERE subscription = 'mailer'"
    wait_for(lambda: on.database.value(at_work) > 0, "it is in hand")
    on.database.execute(
        "UPDATE outbox.worker SET alive_until = clock_timestamp() - interval '1 s'; SELECT outbox.recover()"
    )
    (on.folder / "lost").touch()
    on.wait_until_firing("OutboxLeaseLost")


def _deliver(on: Story) -> None:
    """A webhook's receiver is away, comes, refuses, and is content."""
    port = free_port()
    on.flow["hooks.out"] = 1
    with relaying(on.database.url, on.folder, RELAY.format(port), "--metrics", f"127.0.0.1:{on.relay_port}") as relay:
        on.wait_until_firing("OutboxRelayCircuitOpen")
        with receiving(port) as receiver:
            on.wait_until_quiet("OutboxRelayCircuitOpen")
            receiver.refuses[b"1"] = 422
            on.wait_until_firing("OutboxRelayRefused")
            receiver.refuses.clear()
            on.wait_until_quiet("OutboxRelayRefused")
            del on.flow["hooks.out"]
            relay.stop()
    on.database.execute("SELECT outbox.unsubscribe('hook', true)")  # it would publish what is due, as any worker


def _act(on: Story) -> None:
    """dramatiq's actors find messages that wait; one fails until it may not be tried again."""
    send(on.database, "resize", *range(40))
    send(on.database, "fail", 1)
    wait_for(lambda: on.series("outbox_actor_waiting_messages > 0"), "messages of actors wait")
    with acting(on.database, on.folder, on.actors_port), _sending(on, "resize"):
        for seen in (
            "outbox_actor_dead_letters > 0",
            "rate(dramatiq_message_errors_total[5s])",
            "rate(dramatiq_message_retries_total[5s])",
            "rate(dramatiq_message_rejects_total[5s])",
            "rate(dramatiq_message_duration_milliseconds_count[5s]) > 0",
        ):
            wait_for(partial(on.series, seen), seen)
    on.database.execute("SELECT outbox.unsubscribe('dramatiq.default', true)")


@contextmanager
def _sending(on: Story, actor: str) -> Iterator[None]:
    """Some a second: a rate shows only what comes between two scrapes."""
    over = threading.Event()

    def send_on_and_on() -> None:
        while not over.wait(0.1):
            send(on.database, actor, 1)

    thread = threading.Thread(target=send_on_and_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _be_odd(on: Story) -> None:
    """What is rare, each for a moment: an old schema, a missing privilege, a loss, an id that is used up."""
    execute = on.database.execute
    version = "CREATE OR REPLACE FUNCTION outbox.schema_version() RETURNS text LANGUAGE sql IMMUTABLE RETURN '{}'"
    execute(version.format("0000"))
    execute("REVOKE SELECT ON outbox.retention FROM outbox_monitor")
    execute("INSERT INTO outbox.loss (subscription_id, partition_id, first_offset, last_offset, messages) "
            "SELECT id, 1, 1, 7, 7 FROM outbox.subscription WHERE name = 'archive'")  # fmt: skip
    execute("SELECT setval('outbox.schedule_id_seq', (SELECT seqmax * 0.9 FROM pg_sequence "
            "WHERE seqrelid = 'outbox.schedule_id_seq'::regclass)::bigint)")  # fmt: skip
    on.wait_until_firing("OutboxSchemaOutdated", "OutboxReadingFails", "OutboxMessagesLost", "OutboxIdsRunOut")
    execute(version.format("0001"))
    execute("GRANT SELECT ON outbox.retention TO outbox_monitor")
    execute("UPDATE outbox.loss SET acknowledged_at = now()")
    execute("SELECT setval('outbox.schedule_id_seq', 1)")


def _lose_all_workers(on: Story) -> None:
    """An outage: what was to be tried again, and what was to be published, becomes overdue."""
    (on.folder / "broken").touch()
    on.publish("patience", 1)
    retrying = (
        "SELECT count(*) FROM outbox.redelivery r JOIN outbox.subscription s ON s.id = r.subscription_id "
        "WHERE s.name = 'patient'"
    )

    def is_left() -> bool:
        """It may have been in hand when the worker died; nobody else takes it from the dead."""
        on.database.value("SELECT outbox.recover()")
        return bool(on.database.value(retrying) == 1)

    wait_for(lambda: on.database.value(retrying) == 1, "it is to be tried again")
    on.worker.kill()
    wait_for(is_left, "it still is")
    with on.database.connect() as connection:
        Outbox().publish_later(connection, "orders.placed", "good", delay=timedelta(seconds=0.1))
    on.wait_until_firing("OutboxNoWorker", "OutboxLagTooOld", "OutboxRedeliveryStuck", "OutboxScheduledOverdue")
    (on.folder / "broken").unlink()
    on.worker = on.start_worker()


def _lose_the_database(on: Story) -> None:
    on.database.postgres.stop()
    on.wait_until_firing("OutboxDown", "OutboxWorkerNotReady")
    on.database.postgres.start()
    wait_for(lambda: on.series("outbox_up == 1"), "it is back")
    on.database.execute("SELECT outbox.seek_to('patient', 'first')")
