"""A message that kills whoever handles it."""

from pathlib import Path

from outbox import Outbox
from tests.shop_floor import Database, WorkerProcess, wait_for


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
