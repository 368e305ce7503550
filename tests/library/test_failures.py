"""What a handler's failures come to: by which policy it is tried again, what it is told of the past, where it ends."""

from __future__ import annotations

import json
import re
import shlex
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outbox import Outbox, dead_letters
from outbox.connection import run
from outbox.dead_letters import Filter
from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.shop_floor import (
    ROOT,
    Database,
    WorkerProcess,
    at_rest,
    outbox,
    pull,
    register,
    subscribe,
    value,
    wait_for,
    worker,
)

POLICIES = {
    "linear": "Retries.linear(timedelta(milliseconds=10), max_attempts=3)",
    "delays": "Retries.delays([timedelta(milliseconds=10), timedelta(milliseconds=20)])",
    "by": "Retries.by(lambda attempt, error: timedelta(milliseconds=int(str(error))), max_attempts=3)",
    "by what fails": "Retries.by(lambda attempt, error: 1 / 0, max_attempts=3)",
    "by what makes no sense": "Retries.by(lambda attempt, error: 'soon', max_attempts=3)",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_tries_as_often_as_it_says_and_then_gives_up(shop: Database, tmp_path: Path, policy: str) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", retries={POLICIES[policy]})
def handle(message):
    note(message.attempt)
    raise ValueError(10)
"""
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app) as process:
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter"), "the dead letter")
        assert ("the function of Retries.by failed" in process.log) == ("what" in policy)
    assert seen(shop) == ["1", "2", "3"]
    assert shop.value("SELECT reason FROM outbox.dead_letter") == "attempts exhausted"


@pytest.mark.parametrize("ordered", [False, True])
def test_a_failure_of_a_message_that_is_too_old_is_its_last(shop: Database, tmp_path: Path, ordered: bool) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", ordered={ordered}, retries=Retries.delays([timedelta(0)] * 9, max_age=timedelta(hours=1)))
def handle(message):
    note((message.payload, message.attempt))
    raise ValueError
"""
    publish(shop, "t", "old", "young")
    shop.execute("UPDATE outbox.message SET published_at = now() - interval '2 hours' WHERE \"offset\" = 1")
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 2, "two dead letters")
    letters = shop.connect().execute("SELECT payload, reason, attempt FROM outbox.dead_letter ORDER BY 1::text")
    assert letters.fetchall() == [("old", "too old", 1), ("young", "attempts exhausted", 10)]
    assert seen(shop)[0] == "('old', 1)"


