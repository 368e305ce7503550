"""Publishers whose COMMITs get lost try again until they know: an idempotency key makes that safe."""

from __future__ import annotations

import contextlib
import random
import threading
from contextlib import suppress

import psycopg
import pytest

from outbox import NewMessage, Outbox, once
from tests.crash.proxy import Proxy
from tests.shop_floor import Database

ORDERS = 60


class Publisher(threading.Thread):
    """Publishes each order until a COMMIT is confirmed, while others publish the same ones."""

    def __init__(self, url: str, orders: list[int]) -> None:
        super().__init__()
        self.url, self.orders = url, orders
        self.unknown = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for order in self.orders:
                while not self.is_published(order):
                    self.unknown += 1
        except BaseException as error:
            self.error = error

    def is_published(self, order: int) -> bool:
        app = Outbox()
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=10) as db:
            if order % 3:
                app.publish(db, "orders", order, idempotency_key=f"order-{order}")
            else:
                app.publish_many(db, "orders", [NewMessage(order, idempotency_key=f"order-{order}")])
            if once(db, "shop", f"stock-{order}"):
                db.execute("INSERT INTO stock VALUES (%s)", (order,))
            db.commit()
            return True
        return False


@pytest.mark.parametrize("publishers", [1, 3])
def test_an_order_that_is_tried_again_after_a_lost_commit_is_published_once(
    one_database: Database, publishers: int
) -> None:
    one_database.execute("CREATE TABLE stock (id int)")
    one_database.execute("SELECT outbox.declare_topic('orders', partitions => 3)")
    seed = random.randrange(1_000_000)
    with contextlib.closing(Proxy(one_database.postgres.port, seed)) as proxy:
        proxy.losing = 0.4
        threads = [
            Publisher(proxy.url(one_database.name), random.Random(seed + n).sample(range(ORDERS), ORDERS))
            for n in range(publishers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [thread.error for thread in threads] == [None] * publishers, f"seed {seed}"
    assert sum(thread.unknown for thread in threads) > 10, "no outcome was unknown: this tests nothing"
    published = "SELECT array_agg(payload::text::int ORDER BY payload::text::int) FROM outbox.message"
    assert one_database.value(published) == list(range(ORDERS)), f"seed {seed}"
    assert one_database.value("SELECT array_agg(id ORDER BY id) FROM stock") == list(range(ORDERS)), f"seed {seed}"
