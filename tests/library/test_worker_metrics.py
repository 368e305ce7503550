"""`outbox worker --metrics`: what worker processes have done, for Prometheus, and whether they are well."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from outbox import Outbox
from outbox.errors import InvalidMessage
from outbox.metrics.worker import WORKER
from outbox.published import Published
from tests.library.scraping import Series, get, scrape, total
from tests.library.workshop import PREAMBLE, publish, wait_for_rest
from tests.servers import free_port
from tests.shop_floor import Database, outbox, wait_for, worker

APP = f"""{PREAMBLE}
@app.subscribe("s", "t", retries=SOON)
def handle(message):
    if message.payload == "bad":
        raise ValueError
    if message.payload == "odd":
        raise Reject("odd")

@app.subscribe("exact", "t", guarantee="exactly-once")
def copy(message, connection: psycopg.Connection):
    app.publish(connection, "copies", message.payload)
"""


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


HANDLED = "outbox_handled_messages_total"


def page(address: str, shows: Callable[[Series], bool]) -> Series:
    """The metrics, once they show that: what is committed is counted a moment later."""
    found: list[Series] = []

    def is_shown() -> bool:
        found.append(scrape(address))
        return shows(found[-1])

    try:
        wait_for(is_shown, "the metrics")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found[-1]}") from None
    return found[-1]


def test_what_came_of_messages_is_counted(shop: Database, tmp_path: Path, address: str) -> None:
    counts = (
        (2, HANDLED, {"subscription": "s", "outcome": "done"}),
        (2, HANDLED, {"subscription": "s", "outcome": "retry"}),
        (2, HANDLED, {"subscription": "s", "outcome": "dead"}),
        (1, "outbox_dead_letters_total", {"subscription": "s", "reason": "rejected"}),
        (1, "outbox_dead_letters_total", {"subscription": "s", "reason": "attempts exhausted"}),
        (6, "outbox_handler_seconds_count", {"subscription": "s"}),
        (4, "outbox_delivery_seconds_count", {"subscription": "s"}),
        (4, HANDLED, {"subscription": "exact", "outcome": "done"}),
        (4, "outbox_published_messages_total", {"topic": "copies"}),
        (1, "outbox_worker_ready", {}),
    )
    publish(shop, "t", "good", "good", "bad", "odd")
    with worker(shop.url, tmp_path, APP, "--metrics", address):
        wait_for_rest(shop)
        page(address, lambda series: all(total(series, name, **labels) == count for count, name, labels in counts))
        series = page(address, lambda series: total(series, "outbox_settled_leases_total", subscription="s") > 0)
    assert total(series, "outbox_pulls_total", subscription="s", result="messages") > 0
    assert total(series, "outbox_pool_connections", pool="handlers") > 0


def test_all_that_is_in_the_catalog_is_shown(shop: Database, tmp_path: Path, address: str) -> None:
    with worker(shop.url, tmp_path, APP, "--metrics", address):
        page = get(f"http://{address}/metrics")[1]
    assert [metric.name for metric in WORKER if f"# TYPE {metric.name} {metric.kind}\n" not in page] == []


def test_the_processes_of_a_supervisor_are_one_page(shop: Database, tmp_path: Path, address: str) -> None:
    publish(shop, "t", *["good"] * 50)
    with worker(shop.url, tmp_path, APP, "--metrics", address, "--processes", "2"):
        wait_for_rest(shop)
        wait_for(lambda: get(f"http://{address}/readyz")[0] == 200, "both are ready")
        wait_for(lambda: get(f"http://{address}/healthz") == (200, "ok\n"), "both are alive")
        series = page(address, are_both_there)
    assert {dict(labels)["process"] for name, labels in series if name == "outbox_worker_ready"} == {"0", "1"}


def are_both_there(series: Series) -> bool:
    """Who does not answer for two seconds is left out."""
    done = total(series, HANDLED, subscription="s", outcome="done")
    return done == 50 and total(series, "outbox_worker_process_up") == 2


def test_a_process_that_dies_takes_nothing_from_the_others(shop: Database, tmp_path: Path, address: str) -> None:
    with worker(shop.url, tmp_path, APP, "--metrics", address, "--processes", "2") as process:
        wait_for(lambda: get(f"http://{address}/readyz")[0] == 200, "both are ready")
        publish(shop, "t", *["good"] * 50)
        wait_for_rest(shop)
        before = page(address, are_both_there)
        path = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children")
        first, second = path.read_text().split()
        os.kill(int(first), signal.SIGKILL)
        wait_for(lambda: len({*path.read_text().split()} - {first, second}) == 1, "another is in its place")
        after = page(address, lambda series: total(series, "outbox_worker_process_up") == 2)
    of_s = {"subscription": "s", "outcome": "done"}
    counts = [[total(series, HANDLED, process=place, **of_s) for place in "01"] for series in (before, after)]
    assert any(new == old for old, new in zip(*counts, strict=True))


def test_a_worker_without_its_database_is_alive_and_not_ready(
    own_postgres: Database, tmp_path: Path, address: str
) -> None:
    with worker(own_postgres.url, tmp_path, APP, "--metrics", address, "--timeout", "2"):
        wait_for(lambda: get(f"http://{address}/readyz")[0] == 200, "it is ready")
        own_postgres.postgres.stop()
        wait_for(lambda: get(f"http://{address}/readyz")[0] == 503, "it is not ready")
        wait_for(lambda: get(f"http://{address}/healthz")[0] == 200, "it is alive")
        wait_for(lambda: total(scrape(address), "outbox_pulls_total", result="away") > 0, "a pull that failed")
        own_postgres.postgres.start()
        wait_for(lambda: get(f"http://{address}/readyz")[0] == 200, "it is ready again")


BLOCKING = f"""{PREAMBLE}
@app.subscribe("s", "t", time_limit=None)
async def handle(message):
    note("begins")
    time.sleep(20)
