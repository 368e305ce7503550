"""dramatiq's messages show under their actors' names; the roles suffice; the example runs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import dramatiq
import pytest

from outbox.dramatiq import PostgresBroker
from tests.actors.command import command
from tests.actors.work import working
from tests.library.test_exporter import of, scrape
from tests.library.test_roles import Users
from tests.shop_floor import PATIENCE, ROOT, Database, environment, outbox, wait_for


def test_status_and_exporter_show_actors_by_what_becomes_of_their_messages(
    one_database: Database, broker: PostgresBroker
) -> None:
    go_on, began = threading.Event(), threading.Event()

    @dramatiq.actor(queue_name="mails", max_retries=0)
    def mail(what: str) -> None:
        if what == "wait":
            began.set()
            go_on.wait(PATIENCE)
        raise RuntimeError(what)

    dramatiq.actor(lambda: None, actor_name="other").send()
    mail.send("dies")
    with working(broker, threads=1):
        broker.join("mails", timeout=120_000, fail_fast=False)
        broker.join("default", timeout=120_000)
        mail.send("wait")
        mail.send_with_options(args=("later",), delay=60_000)
        assert began.wait(PATIENCE)
        shown = json.loads(outbox(one_database.url, "status", "--json").stdout)["actors"]
        series = scrape(one_database.url)
        go_on.set()
    numbers = {"waiting": 0, "retrying": 0, "in_flight": 1, "delayed": 1, "dead": 1}
    assert shown == [{"queue": "dramatiq.mails", "name": "mail", **numbers}]
    names = {"waiting": "waiting_messages", "retrying": "retrying_messages", "in_flight": "in_flight_messages"}
    for what, number in {**numbers}.items():
        name = names.get(what, {"delayed": "delayed_messages", "dead": "dead_letters"}.get(what))
        assert of(series, f"outbox_actor_{name}", queue="dramatiq.mails", actor="mail") == number
    assert "actors of dramatiq" in outbox(one_database.url, "status").stdout


def test_messages_of_a_transaction_that_commits_late_are_counted(
    one_database: Database, broker: PostgresBroker
) -> None:
    actor = dramatiq.actor(lambda: None, actor_name="a")
    db = one_database.connect()
    with broker.transaction(db):
        actor.send()
    actor.send()
    consumer = broker.consume("default", prefetch=5, timeout=120_000)
    consumer.ack(next(consumer))
    broker.join("default", timeout=120_000)
    consumer.close()
    broker.close()
    db.commit()
    assert broker.count("default").waiting == 1, "the cursor stands beyond it"


def test_the_roles_of_publishers_and_workers_suffice(one_database: Database) -> None:
    users = Users(one_database)
    try:
        sends = PostgresBroker(users.url("outbox_publisher"))
        actor = dramatiq.actor(lambda: None, actor_name="a", broker=sends)
        actor.send()
        actor.send_with_options(delay=10)
        sends.close()
        works = PostgresBroker(users.url("outbox_worker"))
        done: list[int] = []
        dramatiq.actor(lambda: done.append(1), actor_name="a", broker=works)
        with working(works):
            wait_for(lambda: len(done) == 2, "both")
        works.close()
    finally:
        users.remove()


@pytest.mark.parametrize("module", ["workers.actors"])
def test_the_example_charges_confirms_and_reminds(one_database: Database, tmp_path: Path, module: str) -> None:
    site = subprocess.Popen(
        [sys.executable, "-m", module], env=environment(one_database.url), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        with command(one_database, tmp_path, module, 1, 2) as started:
            for line in ("order 1: 9.90 charged", "receipt-1 confirmed", "order 1: how do you like it?"):
                wait_for(lambda line=line: line in started.log, line)  # type: ignore[misc]
            assert started.stop() == 0
    finally:
        site.terminate()
        site.communicate(timeout=PATIENCE)


def test_without_dramatiq_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['dramatiq'] = None\nimport outbox.dramatiq"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'outbox-pg[dramatiq]'" in result.stderr
