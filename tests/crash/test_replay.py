"""Workers are killed while a time range is replayed and live messages flow; then the ledger is read."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outbox import Outbox
from outbox.replay import Replayed
from tests.library.workshop import PREAMBLE, seen
from tests.shop_floor import Database, WorkerProcess, at_rest, wait_for

HISTORY, RANGE = range(600), range(200, 400)


def app_of(guarantee: str) -> str:
    return f"""{PREAMBLE}
OFTEN = Retries(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=20), max_attempts=100)

@app.subscribe("s", "t", guarantee={guarantee!r}, concurrency=4, retries=OFTEN)
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    if message.payload % 10 == 0 and message.attempt == 1:
        raise ValueError
    time.sleep(0.002)

@app.subscribe("other", "t", guarantee="exactly-once")
def note(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO noted (what) VALUES (%s)", (str(message.payload),))
"""


@pytest.fixture
def shop(one_database: Database) -> Database:
    one_database.execute("CREATE TABLE seen (id serial, what text); CREATE TABLE noted (what text)")
    with one_database.connect() as connection:
        Outbox().declare_topic(connection, "t", partitions=3)
        for n in HISTORY:
            Outbox().publish(connection, "t", n, key=str(n % 20))
    days = "make_interval(days => payload::text::int / 200)"
    one_database.execute(f"UPDATE outbox.message SET published_at = timestamptz '2020-01-01' + {days}")
    return one_database


def publish_live(shop: Database, live: list[int], enough: threading.Event) -> None:
    with shop.connect(autocommit=True) as connection:
        while not enough.wait(0.005):
            live.append(1_000 + len(live))
            Outbox().publish(connection, "t", live[-1], key=str(live[-1] % 20))


def replay(shop: Database) -> Replayed:
    with shop.connect(autocommit=True) as connection:
        day, next_day = datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC)
        return Outbox().replay(connection, "s", "t", from_at=day, to_at=next_day)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_workers_that_are_killed_double_no_effects_and_lose_none(
    shop: Database, tmp_path: Path, guarantee: str
) -> None:
    """Exactly-once: live messages once, those of the range once more. At-least-once: so often at least."""
    live: list[int] = []
    enough = threading.Event()
    workers = [WorkerProcess(shop.url, tmp_path, app_of(guarantee), "--timeout", "2")]
    try:
        wait_for(lambda: len(seen(shop)) >= len(HISTORY) and at_rest(shop), "the history")
        publisher = threading.Thread(target=publish_live, args=(shop, live, enough))
        publisher.start()
        assert replay(shop) == Replayed(len(RANGE), 0)
        for more in (60, 200, 400):
            wait_for(lambda more=more: len(seen(shop)) > len(HISTORY) + more, "some more messages")
            workers[-1].kill()
            workers.append(WorkerProcess(shop.url, tmp_path, app_of(guarantee), "--timeout", "2"))
        enough.set()
        publisher.join()
        wait_for(lambda: len(seen(shop)) >= len(HISTORY) + len(live) + len(RANGE) and at_rest(shop), "all of it")
        assert workers[-1].stop() == 0
    finally:
        enough.set()
        for process in workers:
            process.kill()
    found, expected = Counter(map(int, seen(shop))), Counter([*HISTORY, *live, *RANGE])
    assert expected - found == Counter(), "lost"
    if guarantee == "exactly-once":
        assert found == expected
    assert shop.value("SELECT array_agg(what::int ORDER BY what::int) FROM noted") == [*HISTORY, *live]
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0
