"""The page's way to outgrow one machine, as it stands there: a log in Kafka, and each service's Postgres behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outbox import NewMessage, Outbox
from tests.relay.peers import TansuPeer
from tests.relay.running import check_ledger, relaying, wait_until_settled
from tests.servers import Postgres
from tests.shop_floor import ROOT, Database, wait_for, worker

SECTION = (ROOT / "docs" / "relays.md").read_text().partition("## Outgrowing one machine")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(?:toml|python)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
ORDERS = 1_500
PEER = "kafka"


@pytest.fixture
def shop(newest_postgres: Postgres) -> Iterator[Database]:
    """The shop's database; `one_database` is the mailer's."""
    newest_postgres.execute("CREATE DATABASE outgrown_shop TEMPLATE outbox_template")
    database = Database(newest_postgres, "outgrown_shop")
    try:
        yield database
    finally:
        database.close()
        newest_postgres.execute("DROP DATABASE outgrown_shop WITH (FORCE)")


def test_effects_are_exactly_once_behind_kafka_though_all_processes_are_killed_again_and_again(
    shop: Database, one_database: Database, tmp_path: Path, peer: TansuPeer
) -> None:
    mailer, (shop_file, mailer_file, program) = one_database, BLOCKS
    mailer.execute("CREATE TABLE receipts (number bigint GENERATED ALWAYS AS IDENTITY, order_id int)")
    peer.create()
    with shop.connect() as connection:
        orders = [NewMessage({"id": n}, key=f"k{n % 7}") for n in range(ORDERS)]
        Outbox().publish_many(connection, "orders.placed", orders)

    def start(part: str, processes: ExitStack) -> None:
        """The three processes of the page; each in a folder of its own."""
        folders = [tmp_path / f"{part}-{one}" for one in ("shop", "mailer", "handlers")]
        for folder in folders:
            folder.mkdir()
        texts = [text.replace("kafka://127.0.0.1:9092", peer.url) for text in (shop_file, mailer_file)]
        texts = [text.replace('address = "shop"', f'address = "{peer.name}"\nbatch = 50') for text in texts]
        processes.enter_context(relaying(shop.url, folders[0], texts[0], "--timeout", "2"))
        processes.enter_context(relaying(mailer.url, folders[1], texts[1], "--timeout", "2"))
        processes.enter_context(worker(mailer.url, folders[2], program, "--timeout", "2"))

    def receipts() -> int:
        return int(mailer.value("SELECT count(*) FROM receipts"))

    for part, wanted in ("first", 50), ("second", 500):
        with ExitStack() as processes:
            start(part, processes)
            wait_for(lambda wanted=wanted: receipts() >= wanted, f"{wanted} receipts")  # type: ignore[misc]
    with ExitStack() as processes:
        start("last", processes)
        wait_for(lambda: receipts() >= ORDERS, "all receipts")
        wait_until_settled(shop)
        wait_until_settled(mailer)
    with mailer.connect() as connection:
        rows = connection.execute("SELECT order_id FROM receipts ORDER BY number").fetchall()
    check_ledger([(str(n), n) for (n,) in rows], range(ORDERS))
