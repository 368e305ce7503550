"""dramatiq over outbox: the shop's actors, and a site that sends them messages in its transactions.

dramatiq workers.actors --processes 2 --threads 8    # the actors
python -m workers.actors                             # the site: an order a second, until Ctrl-C
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress

import dramatiq
import psycopg
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.results import Results

from outbox.database import libpq_url
from outbox.dramatiq import PostgresBroker, rate_limits, results

broker = PostgresBroker()  # OUTBOX_DATABASE_URL says where
counters = rate_limits.PostgresBackend()
broker.add_middleware(Results(backend=results.PostgresBackend()))
broker.add_middleware(GroupCallbacks(counters))
dramatiq.set_broker(broker)

#: The bank takes two payments at a time.
bank = ConcurrentRateLimiter(counters, "bank", limit=2)


@dramatiq.actor(queue_name="payments", max_retries=5, min_backoff=500, store_results=True)
def charge(order: int, amount: str) -> str:
    """Charge an order; what fails is tried again, and its retry commits with the settlement."""
    with bank.acquire():
        print(f"order {order}: {amount} charged", flush=True)
        return f"receipt-{order}"


@dramatiq.actor(priority=5)
def confirm(receipt: str) -> None:
    """Send the confirmation of a receipt: less urgent than all else."""
    print(f"{receipt} confirmed", flush=True)


@dramatiq.actor
def remind(order: int) -> None:
    """Ask for a review, some time after the order."""
    print(f"order {order}: how do you like it?", flush=True)


def place_order(connection: psycopg.Connection, order: int) -> None:
    """Note an order and send its messages, in one commit: neither is there without the other."""
    with connection.transaction(), broker.transaction(connection):
        connection.execute("INSERT INTO actors_order (id) VALUES (%s)", (order,))
        dramatiq.pipeline([charge.message(order, "9.90"), confirm.message_with_options()]).run()  # it gets the receipt
        remind.send_with_options(args=(order,), delay=3_000)


def main() -> None:
    """Place an order a second."""
    with psycopg.connect(libpq_url(os.environ["OUTBOX_DATABASE_URL"]), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS actors_order (id bigint PRIMARY KEY)")
        row = connection.execute("SELECT coalesce(max(id), 0) FROM actors_order").fetchone()
        with suppress(KeyboardInterrupt):
            for order in itertools.count(row[0] + 1 if row else 1):
                place_order(connection, order)
                time.sleep(1)


if __name__ == "__main__":
    main()
