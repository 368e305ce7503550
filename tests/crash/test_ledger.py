"""Kill, cut and restart what a message passes through, then read the ledger: nothing lost, no effect doubled."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outbox import Outbox
from tests.shop_floor import Database, WorkerProcess, wait_for

APP = """
import random, time
from datetime import timedelta
import psycopg
from outbox import Outbox, Retries

app = Outbox()

SOON = Retries(first=timedelta(milliseconds=50), longest=timedelta(milliseconds=200), max_attempts=1000)

@app.subscribe("exact", "orders", guarantee="exactly-once", concurrency=4, retries=SOON)
def book(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO booked VALUES (%s)", (message.payload,))
    time.sleep(random.random() * 0.004)
    if random.random() < 0.05:
        raise ConnectionError("now and then")

@app.subscribe("least", "orders", retries=SOON)
async def mail(message, connection: psycopg.AsyncConnection):
    await connection.execute("INSERT INTO mailed VALUES (%s)", (message.payload,))
"""


class Shop:
    """Publishers that write a ledger in the transactions in which they publish, and workers that are restarted."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.workers: list[WorkerProcess] = []
        self.stopping = threading.Event()
        self.publisher = threading.Thread(target=self.publish_until_stopped)
        database.connect(autocommit=True).execute(
            "CREATE TABLE ledger (id text PRIMARY KEY); CREATE TABLE booked (id text); CREATE TABLE mailed (id text)"
        )

    def publish_until_stopped(self) -> None:
        """Orders that commit, roll back, or hang in the middle while the database goes away."""
        app, number = Outbox(), 0
        while not self.stopping.is_set():
            with suppress(psycopg.OperationalError), psycopg.connect(self.database.url) as connection:
                while not self.stopping.is_set():
                    number += 1
                    connection.execute("INSERT INTO ledger VALUES (%s)", (str(number),))
                    app.publish(connection, "orders", str(number), key=str(number % 10))
                    connection.rollback() if random.random() < 0.1 else connection.commit()
            time.sleep(0.02)

    def start_worker(self, *arguments: str) -> WorkerProcess:
        worker = WorkerProcess(self.database.url, self.folder, APP, "--timeout", "3", *arguments)
        self.workers.append(worker)
        return worker

    def count(self, table: str) -> int:
        return int(self.database.value(f"SELECT count(*) FROM {table}"))

    def at_rest(self) -> bool:
        with suppress(psycopg.OperationalError):
            return all(
                self.count(f"outbox.{what}") == 0 for what in ("lag WHERE lag > 0", "lease", "redelivery")
            ) and not self.database.value("SELECT EXISTS (SELECT FROM outbox.position WHERE open <> '{}')")
        return False

    def close_books(self) -> dict[str, int]:
        """Let everything come to rest, then compare what was ordered with what was done."""
        self.stopping.set()
        self.publisher.join()
        wait_for(self.at_rest, f"all messages settled; the log of the last worker: {self.workers[-1].log[-2000:]}", 60)
        with psycopg.connect(self.database.url) as db:

            def ids(table: str) -> list[str]:
                return [id for (id,) in db.execute(f"SELECT id FROM {table}").fetchall()]

            ordered, booked, mailed = ids("ledger"), ids("booked"), ids("mailed")
            dead = db.execute("SELECT count(*) FROM outbox.dead_letter").fetchone()
        assert dead == (0,)
        assert len(ordered) > 100, "hardly anything was published: this tests nothing"
        return {
            "lost bookings": len(set(ordered) - set(booked)),
            "doubled bookings": len(booked) - len(set(booked)),
            "made-up bookings": len(set(booked) - set(ordered)),
            "lost mails": len(set(ordered) - set(mailed)),
            "made-up mails": len(set(mailed) - set(ordered)),
        }


@contextmanager
def open_shop(database: Database, folder: Path) -> Iterator[Shop]:
    shop = Shop(database, folder)
    with ExitStack() as stack:
        stack.callback(lambda: [worker.kill() for worker in shop.workers])
        stack.callback(shop.stopping.set)
        shop.publisher.start()
        yield shop


GOOD = dict.fromkeys(("lost bookings", "doubled bookings", "made-up bookings", "lost mails", "made-up mails"), 0)


def kill_workers(shop: Shop, chance: random.Random) -> None:
    """SIGKILL, in the middle of whatever they do."""
    for _ in range(4):
        victim = shop.workers[-1]
        bookings = shop.count("booked")
        wait_for(lambda n=bookings: shop.count("booked") > n + 5, "bookings")
        time.sleep(chance.random() * 0.1)  # a random moment to strike, not a wait for something
        victim.process.send_signal(signal.SIGKILL)
        shop.start_worker()


def stop_and_go_on(shop: Shop, chance: random.Random) -> None:
    """SIGSTOP beyond the timeout: others take over, and the sleeper finds that its leases are gone."""
    sleeper = shop.workers[-1]
    wait_for(lambda: shop.count("booked") > 20, "bookings")
    sleeper.process.send_signal(signal.SIGSTOP)
    shop.start_worker()
    wait_for(lambda: shop.count("outbox.worker WHERE retired_at IS NOT NULL") > 0, "the sleeper found dead")
    sleeper.process.send_signal(signal.SIGCONT)
    sleeper.wait_for_line("worker was found dead")


def cut_connections(shop: Shop, chance: random.Random) -> None:
    """pg_terminate_backend on everybody, again and again."""
    for _ in range(5):
        bookings = shop.count("booked")
        wait_for(lambda n=bookings: shop.count("booked") > n + 5, "bookings")
        shop.database.value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("fault", [kill_workers, stop_and_go_on, cut_connections], ids=lambda fault: fault.__name__)
def test_nothing_is_lost_and_no_booking_doubled(
    one_database: Database, tmp_path: Path, fault: Callable[[Shop, random.Random], Any]
) -> None:
    seed = random.randrange(1_000_000)
    with open_shop(one_database, tmp_path) as shop:
        shop.start_worker().wait_for_line("worker started")
        fault(shop, random.Random(seed))
        assert shop.close_books() == GOOD, f"seed {seed}"


def test_a_crash_of_the_database_loses_nothing_and_doubles_no_booking(own_postgres: Database, tmp_path: Path) -> None:
    """An immediate shutdown under load, twice; the worker reconnects by itself."""
    with open_shop(own_postgres, tmp_path) as shop:
        worker = shop.start_worker()
        worker.wait_for_line("worker started")
        for _ in range(2):
            bookings = shop.count("booked")
            wait_for(lambda n=bookings: shop.count("booked") > n + 50, "bookings")
            own_postgres.postgres.stop("immediate")
            worker.wait_for_line("database away")
            own_postgres.postgres.start()
        worker.wait_for_line("database back")
        assert shop.close_books() == GOOD
        assert worker.stop() == 0


def test_a_handler_that_kills_its_process_ends_as_a_dead_letter_alone(one_database: Database, tmp_path: Path) -> None:
    app = """
import os
import psycopg
from outbox import Outbox, Retries
app = Outbox()

@app.subscribe("s", "t", guarantee="exactly-once", retries=Retries(max_attempts=2))
def handle(message, connection: psycopg.Connection):
    if message.payload == "poison":
        os.kill(os.getpid(), 9)
    connection.execute("INSERT INTO done VALUES (%s)", (message.payload,))
"""
    one_database.connect(autocommit=True).execute("CREATE TABLE done (what text)")
    with one_database.connect() as connection:
        Outbox().publish_many(connection, "t", ["a", "b", "poison", "c", "d"])
    supervisor = WorkerProcess(one_database.url, tmp_path, app, "--processes", "2", "--timeout", "600")
    try:
        wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.dead_letter"), "the dead letter")
        wait_for(lambda: one_database.value("SELECT count(*) FROM done") == 4, "the neighbours")
        assert supervisor.log.count("worker process died") == 3
        assert supervisor.stop() == 0
    finally:
        supervisor.kill()
    assert one_database.value("SELECT array_agg(what ORDER BY what) FROM done") == ["a", "b", "c", "d"]
    assert one_database.value("SELECT reason FROM outbox.dead_letter") == "worker died"
    assert one_database.value("SELECT payload::text FROM outbox.dead_letter") == '"poison"'
