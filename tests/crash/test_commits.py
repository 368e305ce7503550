"""A handler's COMMIT gets lost, or its answer: of a batch, and of a part of a lease."""

from __future__ import annotations

import contextlib
import random
from contextlib import ExitStack
from pathlib import Path

from outbox import NewMessage, Outbox
from tests.crash.proxy import Proxy
from tests.library.workshop import PREAMBLE, wait_for_rest
from tests.shop_floor import Database, wait_for, worker

APP = f"""{PREAMBLE}
FAST = Retries(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=50), max_attempts=1000)

@app.subscribe("ordered", "t", ordered=True, guarantee="exactly-once", prefetch=50, retries=FAST)
def follow(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO done (who, key, turn) VALUES ('ordered', %s, %s)", (message.key, message.payload))

@app.subscribe("batches", "t", batch=7, guarantee="exactly-once", prefetch=50, concurrency=2, retries=FAST)
def post(messages: list[Message], connection: psycopg.Connection):
    for m in messages:
        connection.execute("INSERT INTO done (who, key, turn) VALUES ('batches', %s, %s)", (m.key, m.payload))
"""


def test_commits_of_which_nobody_hears_double_nothing_and_end_no_worker(one_database: Database, tmp_path: Path) -> None:
    one_database.execute("CREATE TABLE done (id serial, who text, key text, turn int)")
    with one_database.connect() as connection:
        app = Outbox()
        app.declare_topic(connection, "t", partitions=2)
        app.publish_many(connection, "t", [NewMessage(n // 10, key=str(n % 10)) for n in range(400)])
    seed = random.randrange(1_000_000)
    with ExitStack() as stack:
        proxy = stack.enter_context(contextlib.closing(Proxy(one_database.postgres.port, seed)))
        process = stack.enter_context(worker(proxy.url(one_database.name), tmp_path, APP))
        proxy.losing = 0.15
        wait_for(lambda: proxy.strikes["answer lost"] > 25, "lost answers")
        proxy.losing = 0
        wait_for_rest(one_database)
        assert process.log.count("worker started") == 1
        assert process.stop() == 0, process.log
    each = "SELECT count(*), count(DISTINCT (key, turn)) FROM done WHERE who = %s"
    with one_database.connect() as db:
        for who in ("ordered", "batches"):
            assert db.execute(each, (who,)).fetchone() == (400, 400), f"{who}, seed {seed}"
        overtaken = (
            "SELECT count(*) FROM (SELECT turn, max(turn) OVER (PARTITION BY key ORDER BY id) AS latest FROM done "
            "WHERE who = 'ordered') AS d WHERE turn < latest"
        )
        assert db.execute(overtaken).fetchone() == (0,), f"seed {seed}"