def test_a_message_tells_its_history_at_each_try(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", retries=SOON)
def handle(message):
    past = message.history
    note([(one.error_class, one.text, one.place, one.attempt, type(one.at).__name__, one.worker) for one in past])
    explode(message)

def explode(message):
    if message.attempt < 3:
        raise ValueError(f"no. {{message.attempt}}")
"""
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: len(seen(shop)) == 3, "three tries")
    line = app.splitlines().index('        raise ValueError(f"no. {message.attempt}")') + 1
    failures = [("ValueError", f"no. {n}", f"app_under_test.py:{line} explode", n, "datetime", 1) for n in (1, 2)]
    assert [eval(one) for one in seen(shop)] == [[], failures[:1], failures]


def test_a_history_tells_of_workers_that_died(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", retries=SOON)
def handle(message):
    note([one.error_class for one in message.history])
    if len(message.history) < 2:
        os.kill(os.getpid(), 9)
"""
    publish(shop, "t", 1)
    process = WorkerProcess(shop.url, tmp_path, app, "--processes", "2", "--timeout", "600")
    try:
        wait_for(lambda: len(seen(shop)) == 4, "four tries")
        wait_for_rest(shop)
    finally:
        process.stop()
        process.kill()
    assert seen(shop) == ["[]", "[]", "['WorkerDied']", "['WorkerDied', 'WorkerDied']"], (
        "the first crash charges nobody"
    )


def test_a_message_that_kills_its_processes_goes_to_the_dead_letter_topic(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", retries=Retries(max_attempts=2), dead_letter_topic="t-dead")
def handle(message):
    if message.payload == "poison":
        os.kill(os.getpid(), 9)

@app.subscribe("undertaker", "t-dead")
def bury(message):
    note((message.payload, message.key, message.headers["h"], message.headers["dead-letter-reason"]))
"""
    publish(shop, "t", "good", "poison", "better")
    process = WorkerProcess(shop.url, tmp_path, app, "--processes", "2", "--timeout", "600")
    try:
        wait_for(lambda: seen(shop), "the funeral")
        wait_for_rest(shop)
    finally:
        process.stop()
        process.kill()
    assert seen(shop) == ["('poison', 'k', 'v', 'worker died')"]
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_what_a_handler_rejects_goes_to_the_dead_letter_topic_once(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", dead_letter_topic="graves.s")
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES ('an effect that rolls back')")
    raise Reject("no good")

@app.subscribe("undertaker", "graves.#", guarantee="exactly-once")
def bury(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (message.headers["dead-letter-error"],))
"""
    publish(shop, "t", *range(20))
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: len(seen(shop)) == 20, "twenty funerals")
        wait_for_rest(shop)
    assert seen(shop) == ["Reject: no good"] * 20


def test_workers_delete_dead_letters_whose_time_is_over(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
import outbox.housekeeping
outbox.housekeeping._HOUSEKEEPING = 0.2

@app.subscribe("s", "t", dead_letter_ttl=timedelta(seconds=1))
def handle(message):
    note(message.payload)
    raise Reject
"""
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: seen(shop) and at_rest(shop), "the message was rejected")
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 0, "its letter is gone")


# --- redrive


def kill_all(db: psycopg.Connection[Any], subscription: str) -> None:
    """Give up on all messages of a subscription, with one of two errors, as a broken handler would."""
    worker = register(db)
    while pulled := pull(db, subscription, worker, 2_000):
        failures = [
            {
                "lease": message.lease,
                "offset": message.offset,
                "delay": None,
                "reason": "attempts exhausted",
                "error": {"class": ("Timeout", "KeyError")[message.offset % 2], "text": "no", "place": "h.py:1 f"},
            }
            for message in pulled
        ]
        leases = sorted({message.lease for message in pulled})
        db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, leases, json.dumps(failures)))


@pytest.mark.slow
def test_letters_are_redriven_at_a_rate_while_traffic_goes_on_each_exactly_once(shop: Database, tmp_path: Path) -> None:
    """Two redrives of all at once, a worker that is killed, live messages; the ledger has each effect once."""
    count, live = 20_000, 500
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", concurrency=4, pipeline=True, retries=SOON)
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO done VALUES (%s)", (message.payload,))
"""
    db = shop.connect(autocommit=True)
    db.execute("CREATE TABLE done (n int)")
    subscribe(db, "s", "t")
    Outbox().publish_many(db, "t", list(range(count)))
    kill_all(db, "s")
    groups = run(dead_letters.groups("s"), db)
    assert {(group.error_class, group.letters) for group in groups} == {
        ("Timeout", count // 2),
        ("KeyError", count // 2),
    }
    redriven: list[int] = []

    def redrive(which: Filter) -> None:
        with shop.connect(autocommit=True) as connection:
            redriven.append(run(dead_letters.redrive("s", filter=which, rate=count / 2), connection))

    redrives = [
        threading.Thread(target=redrive, args=(Filter(**which),)) for which in ({}, {}, {"error_class": "Timeout"})
    ]
    processes = [WorkerProcess(shop.url, tmp_path, app, "--processes", "2", "--timeout", "5") for _ in range(2)]
    try:
        for process in processes:
            process.wait_for_line("worker started")
        for thread in redrives:
            thread.start()
        for n in range(live):
            Outbox().publish(db, "t", count + n)
        wait_for(lambda: value(db, "SELECT count(*) FROM done") > count / 4, "a good part is done", 120)
        processes[0].kill()
        for thread in redrives:
            thread.join()
        wait_for(lambda: value(db, "SELECT count(*) FROM done") >= count + live and at_rest(shop), "all is done", 120)
        assert processes[1].stop() == 0
    finally:
        for process in processes:
            process.kill()
    assert sum(redriven) == count
    assert value(db, "SELECT count(DISTINCT n) || ' of ' || count(*) FROM done") == f"{count + live} of {count + live}"
    assert value(db, "SELECT count(*) FROM outbox.dead_letter") == 0


def test_a_redrive_of_more_than_a_portion_goes_on_in_time(shop: Database) -> None:
    db = shop.connect(autocommit=True)
    subscribe(db, "s", "t")
    Outbox().publish_many(db, "t", list(range(2_500)))
    kill_all(db, "s")
    assert run(dead_letters.redrive("s", rate=10), db) == 2_500
    gaps = (
        "SELECT min(gap), max(gap), count(*) FROM (SELECT extract(epoch FROM due_at - lag(due_at) OVER "
        '(ORDER BY "offset"))::float AS gap FROM outbox.redelivery) AS g'
    )
    least, most, letters = db.execute(gaps).fetchone() or (0, 0, 0)
    assert least == pytest.approx(0.1)
    assert most == pytest.approx(0.1)
    assert letters == 2_500


# --- the page


def test_the_page_about_failures_is_true(shop: Database, tmp_path: Path) -> None:
    """Its Python is one application that a worker runs; its commands and its SQL find letters."""
    page = (ROOT / "docs" / "failures.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    app = "\n".join(text for language, text in blocks if language == "python")
    publish(shop, "orders.placed", {"id": 4711})
    publish(shop, "customers.changed", 1)
    with worker(shop.url, tmp_path, app) as process:
        process.wait_for_line("{'id': 4711} rejected Reject: no such customer")
        wait_for_rest(shop)
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0
    db = shop.connect(autocommit=True)
    publish(shop, "orders.placed", 1, 2)
    kill_all(db, "mailer")
    (letter,) = run(dead_letters.newest("mailer", 1), db)
    commands = [line for language, text in blocks if language == "bash" for line in text.splitlines()]
    for command in commands:
        _, *words = shlex.split(command.replace("3-1042", letter.id), comments=True)
        result = outbox(shop.url, *words)
        assert result.returncode == 0, result.stderr
    assert len(commands) == 6
    for statement in (text for language, text in blocks if language == "sql"):
        db.execute(statement)


# --- the command


@pytest.fixture
def graveyard(shop: Database) -> Database:
    """Ten dead letters of `s`: five of each of two errors."""
    db = shop.connect(autocommit=True)
    subscribe(db, "s", "t")
    Outbox().publish_many(db, "t", list(range(10)))
    kill_all(db, "s")
    return shop


def test_groups_are_shown_with_an_example(graveyard: Database) -> None:
    groups = json.loads(outbox(graveyard.url, "dead", "groups", "s", "--json").stdout)
    assert {(one["error_class"], one["place"], one["letters"]) for one in groups} == {
        ("Timeout", "h.py:1 f", 5),
        ("KeyError", "h.py:1 f", 5),
    }
    for one in groups:
        shown = json.loads(outbox(graveyard.url, "dead", "show", one["example"], "--json").stdout)
        assert shown[0]["error_class"] == one["error_class"]
    text = outbox(graveyard.url, "dead", "groups").stdout
    for word in ("Timeout", "h.py:1 f", "letters", "example"):
        assert word in text
    subscribe(graveyard.connect(autocommit=True), "other", "t")
    assert "no dead letters" in outbox(graveyard.url, "dead", "groups", "other").stdout
    assert "'nobody' does not exist" in outbox(graveyard.url, "dead", "groups", "nobody").stderr


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--class", "Timeout"], 5),
        (["--class", "Timeout", "--place", "h.py:1 f"], 5),
        (["--place", "h.py:2 f"], 0),
        (["--reason", "attempts exhausted"], 10),
        (["--key", "k"], 0),
        (["--topic", "t"], 10),
        (["--text", "NO"], 10),
        (["--after", "2020-01-01"], 10),
        (["--before", "2020-01-01T12:00"], 0),
        (["--all"], 10),
        (["1-1", "1-2", "1-99"], 2),
    ],
)
def test_a_dry_run_says_what_would_be_and_changes_nothing(graveyard: Database, options: list[str], count: int) -> None:
    redriven = outbox(graveyard.url, "dead", "redrive", "s", *options, "--dry-run")
    assert redriven.stdout == f"would be redriven: {count}\n", redriven.stderr
    assert outbox(graveyard.url, "dead", "purge", "s", *options, "--dry-run").stdout == f"would be purged: {count}\n"
    assert graveyard.value("SELECT count(*) FROM outbox.dead_letter") == 10


def test_a_group_is_redriven_at_a_rate_and_another_purged(graveyard: Database) -> None:
    url = graveyard.url
    rated = ("s", "--class", "Timeout", "--rate", "30/m")
    assert outbox(url, "dead", "redrive", *rated, "--dry-run").stdout == "would be redriven: 5, over 8 s\n"
    assert outbox(url, "dead", "redrive", *rated).stdout == "redriven: 5\n"
    assert graveyard.value("SELECT max(due_at) - min(due_at) FROM outbox.redelivery").total_seconds() == 8
    assert outbox(url, "dead", "purge", "s", "--class", "KeyError", "--yes").stdout == "purged: 5\n"
    assert graveyard.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_a_letter_is_redriven_with_another_payload(graveyard: Database) -> None:
    assert outbox(graveyard.url, "dead", "redrive", "s", "1-3", "--payload", '{"mended": 1}').stdout == "redriven: 1\n"
    assert graveyard.value("SELECT payload FROM outbox.redelivery") == {"mended": 1}


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["redrive", "s"], "name the ids, or say --all", 2),
        (["redrive", "s", "1-1", "--class", "Timeout"], "name the ids, or say --all", 2),
        (["purge", "s", "--all", "--key", "k"], "name the ids, or say --all", 2),
        (["redrive", "s", "--all", "--rate", "fast"], "--rate fast is not a rate: it looks like 100/s", 2),
        (["redrive", "s", "--all", "--rate", "0/s"], "--rate 0/s is not a rate", 2),
        (["redrive", "s", "--all", "--payload", "1"], "--payload is for one dead letter", 2),
        (["redrive", "s", "1-1", "--payload", "{"], "the database refuses: invalid input syntax for type json", 1),
        (["list", "s", "--before", "noon"], "--before noon is not a time", 2),
        (["redrive", "nobody", "--all"], 'subscription "nobody" does not exist', 1),
    ],
)
def test_wrong_use_says_why(graveyard: Database, arguments: list[str], says: str, code: int) -> None:
    result = outbox(graveyard.url, "dead", *arguments)
    assert says in result.stderr
    assert result.returncode == code
    assert graveyard.value("SELECT count(*) FROM outbox.dead_letter") == 10
