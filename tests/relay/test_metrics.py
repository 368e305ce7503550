"""`outbox relay --metrics`: what relays deliver, for Prometheus, of one process and of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.metrics.relays import RELAY
from tests.library.scraping import Series, get, parse, scrape, total
from tests.relay.receiver import Receiver
from tests.relay.running import RelayProcess, publish, relaying, wait_until_settled
from tests.servers import free_port
from tests.shop_floor import Database, wait_for

DEFINITION = """
[relays.hook]
url = "{}"
bindings = ["orders.*"]
allow_private = true
"""


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


def test_all_that_is_in_the_catalog_is_shown(
    one_database: Database, tmp_path: Path, receiver: Receiver, address: str
) -> None:
    with relaying(one_database.url, tmp_path, DEFINITION.format(receiver.url), "--metrics", address):
        page = get(f"http://{address}/metrics")[1]
    assert [metric.name for metric in RELAY if f"# TYPE {metric.name} {metric.kind}\n" not in page] == []
    outcomes = {dict(labels).get("outcome") for name, labels in parse(page) if name == "outbox_relay_delivered_total"}
    assert outcomes == {"delivered", "retried", "rejected"}, "each begins at 0: rate() sees the first"


def test_several_processes_are_one_page_each_with_its_label(
    one_database: Database, tmp_path: Path, receiver: Receiver, address: str
) -> None:
    publish(one_database, "orders.placed", range(60))
    process = RelayProcess(one_database.url, tmp_path, DEFINITION.format(receiver.url), "-p", "2", "--metrics", address)
    try:
        wait_for(lambda: get(f"http://{address}/readyz")[0] == 200, "both are ready")
        wait_until_settled(one_database)
        wait_for(lambda: get(f"http://{address}/healthz") == (200, "ok\n"), "both are alive")

        def counted() -> Series | None:
            """A moment after it was settled; who does not answer for two seconds is left out."""
            found = scrape(address)
            delivered = total(found, "outbox_relay_delivered_total", relay="hook", outcome="delivered")
            return found if (delivered, total(found, "outbox_worker_process_up")) == (60, 2) else None

        series = wait_for(counted, "all of both")
        assert process.stop() == 0
    finally:
        process.kill()
    for name in ("outbox_relay_delivered_total", "outbox_relay_circuit_open", "outbox_relay_delivery_seconds_count"):
        assert {dict(labels)["process"] for found, labels in series if found == name} == {"0", "1"}, name
