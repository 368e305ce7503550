"""`outbox exporter`: how a database stands, for Prometheus."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from outbox import logs
from outbox.metrics import database
from outbox.metrics.catalog import Metric
from outbox.metrics.children import PROCESS_UP
from outbox.metrics.database import DatabaseCollector
from outbox.metrics.readings import DATABASE, READINGS, Reading
from outbox.metrics.relays import RELAY
from outbox.metrics.server import Answers, Server, _Tcp
from outbox.metrics.worker import WORKER
from tests.library.scraping import get
from tests.library.test_roles import drop_roles
from tests.servers import PgBouncer
from tests.shop_floor import PATIENCE, Database, outbox, publish, pull, register, subscribe, wait_for

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str, **more: int) -> Series:
    registry, collector = CollectorRegistry(), DatabaseCollector(url, **{"timeout": 60, **more})
    registry.register(collector)
    text = generate_latest(registry).decode()
    collector.close()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def of(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def test_a_subscription_shows_its_lag_and_what_is_in_flight(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    subscribe(db, "s", "t")
    publish(db, "t", *"abc")
    pull(db, "s", register(db), limit=1)
    series = scrape(one_database.url)
    assert of(series, "outbox_up") == 1
    assert of(series, "outbox_subscription_lag_messages", subscription="s") == 2
    assert of(series, "outbox_subscription_in_flight_messages", subscription="s") == 1
    lag = of(series, "outbox_subscription_lag_seconds", subscription="s")
    assert 0 < lag <= of(series, "outbox_subscription_oldest_unsettled_seconds", subscription="s")
    assert of(series, "outbox_subscription_partitions_without_worker", subscription="s") == 1


def test_every_reading_succeeds(one_database: Database) -> None:
    series = scrape(one_database.url)
    assert {
        reading.name: of(series, "outbox_reading_up", reading=reading.name) for reading in READINGS
    } == dict.fromkeys((reading.name for reading in READINGS), 1)


def test_topics_beyond_the_limit_are_one_series(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    for topic, payloads in (("a", "123"), ("b", "1"), ("c", "1")):
        publish(db, topic, *payloads)
    series = scrape(one_database.url, topics=1)
    found = {
        labels: value for (name, labels), value in series.items() if name == "outbox_topic_published_messages_total"
    }
    assert found == {frozenset({("topic", "a")}): 3, frozenset({("topic", "other")}): 2}


def test_a_broken_database_is_down_and_no_crash() -> None:
    assert of(scrape("postgresql://nobody@127.0.0.1:1/nothing"), "outbox_up") == 0


def test_a_connection_that_broke_is_opened_again(one_database: Database) -> None:
    collector = DatabaseCollector(one_database.url)
    assert collector.is_ready()
    one_database.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'outbox exporter'"
    )
    assert collector.is_ready()
    collector.close()


def test_names_follow_prometheus(one_database: Database) -> None:
    metrics = [*DATABASE, *WORKER, *RELAY, PROCESS_UP]
    assert len({metric.name for metric in metrics}) == len(metrics)
    assert all((metric.kind == "counter") == metric.name.endswith("_total") for metric in metrics)
    assert all(re.fullmatch(r"outbox_[a-z_]+", metric.name) and metric.help.endswith(".") for metric in metrics)
    listed = outbox(one_database.url, "exporter", "--list").stdout
    assert all(metric.name in listed for metric in (*DATABASE, *WORKER, *RELAY))


@pytest.fixture
def address(one_database: Database) -> Iterator[str]:
    registry, collector = CollectorRegistry(), DatabaseCollector(one_database.url)
    registry.register(collector)
    server = Server(("127.0.0.1", 0), Answers(lambda: generate_latest(registry), collector.is_ready))
    server.start()
    yield server.url
    server.close()
    collector.close()


@pytest.mark.parametrize(("path", "text"), [("/metrics", "outbox_up 1.0"), ("/healthz", "ok"), ("/readyz", "ready")])
def test_it_answers_over_http(address: str, path: str, text: str) -> None:
    with urllib.request.urlopen(address + path, timeout=30) as answer:
        assert text in answer.read().decode()


def test_each_state_of_a_message_is_shown(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    subscribe(db, "s", "t")
    publish(db, "t", *"abcd")
    worker = register(db)
    retried, dead, *_ = pull(db, "s", worker, limit=3)
    failures = [
        {"lease": retried.lease, "offset": retried.offset, "delay": 0, "error": {}, "charged": True},
        {"lease": dead.lease, "offset": dead.offset, "delay": None, "reason": "rejected", "error": {}, "charged": True},
    ]
    db.execute("SELECT outbox.settle(%s, %s, %s::int8multirange[], %s)", (
        worker, [retried.lease], [f"{{[{retried.offset},{dead.offset}]}}"], json.dumps(failures),
    ))  # fmt: skip
    wait_for(
        lambda: one_database.value("SELECT count(*) FROM outbox.redelivery WHERE due_at <= now()") == 1, "it is due"
    )
    series = scrape(one_database.url)
    shown = {name.removeprefix("outbox_subscription_"): value for (name, labels), value in series.items() if labels}
    assert shown["lag_messages"] == 1
    assert shown["taken_messages_total"] == 3
    assert shown["in_flight_messages"] == 1
    assert shown["redeliveries"] == 1
    assert shown["redeliveries_due"] == 1
    assert shown["redelivery_overdue_seconds"] > 0
    assert shown["dead_letters"] == 1
    assert shown["last_dead_letter_timestamp_seconds"] > 1e9


def test_who_monitors_and_may_read_no_content_sees_it_all(one_database: Database) -> None:
    one_database.execute("SELECT outbox.grant_roles(true)")
    db = one_database.connect(autocommit=True)
    subscribe(db, "s", "t")
    publish(db, "t", *"abc")
    name = f"watcher_{one_database.name}"
    one_database.execute(f"CREATE ROLE {name} LOGIN IN ROLE outbox_monitor")
    try:
        series = scrape(one_database.url.replace("postgres@", f"{name}@"))
        assert {key for key, value in series.items() if key[0] == "outbox_reading_up" and value != 1} == set()
        assert of(series, "outbox_subscription_lag_messages", subscription="s") == 3
    finally:
        one_database.execute(f"DROP ROLE {name}")
        drop_roles(one_database)


def test_a_transaction_that_stays_open_is_shown_with_and_without_xid(one_database: Database) -> None:
    writer, reader = one_database.connect(), one_database.connect()
    writer.execute("SELECT pg_current_xact_id()")
    reader.execute("SELECT 1")
    series = scrape(one_database.url)
    assert of(series, "outbox_oldest_transaction_with_xid_seconds") > 0
    assert of(series, "outbox_oldest_transaction_without_xid_seconds") > 0


def test_who_holds_a_slot_that_is_due_is_shown(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    subscribe(db, "slow", "t")
    publish(db, "t", "a")
    db.execute("UPDATE outbox.retention SET slot_width = interval '1 second' WHERE name = 'standard'")

    def blocked() -> bool:
        series = scrape(one_database.url)
        return any(
            name == "outbox_rotation_blocked" and value == 1 and dict(labels)["subscription"] == "slow"
            for (name, labels), value in series.items()
        )

    wait_for(blocked, "the slot is due, and held")


def test_an_older_schema_is_outdated_and_no_error(one_database: Database) -> None:
    one_database.execute("CREATE OR REPLACE FUNCTION outbox.schema_version() RETURNS text LANGUAGE sql RETURN '0000'")
    series = scrape(one_database.url)
    assert of(series, "outbox_schema_outdated") == 1
    assert of(series, "outbox_schema_info", installed="0000", wanted="0001") == 1


def test_a_statement_that_takes_long_is_run_seldom(one_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one_database.execute("CREATE SEQUENCE runs")
    metrics = (Metric("outbox_slow", "Slow.", labels=("run",)),)
    slow = Reading("slow", "SELECT nextval('runs')::text, pg_sleep(0.2) IS NULL", metrics)
    monkeypatch.setattr(database, "READINGS", (slow,))
    registry, collector = CollectorRegistry(), DatabaseCollector(one_database.url)
    registry.register(collector)
    pages = [generate_latest(registry).decode() for _ in range(3)]
    assert all('outbox_slow{run="1"}' in page for page in pages)
    collector.close()


def test_a_statement_that_fails_by_its_time_limit_is_run_seldom_too(
    one_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_database.execute("CREATE SEQUENCE runs")  # that no rollback undoes
    metrics = (Metric("outbox_slow", "Slow.", labels=("run",)),)
    slow = Reading("slow", "SELECT nextval('runs')::text, pg_sleep(60) IS NULL", metrics)
    monkeypatch.setattr(database, "READINGS", (slow,))
    registry, collector = CollectorRegistry(), DatabaseCollector(one_database.url, timeout=0.2)
    registry.register(collector)
    pages = [generate_latest(registry).decode() for _ in range(3)]
    collector.close()
    assert all('outbox_reading_up{reading="slow"} 0.0' in page for page in pages)
    assert one_database.value("SELECT last_value FROM runs") == 1


def test_a_page_that_can_not_be_made_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bytes:
        raise ValueError("broken")

    monkeypatch.setattr(logs.logger, "propagate", True)
    server = Server(("127.0.0.1", 0), Answers(broken, lambda: True))
    server.start()
    try:
        assert get(f"{server.url}/metrics")[0] == 0
        wait_for(lambda: "metrics can't be shown" in caplog.text, "it is logged")
    finally:
        server.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_scraper_that_hangs_up_is_no_news(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> bytes:
        asked.set()
        go_on.wait(PATIENCE)
        return b"x" * 50_000_000

    class Watched(_Tcp):
        def shutdown_request(self, request: object) -> None:
            super().shutdown_request(request)  # type: ignore[arg-type]  # a socket
            ended.set()

    monkeypatch.setattr("outbox.metrics.server._Tcp", Watched)
    monkeypatch.setattr(logs.logger, "propagate", True)
    server = Server(("127.0.0.1", 0), Answers(slow, lambda: True))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert asked.wait(PATIENCE)
        go_on.set()
        assert ended.wait(PATIENCE)
    finally:
        server.close()
    assert (caplog.text, capfd.readouterr().err) == ("", "")


def test_it_works_behind_a_pooler_and_leaves_no_setting_there(one_database: Database, pgbouncer: PgBouncer) -> None:
    url = pgbouncer.url(one_database.name)
    wait_for(lambda: of(scrape(url), "outbox_up") == 1, "the pooler is up")
    series = scrape(url)
    assert {value for (name, _), value in series.items() if name == "outbox_reading_up"} == {1}
    with psycopg.connect(url, prepare_threshold=None) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