"""


def test_a_worker_whose_event_loop_stands_still_is_not_alive(shop: Database, tmp_path: Path, address: str) -> None:
    with worker(shop.url, tmp_path, BLOCKING, "--metrics", address, "--timeout", "3"):
        wait_for(lambda: get(f"http://{address}/healthz")[0] == 200, "it is alive")
        publish(shop, "t", 1)
        wait_for(lambda: get(f"http://{address}/healthz")[0] in (503, 0), "its loop stands still, or it is replaced")


@pytest.mark.parametrize("where", ["nowhere", "127.0.0.1:99999"])
def test_what_is_no_address_is_wrong_usage(one_database: Database, tmp_path: Path, where: str) -> None:
    (tmp_path / "app_under_test.py").write_text(APP)
    result = outbox(one_database.url, "worker", "app_under_test:app", "--metrics", where, folder=tmp_path)
    assert result.returncode == 2
    assert "is not HOST:PORT" in result.stderr


def test_a_port_that_is_taken_is_said(one_database: Database, tmp_path: Path) -> None:
    port = one_database.postgres.port
    (tmp_path / "app_under_test.py").write_text(APP)
    result = outbox(one_database.url, "worker", "app_under_test:app", "--metrics", f"127.0.0.1:{port}", folder=tmp_path)
    assert result.returncode == 2
    assert "can't serve metrics at" in result.stderr


def test_publishes_that_fail_are_counted_by_error(one_database: Database) -> None:
    app = Outbox()
    with psycopg.connect(one_database.url) as connection:
        with pytest.raises(InvalidMessage):
            app.publish(connection, "t", float("nan"))
        app.publish_many(connection, "t", [1, 2, 3])
    assert app.published.messages() == [("t", 3)]
    assert dict(app.published.errors()) == {"InvalidMessage": 1, "TopicNotDeclared": 0, "BacklogFull": 0}


def test_topics_beyond_a_hundred_are_counted_together() -> None:
    published = Published()
    for number in range(120):
        published.add(f"t{number}", 2)
    published.add("t0", 1)
    counts = dict(published.messages())
    assert len(counts) == 101
    assert (counts["t0"], counts["other"]) == (3, 40)
