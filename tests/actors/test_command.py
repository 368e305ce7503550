"""The real `dramatiq` command line: several processes and threads, signals, and what they leave."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import dramatiq
import psycopg
import pytest

from outbox.dramatiq import PostgresBroker
from tests.actors.command import command
from tests.crash.actors import strike
from tests.servers import free_port
from tests.shop_floor import PATIENCE, Database, wait_for

APPLICATION = """
import os, time
import dramatiq, psycopg
from outbox.dramatiq import PostgresBroker

broker = PostgresBroker()
dramatiq.set_broker(broker)

@dramatiq.actor(min_backoff=10, max_backoff=50)
def note(what, seconds=0.0):
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"], autocommit=True) as db:
        db.execute("INSERT INTO done (what, pid) VALUES (%s, %s)", (f"{what} began" if seconds else what, os.getpid()))
        time.sleep(seconds)
        if seconds:
            db.execute("INSERT INTO done (what, pid) VALUES (%s, %s)", (what, os.getpid()))
"""


@pytest.fixture
def app(one_database: Database, tmp_path: Path) -> dramatiq.Actor[..., None]:
    """The sending half; the working one is in `app.py`."""
    one_database.execute("CREATE TABLE done (what text, pid int)")
    (tmp_path / "app.py").write_text(APPLICATION)
    broker = PostgresBroker(one_database.url)
    return dramatiq.actor(lambda *_: None, actor_name="note", broker=broker)


def count(database: Database, what: str = "%") -> int:
    return int(database.value("SELECT count(DISTINCT what) FROM done WHERE what LIKE %s", what))


def pids(database: Database) -> set[int]:
    with database.connect(autocommit=True) as db:
        return {pid for (pid,) in db.execute("SELECT DISTINCT pid FROM done").fetchall()}


def unfinished(database: Database) -> int:
    return int(database.value("SELECT coalesce(sum(waiting + retrying + in_flight + delayed), 0) FROM outbox.actors()"))


def test_four_processes_of_eight_threads_share_the_work_and_end_in_order(
    one_database: Database, tmp_path: Path, app: dramatiq.Actor[..., None]
) -> None:
    for number in range(2000):
        app.send(number)
    with command(one_database, tmp_path, "app", 4, 8) as started:
        wait_for(lambda: count(one_database) == 2000, "all done")
        assert len(pids(one_database)) > 1
        wait_for(lambda: unfinished(one_database) == 0, "all settled")
        assert started.stop() == 0, started.log
    assert one_database.value("SELECT count(*) FROM done") == 2000
    assert one_database.value("SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL") == 0


def test_sigterm_lets_actors_finish_and_gives_back_the_rest(
    one_database: Database, tmp_path: Path, app: dramatiq.Actor[..., None]
) -> None:
    for number in range(40):
        app.send(number, 1.0)
    with command(one_database, tmp_path, "app", 1, 2) as started:
        wait_for(lambda: count(one_database, "% began") >= 2, "two at work")
        assert started.stop() == 0, started.log
    began = one_database.value("SELECT count(*) FROM done WHERE what LIKE '%% began'")
    assert one_database.value("SELECT count(*) FROM done WHERE what NOT LIKE '%% began'") == began, "none cut off"
    assert one_database.value("SELECT count(*) FROM outbox.lease") == 0
    assert one_database.value("SELECT count(*) FROM outbox.redelivery WHERE suspect OR attempt > 1") == 0
    assert unfinished(one_database) == 40 - began


def test_sighup_replaces_the_workers_and_nothing_is_lost_or_repeated(
    one_database: Database, tmp_path: Path, app: dramatiq.Actor[..., None]
) -> None:
    with command(one_database, tmp_path, "app", 2, 4) as started:
        started.wait_until_ready()
        for number in range(600):
            app.send(number)
            if number == 200:
                os.kill(started.process.pid, signal.SIGHUP)
        started.wait_until_ready(times=2)
        wait_for(lambda: unfinished(one_database) == 0, "all settled")
        assert started.stop() == 0, started.log
    assert (count(one_database), one_database.value("SELECT count(*) FROM done")) == (600, 600)


def test_a_process_that_is_killed_in_the_middle_of_a_message_is_found_at_once_and_nobody_is_charged(
    one_database: Database, tmp_path: Path, app: dramatiq.Actor[..., None]
) -> None:
    """The others need not wait for its silence, which would take an hour."""
    patient = APPLICATION.replace("PostgresBroker()", "PostgresBroker(timeout=timedelta(hours=1))")
    (tmp_path / "app.py").write_text(f"from datetime import timedelta\n{patient}")
    app.send("slow", 6.0)
    for number in range(20):
        app.send(number, 0.01)
    with command(one_database, tmp_path, "app", 1, 1) as started:
        wait_for(lambda: count(one_database, "slow began") == 1, "it is at work")
        assert started.kill() == 1
        started.process.wait(PATIENCE)
    with command(one_database, tmp_path, "app", 2, 2):
        wait_for(lambda: one_database.value("SELECT count(*) FROM done WHERE what = 'slow began'") == 2, "again")
        wait_for(lambda: count(one_database, "__") + count(one_database, "_") == 20, "all others")
        assert one_database.value("SELECT coalesce(max(attempt), 1) FROM outbox.redelivery") == 1, "nobody is charged"
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_prometheus_is_served_by_the_command(
    one_database: Database, tmp_path: Path, app: dramatiq.Actor[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, setting in (("port", str(port)), ("host", "127.0.0.1"), ("db", str(tmp_path / "prometheus"))):
        monkeypatch.setenv(f"dramatiq_prom_{name}", setting)  # dramatiq's names
    with open(tmp_path / "app.py", "a") as file:
        file.write("\nfrom dramatiq.middleware.prometheus import Prometheus\nbroker.add_middleware(Prometheus())\n")
    app.send("x")
    counted = 'dramatiq_messages_total{actor_name="note",queue_name="default"} 1.0'
    with command(one_database, tmp_path, "app", 2, 2) as started:
        wait_for(lambda: unfinished(one_database) == 0, "it is settled")
        wait_for(lambda: counted in page(port), f"the count: {started.log}")


def page(port: int) -> str:
    """Empty while nobody serves it yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_database_without_our_schema_is_said_so(empty_database: Database, tmp_path: Path, postgres: object) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    with command(empty_database, tmp_path, "app", 1, 1) as started:
        wait_for(lambda: "run `outbox migrate`" in started.log, "the reason")


