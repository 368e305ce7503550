"""One publisher: business transactions that publish, until SIGTERM, each with its orders' rows in `ledger`.

After an error it connects again and goes on with new ids, as if the transaction had failed: the ledger knows better.

    python -m tests.crash.publisher URL NAME SEED [MESSAGES]    MESSAGES: publish so many in one transaction, and end
"""

from __future__ import annotations

import random
import signal
import sys
import time
from contextlib import closing
from typing import Any

import psycopg

from outbox import NewMessage, Outbox
from outbox.database import without_prepared_statements

#: The database is away; the last is what psycopg makes of PgBouncer's answer to a COMMIT when the server has crashed.
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError)
#: Keys that all publishers contend for.
KEYS = 20


class Publisher:
    def __init__(self, url: str, name: str, seed: int) -> None:
        self.url, self.name, self.chance = url, name, random.Random(seed)
        self.app = Outbox()
        self.number = 0
        self.is_committing = self.is_stopping = False

    def run(self) -> None:
        while not self.is_stopping:
            self._while_connected(self._publish_until_stopped)

    def run_hugely(self, messages: int) -> None:
        """Try until it is known to have committed."""
        while not self.is_stopping:
            self._while_connected(lambda connection: self._publish_hugely(connection, messages))

    def stop(self, *_: Any) -> None:
        self.is_stopping = True

    def _while_connected(self, act: Any) -> None:
        try:
            with closing(psycopg.connect(self.url, connect_timeout=5)) as connection:
                without_prepared_statements(connection)
                act(connection)
        except _AWAY as error:
            if self.is_committing and getattr(error, "sqlstate", None) is None:
                print("unknown outcome", f"{self.name}-{self.number}", flush=True)
            self.is_committing = False
            time.sleep(self.chance.random() * 0.1)

    def _publish_until_stopped(self, connection: psycopg.Connection[Any]) -> None:
        acts = [self._one, self._several, self._burst, self._with_savepoint, self._publish_first]
        while not self.is_stopping:
            self.chance.choices(acts, [50, 15, 5, 10, 20])[0](connection)
            if self.chance.random() < 0.05:
                time.sleep(self.chance.random() * 0.1)
            if self.chance.random() < 0.1:
                connection.rollback()
            else:
                self._commit(connection)
            time.sleep(self.chance.random() * 0.04)

    def _publish_hugely(self, connection: psycopg.Connection[Any], messages: int) -> None:
        for n in range(KEYS):
            self._order(connection, f"{self.name}-{n}", messages // KEYS)
        time.sleep(self.chance.random())
        self._commit(connection)
        self.is_stopping = True

    def _commit(self, connection: psycopg.Connection[Any]) -> None:
        self.is_committing = True
        connection.commit()
        self.is_committing = False

    def _one(self, connection: psycopg.Connection[Any]) -> None:
        self._order(connection, self._key())

    def _several(self, connection: psycopg.Connection[Any]) -> None:
        for key in sorted(self._key() for _ in range(self.chance.randint(2, 5))):  # in one order: no deadlocks
            self._order(connection, key)

    def _burst(self, connection: psycopg.Connection[Any]) -> None:
        self._order(connection, self._key(), self.chance.randint(5, 50))

    def _with_savepoint(self, connection: psycopg.Connection[Any]) -> None:
        """What is rolled back gives its turn back, and the next one takes it."""
        key = self._key()
        self._order(connection, key)
        connection.execute("SAVEPOINT regret")
        self._order(connection, key)
        connection.execute("ROLLBACK TO regret")
        self._order(connection, key)

    def _publish_first(self, connection: psycopg.Connection[Any]) -> None:
        """Before anything else is written, on a key that nobody else uses."""
        self.number += 1
        order = {"id": f"{self.name}-{self.number}", "turn": self.number}
        publish(connection, self.app, self.name, [order])
        note(connection, self.name, [order])

    def _key(self) -> str:
        return f"k{self.chance.randrange(KEYS):02}"

    def _order(self, connection: psycopg.Connection[Any], key: str, messages: int = 1) -> None:
        """Take turns of a key, note the orders in the ledger, publish them: in the caller's transaction."""
        last = take_turns(connection, key, messages)
        orders = []
        for turn in range(last - messages + 1, last + 1):
            self.number += 1
            orders.append({"id": f"{self.name}-{self.number}", "turn": turn})
        place(connection, self.app, key, orders)


def take_turns(connection: psycopg.Connection[Any], key: str, turns: int) -> int:
    """The last of so many turns of a key; other transactions that want the key wait for this one's end."""
    row = connection.execute(
        "INSERT INTO account AS a (key, turn) VALUES (%s, %s) "
        "ON CONFLICT (key) DO UPDATE SET turn = a.turn + excluded.turn RETURNING turn",
        (key, turns),
    ).fetchone()
    assert row is not None
    return int(row[0])


def place(connection: psycopg.Connection[Any], app: Outbox, key: str, orders: list[dict[str, Any]]) -> None:
    """Note orders of one key in the ledger and publish them, in the caller's transaction."""
    note(connection, key, orders)
    publish(connection, app, key, orders)


def note(connection: psycopg.Connection[Any], key: str, orders: list[dict[str, Any]]) -> None:
    connection.execute(
        "INSERT INTO ledger (id, key, turn) SELECT o.id, %s, o.turn FROM unnest(%s::text[], %s::int[]) AS o (id, turn)",
        (key, [order["id"] for order in orders], [order["turn"] for order in orders]),
    )


def publish(connection: psycopg.Connection[Any], app: Outbox, key: str, orders: list[dict[str, Any]]) -> None:
    """A key keeps to one priority: each priority is a log of its own."""
    priority = sum(key.encode()) % 2
    if len(orders) == 1:
        app.publish(connection, "orders", orders[0], key=key, priority=priority)
    else:
        app.publish_many(connection, "orders", [NewMessage(order, key) for order in orders], priority=priority)


def main(url: str, name: str, seed: str, messages: str = "0") -> None:
    publisher = Publisher(url, name, int(seed))
    signal.signal(signal.SIGTERM, publisher.stop)
    print("publisher started", flush=True)
    if int(messages):
        publisher.run_hugely(int(messages))
    else:
        publisher.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
