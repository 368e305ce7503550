"""The page's way to outgrow one machine, as it stands there: a log in Kafka, and each service's Postgres behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outbox import NewMessage, Outbox
from tests.relay.peers import KafkaPeer, MockPeer, TansuPeer
from tests.relay.running import check_ledger, relaying, wait_until_settled
from tests.servers import Postgres
from tests.shop_floor import ROOT, Database, wait_for, worker

SECTION = (ROOT / "docs" / "relays.md").read_text().partition("## Outgrowing one machine")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(?:toml|python)\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
MOVES = re.findall(r"^```sql\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
ORDERS = 1_500
PEER = "kafka"


RECEIPTS = "CREATE TABLE receipts (number bigint GENERATED ALWAYS AS IDENTITY, order_id int)"


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


def of_peer(text: str, peer: KafkaPeer) -> str:
    """A file of the page, with another Kafka and a topic of the test."""
    text = text.replace("kafka://127.0.0.1:9092", peer.url)
    return text.replace('address = "shop"', f'address = "{peer.name}"\nbatch = 50')


def place(shop: Database, numbers: range) -> None:
    with shop.connect() as connection:
        orders = [NewMessage({"id": n}, key=f"k{n % 7}") for n in numbers]
        Outbox().publish_many(connection, "orders.placed", orders)


def receipts(mailer: Database) -> int:
    return int(mailer.value("SELECT count(*) FROM receipts"))


def check_receipts(mailer: Database, orders: int) -> None:
    with mailer.connect() as connection:
        rows = connection.execute("SELECT order_id FROM receipts ORDER BY number").fetchall()
    check_ledger([(str(n), n) for (n,) in rows], range(orders))


def test_effects_are_exactly_once_behind_kafka_though_all_processes_are_killed_again_and_again(
    shop: Database, one_database: Database, tmp_path: Path, peer: TansuPeer
) -> None:
    mailer, (shop_file, mailer_file, program) = one_database, BLOCKS
    mailer.execute(RECEIPTS)
    peer.create()
    place(shop, range(ORDERS))

    def start(part: str, processes: ExitStack) -> None:
        """The three processes of the page; each in a folder of its own."""
        folders = [tmp_path / f"{part}-{one}" for one in ("shop", "mailer", "handlers")]
        for folder in folders:
            folder.mkdir()
        processes.enter_context(relaying(shop.url, folders[0], of_peer(shop_file, peer), "--timeout", "2"))
        processes.enter_context(relaying(mailer.url, folders[1], of_peer(mailer_file, peer), "--timeout", "2"))
        processes.enter_context(worker(mailer.url, folders[2], program, "--timeout", "2"))

    for part, wanted in ("first", 50), ("second", 500):
        with ExitStack() as processes:
            start(part, processes)
            wait_for(lambda wanted=wanted: receipts(mailer) >= wanted, f"{wanted} receipts")  # type: ignore[misc]
    with ExitStack() as processes:
        start("last", processes)
        wait_for(lambda: receipts(mailer) >= ORDERS, "all receipts")
        wait_until_settled(shop)
        wait_until_settled(mailer)
    check_receipts(mailer, ORDERS)


@pytest.mark.parametrize("peer", ["librdkafka"], indirect=True)
def test_the_statements_of_the_page_move_a_subscription_from_a_source_to_kafka_itself_and_back(
    shop: Database, one_database: Database, tmp_path: Path, peer: MockPeer
) -> None:
    mailer, (shop_file, mailer_file, program), (there, back) = one_database, BLOCKS, MOVES
    mailer.execute(RECEIPTS)
    peer.create()
    source, handlers = tmp_path / "source", tmp_path / "handlers"
    for folder in source, handlers:
        folder.mkdir()
    (handlers / "mailer.toml").write_text(of_peer(mailer_file, peer))

    def handle(begin: int, *arguments: str) -> None:
        """A hundred orders more; then all is settled and stopped."""
        place(shop, range(begin, begin + 100))
        with worker(mailer.url, handlers, program, *arguments) as process:
            wait_for(lambda: receipts(mailer) >= begin + 100, f"receipts from {begin} on")
            wait_until_settled(mailer)
            assert process.stop() == 0

    def handle_through_the_log(begin: int) -> None:
        with relaying(mailer.url, source, of_peer(mailer_file, peer)) as process:
            handle(begin)
            assert process.stop() == 0

    with relaying(shop.url, tmp_path, of_peer(shop_file, peer)):
        handle_through_the_log(0)
        mailer.execute(there)
        handle(100, "--from", "shop", "-f", "mailer.toml")
        mailer.execute(back)
        handle_through_the_log(200)
        wait_until_settled(shop)
    check_receipts(mailer, 300)
