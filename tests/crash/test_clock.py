"""The clock of a worker's host leaps: time is the database's, and nothing changes."""

from pathlib import Path

import pytest

from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.shop_floor import Database, WorkerProcess, wait_for

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")

APP = f"""{PREAMBLE}
RETRIES = Retries(first=timedelta(milliseconds=50), longest=timedelta(milliseconds=200))

@app.subscribe("s", "t", guarantee="exactly-once", prefetch=20, retries=RETRIES, time_limit=timedelta(seconds=20))
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    open("clock", "w").write(str(time.time()))
    connection.execute("SELECT pg_sleep(0.005)")
    if message.payload % 7 == 0 and message.attempt == 1:
        raise ConnectionError
"""


@pytest.fixture
def shop(one_database: Database) -> Database:
    one_database.execute("CREATE TABLE seen (id serial, what text)")
    return one_database


def test_leaps_of_a_workers_clock_change_nothing(shop: Database, tmp_path: Path) -> None:
    if not FAKETIME.exists():
        pytest.skip("needs libfaketime: apt-get install faketime")
    offset, clock = tmp_path / "offset", tmp_path / "clock"
    offset.write_text("+0")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as a leap of the clock does not touch it
    }
    worker = WorkerProcess(shop.url, tmp_path, APP, "--timeout", "3", more=faked)
    try:
        for leap, days in enumerate((2, 400, -1)):
            publish(shop, "t", *range(30 * leap, 30 * leap + 30))
            wait_for(lambda leap=leap: len(seen(shop)) > 30 * leap + 10, "messages")
            (tmp_path / "leap").write_text(f"{days * 86400:+d}")
            (tmp_path / "leap").replace(offset)  # nobody reads half of it
            wait_for(lambda leap=leap: len(seen(shop)) >= 30 * leap + 30, "the rest of them")
        leapt = float(clock.read_text()) - float(shop.value("SELECT extract(epoch FROM clock_timestamp())"))
        assert -90_000 < leapt < -80_000, "its clock did not leap: this tests nothing"
        wait_for_rest(shop)
        assert worker.stop() == 0
        assert "found dead" not in worker.log
    finally:
        worker.kill()
    assert sorted(map(int, seen(shop))) == list(range(90))
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0
    assert shop.value("SELECT count(*) FROM outbox.worker WHERE started_at > now() + interval '1 hour'") == 0
