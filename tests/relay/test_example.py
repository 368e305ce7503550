"""`workers/relay.py` as it is run: alone with its own receiver, and by the command to somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy.orm import Session

from outbox.database import sqlalchemy_url
from tests.relay.receiver import Receiver
from tests.relay.running import wait_until_settled
from tests.servers import free_port
from tests.shop_floor import CommandProcess, Database, wait_for
from workers import shop


class Example(CommandProcess):
    module = "workers.relay"


@contextmanager
def ended(process: CommandProcess) -> Iterator[CommandProcess]:
    try:
        process.wait_for_line("worker started")
        yield process
    finally:
        process.kill()


def take_orders(database: Database, count: int) -> None:
    shop.create_tables(database.url)
    engine = sqlalchemy.create_engine(sqlalchemy_url(database.url), poolclass=sqlalchemy.NullPool)
    with Session(engine) as session:
        for n in range(count):
            shop.take_order(session, f"customer-{n}", 100 * n)
        session.commit()


def test_the_example_delivers_the_shop_s_orders_to_its_own_receiver(one_database: Database, tmp_path: Path) -> None:
    take_orders(one_database, 5)
    more = {"SHOP_RECEIVER_URL": f"http://127.0.0.1:{free_port()}/orders"}
    with ended(Example(one_database.url, tmp_path, more=more)) as process:
        wait_until_settled(one_database)
        wait_for(lambda: process.log.count("orders.placed: ") == 5, "all of them shown")
        assert '"customer":"customer-3"' in process.log.replace(" ", "")
        assert process.stop() == 0


def test_the_command_delivers_the_shop_s_orders_to_a_receiver_of_the_same_place(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    take_orders(one_database, 5)
    more = {"SHOP_RECEIVER_URL": receiver.url}
    with ended(CommandProcess(one_database.url, tmp_path, "relay", "-f", "workers.relay:app", more=more)) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    assert sorted({post.headers["ce-type"] for post in receiver.accepted}) == ["orders.placed"]
    assert len(receiver.accepted) == 5