def test_workers_that_are_killed_again_and_again_lose_nothing_and_make_up_nothing(
    one_database: Database, tmp_path: Path
) -> None:
    """`make kill-actors` does it 200 times."""
    verdict = strike(one_database, tmp_path, kills=12, seed=7)
    assert verdict.is_good, verdict


def test_a_message_that_kills_its_workers_becomes_a_dead_letter_and_its_neighbours_are_handled(
    one_database: Database, tmp_path: Path
) -> None:
    one_database.execute("CREATE TABLE done (what text, pid int)")
    poison = "\n@dramatiq.actor\ndef poison():\n    os.kill(os.getpid(), 9)\n"
    application = APPLICATION.replace("PostgresBroker()", "PostgresBroker(max_attempts=2)") + poison
    (tmp_path / "app.py").write_text(application)
    broker = PostgresBroker(one_database.url, max_attempts=2)
    note = dramatiq.actor(lambda *_: None, actor_name="note", broker=broker)
    for number in range(10):
        note.send(number)
        if number == 5:
            dramatiq.actor(lambda: None, actor_name="poison", broker=broker).send()
    for _ in range(8):
        with command(one_database, tmp_path, "app", 1, 2) as started:
            wait_for(lambda s=started: s.process.poll() is not None or unfinished(one_database) == 0, "an end")
            if unfinished(one_database) == 0:
                break
    broker.close()
    with psycopg.connect(one_database.url) as db:
        letters = db.execute("SELECT headers ->> 'actor', reason FROM outbox.dead_letter").fetchall()
    assert letters == [("poison", "worker died")]
    assert count(one_database) == 10
