"""Worker processes of dramatiq are killed again and again, while an application sends; then the books are read.

python -m tests.crash.actors [KILLS] [SEED]
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import dramatiq
import psycopg

from outbox.dramatiq import PostgresBroker
from tests.actors.command import Command
from tests.shop_floor import Database, wait_for

TABLES = """
CREATE TABLE sent (n int PRIMARY KEY);
CREATE TABLE done (n int, step text, pid int, at timestamptz DEFAULT clock_timestamp())
"""

APPLICATION = """
import os, random, time
import dramatiq, psycopg, psycopg_pool
from outbox.dramatiq import PostgresBroker

broker = PostgresBroker()
dramatiq.set_broker(broker)
pool = psycopg_pool.ConnectionPool(os.environ["OUTBOX_DATABASE_URL"], min_size=0, max_size=8, open=True,
                                   kwargs={"autocommit": True})

def note(n, step):
    with pool.connection() as db:
        db.execute("INSERT INTO done (n, step, pid) VALUES (%s, %s, %s)", (n, step, os.getpid()))

@dramatiq.actor(max_retries=50, min_backoff=50, max_backoff=500)
def work(n, fails=False):
    time.sleep(random.random() * 0.02)
    retries = dramatiq.middleware.CurrentMessage.get_current_message().options.get("retries", 0)
    if fails and retries == 0:
        note(n, "failed")
        raise RuntimeError("the first time it fails")
    note(n, "done")
    return n

@dramatiq.actor(max_retries=50, min_backoff=50, max_backoff=500)
def then(n):
    note(n, "then")

broker.add_middleware(dramatiq.middleware.CurrentMessage())
"""


class Verdict(NamedTuple):
    """What the books say."""

    kills: int
    sent: int
    lost: int
    made_up: int
    #: Steps that were done more than once: in hand when a process was killed.
    repeated: int
    dead: int
    seconds: float

    @property
    def is_good(self) -> bool:
        return self.lost == self.made_up == self.dead == 0


class Sender:
    """An application that sends in transactions, some of which roll back: plain, delayed, failing and piped ones."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database, self._random = database, random.Random(seed)
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        broker = PostgresBroker(self._database.url)
        work = dramatiq.actor(lambda n, fails=False: n, actor_name="work", broker=broker)
        then = dramatiq.actor(lambda n: None, actor_name="then", broker=broker)
        n = 0
        with psycopg.connect(self._database.url) as connection:
            while not self._stopped.wait(0.002):
                n += 1
                with broker.transaction(connection):
                    connection.execute("INSERT INTO sent VALUES (%s)", (n,))
                    if n % 10 == 0:
                        work.send_with_options(args=(n,), delay=self._random.randrange(2000))
                    elif n % 10 == 1:
                        dramatiq.pipeline([work.message(n), then.message()], broker=broker).run()
                    else:
                        work.send(n, fails=n % 10 == 2)
                if self._random.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
        broker.close()

    def stop(self) -> None:
        self._stopped.set()
        self.thread.join()


def strike(database: Database, folder: Path, kills: int, seed: int, processes: int = 4, threads: int = 8) -> Verdict:
    """Kill so many worker processes, one or all at a time; let the last ones finish; read the books."""
    began, chance = time.monotonic(), random.Random(seed)
    database.execute(TABLES)
    (folder / "app.py").write_text(APPLICATION)
    sender = Sender(database, seed)
    sender.thread.start()
    killed = 0
    command = Command(database, folder, "app", processes, threads)
    try:
        while killed < kills:
            command.wait_until_ready()
            time.sleep(chance.random())  # somewhere in the middle of its work
            killed += command.kill(1 if chance.random() < 0.2 else None)
            command.process.wait(60)  # it ends when one of its processes has
            command = Command(database, folder, "app", processes, threads)
        sender.stop()
        wait_for(lambda: _is_done(database), "all messages done", seconds=120)
        command.wait_until_ready()
        assert command.stop() == 0, command.log
    finally:
        sender.stop()
        command.end()
    return _verdict(database, killed, time.monotonic() - began)


def _is_done(database: Database) -> bool:
    return bool(
        database.value("SELECT coalesce(sum(waiting + retrying + in_flight + delayed), 0) = 0 FROM outbox.actors()")
    )


def _verdict(database: Database, kills: int, seconds: float) -> Verdict:
    return Verdict(
        kills,
        database.value("SELECT count(*) FROM sent"),
        database.value(
            "SELECT count(*) FROM (SELECT n, 'done' AS step FROM sent "
            "UNION ALL SELECT n, 'then' FROM sent WHERE n %% 10 = 1) AS w "
            "WHERE NOT EXISTS (SELECT FROM done d WHERE (d.n, d.step) = (w.n, w.step))"
        ),
        database.value("SELECT count(*) FROM done d WHERE NOT EXISTS (SELECT FROM sent s WHERE s.n = d.n)"),
        database.value("SELECT count(*) - count(DISTINCT (n, step)) FROM done"),
        database.value("SELECT count(*) FROM outbox.dead_letter"),
        seconds,
    )


def main() -> None:
    from tests.conftest import _cluster

    kills, seed = (int(argument) for argument in [*sys.argv[1:], *["200", "1"][len(sys.argv) - 1 :]])
    clusters = _cluster("pg18")
    database = Database(next(clusters), "outbox_template")
    try:
        with tempfile.TemporaryDirectory() as folder:
            verdict = strike(database, Path(folder), kills, seed)
    finally:
        database.close()
        clusters.close()  # type: ignore[attr-defined]  # a generator
    print(verdict)
    sys.exit(not verdict.is_good)


if __name__ == "__main__":
    main()
