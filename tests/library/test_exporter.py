"""`outbox exporter`: how a database stands, for Prometheus."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from outbox.metrics.database import DatabaseCollector
from outbox.metrics.readings import OWN, READINGS
from outbox.metrics.server import Answers, Server
from tests.shop_floor import Database, outbox, publish, pull, register, subscribe

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str, **more: int) -> Series:
    registry, collector = CollectorRegistry(), DatabaseCollector(url, **more)
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
    found = {labels: value for (name, labels), value in series.items() if name == "outbox_topic_offsets"}
    assert found == {frozenset({("topic", "a")}): 3, frozenset({("topic", "")}): 2}


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
    metrics = [*OWN, *(metric for reading in READINGS for metric in reading.metrics)]
    assert len({metric.name for metric in metrics}) == len(metrics)
    assert all((metric.kind == "counter") == metric.name.endswith("_total") for metric in metrics)
    listed = outbox(one_database.url, "exporter", "--list").stdout
    assert all(metric.name in listed for metric in metrics)


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
