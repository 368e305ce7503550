"""The internet shop: the reference application.

The site takes orders and publishes them in the same transaction; it knows nobody who reads them. Accounting books each
order, the mailer confirms it, and a CRM that was added later knows each customer.

    outbox worker workers.shop:app --only accounting
    python -m workers.shop                              # the site
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import create_engine, func
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from outbox import Message, Outbox, Retries
from outbox.database import sqlalchemy_url

app = Outbox()

#: Short, so that a demonstration shows its end: a message that is no order is given up on in seconds.
SOON = Retries(first=timedelta(seconds=0.5), longest=timedelta(seconds=4), max_attempts=8)


class Table(DeclarativeBase):
    """The shop's own tables; outbox touches none of them."""


class Order(Table):
    __tablename__ = "shop_order"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    cents: Mapped[int]
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Booking(Table):
    """The accounting system's: a second booking of an order would be an error."""

    __tablename__ = "shop_booking"

    order_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cents: Mapped[int]


class Mail(Table):
    """What the mailer has sent; a mail that was sent twice is here twice."""

    __tablename__ = "shop_mail"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]


class Contact(Table):
    """The CRM's."""

    __tablename__ = "shop_contact"

    order_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    customer: Mapped[str]


def take_order(session: Session, customer: str, cents: int) -> Order:
    """The business change and its message: one transaction, which the caller commits."""
    order = Order(customer=customer, cents=cents)
    session.add(order)
    session.flush()  # for the id
    app.publish(session, "orders.placed", {"id": order.id, "customer": customer, "cents": cents}, key=customer)
    return order


@app.subscribe("accounting", "orders.placed", guarantee="exactly-once", retries=SOON)
def book(message: Message, session: Session) -> None:
    """The booking and the settlement of the message are one commit."""
    session.add(Booking(order_id=message.payload["id"], cents=message.payload["cents"]))


@app.subscribe("mailer", "orders.placed", guarantee="exactly-once", concurrency=4, retries=SOON)
def confirm(message: Message, connection: psycopg.Connection) -> None:
    """Fails now and then; the mail that it had written rolls back, and the message is tried again."""
    connection.execute("INSERT INTO shop_mail (order_id) VALUES (%s)", (message.payload["id"],))
    if random.random() < 0.05:
        raise ConnectionError("the mail server hung up")


@app.subscribe("crm", "orders.#", concurrency=4, retries=SOON)
async def know_customer(message: Message, connection: psycopg.AsyncConnection) -> None:
    """At-least-once: so it is written in a way that may happen twice."""
    await connection.execute(
        "INSERT INTO shop_contact (order_id, customer) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (message.payload["id"], message.payload["customer"]),
    )


def run_site(url: str, rate: float, stop: threading.Event) -> None:
    """Take about `rate` orders a second until told to stop. Now and then a card is declined: no order, no message."""
    engine = create_engine(sqlalchemy_url(url))
    while not stop.wait(random.expovariate(rate)):
        with Session(engine) as session:
            take_order(session, f"customer-{random.randint(1, 200)}", random.randint(500, 50_000))
            if random.random() < 0.05:
                session.rollback()
            else:
                session.commit()


def create_tables(url: str) -> None:
    """Create the shop's tables, empty."""
    engine = create_engine(sqlalchemy_url(url))
    Table.metadata.drop_all(engine)
    Table.metadata.create_all(engine)
    engine.dispose()


if __name__ == "__main__":
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    run_site(os.environ["OUTBOX_DATABASE_URL"], float(sys.argv[1]) if len(sys.argv) > 1 else 40, stopped)
