"""A handler past its time limit: cancelled where that is possible, else its process is replaced."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.shop_floor import PATIENCE, Database, wait_for, worker

#: How a handler can hang, and whether it can be cancelled there.
HANGS = {
    "a loop": ("def", "while True: pass", True),
    "a loop that swallows exceptions": (
        "def",
        """while True:
            try:
                time.sleep(0.01)
            except Exception:
                pass""",
        True,
    ),
    "a query": ("def", "connection.execute('SELECT pg_sleep(3600)')", True),
    "a call into C": ("def", "time.sleep(3600)", False),
    "a coroutine that waits": ("async def", "await asyncio.sleep(3600)", True),
    "a coroutine that can't be cancelled": (
        "async def",
        """while True:
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                pass""",
        False,
    ),
    "a coroutine that blocks the event loop": ("async def", "time.sleep(3600)", False),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HANGS)
def test_a_message_that_hangs_ends_as_a_dead_letter_alone(shop: Database, tmp_path: Path, kind: str) -> None:
    colour, hang, cancelled = HANGS[kind]
    wanted = ", connection: psycopg.Connection" if "connection" in hang else ""
    app = f"""{PREAMBLE}
TWICE = Retries(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=20), max_attempts=2)

@app.subscribe("s", "t", time_limit=timedelta(seconds=1), prefetch=20, retries=TWICE)
{colour} handle(message{wanted}):
    if message.payload == "hangs":
        {hang}
    note(message.payload)
"""
    publish(shop, "t", *range(5), "hangs", *range(5, 10))
    with worker(shop.url, tmp_path, app, "--timeout", "3", "--grace", "5") as process:
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter"), "the dead letter")
        wait_for_rest(shop)
        publish(shop, "t", 10)
        wait_for(lambda: "10" in seen(shop), "the worker at work again")
        started = process.log.count("worker started")
        assert started == 1 if cancelled else started >= 3, process.log
        assert process.stop() == 0
    assert sorted(map(int, seen(shop))) == list(range(11)), "its neighbours, once each"
    dead = shop.connect().execute("SELECT payload #>> '{}', attempt, reason, errors FROM outbox.dead_letter").fetchall()
    assert [row[:3] for row in dead] == [("hangs", 2, "attempts exhausted")]
    assert [error["class"] for error in dead[0][3]] == ["TimeLimitExceeded"] * 2
    assert shop.value("SELECT count(*) FROM outbox.redelivery") == 0
    sleeping = "strpos(query, 'pg_sleep') > 0 AND state = 'active' AND pid <> pg_backend_pid()"
    assert shop.value(f"SELECT count(*) FROM pg_stat_activity WHERE {sleeping}") == 0, "its query goes on"


@pytest.mark.parametrize("kind", ["psycopg.Connection", "Session"])
def test_effects_of_a_handler_that_was_cancelled_roll_back(shop: Database, tmp_path: Path, kind: str) -> None:
    """While it waits for the database, too; the connection that it leaves behind does not go to the next."""
    wrap = "text" if kind == "Session" else ""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", time_limit=timedelta(seconds=1), batch=3, retries=SOON)
def handle(message, transaction: {kind}):
    transaction.execute({wrap}(f"INSERT INTO seen (what) VALUES ('{{message.payload}}')"))
    if message.payload == 2 and message.attempt == 1:
        transaction.execute({wrap}("SELECT pg_sleep(60)"))
"""
    publish(shop, "t", 1, 2, 3, 4)
    with worker(shop.url, tmp_path, app) as process:
        wait_for_rest(shop)
        assert process.log.count("worker started") == 1, "the query was cancelled, and nothing else"
    assert sorted(seen(shop)) == ["1", "2", "3", "4"]


def test_a_batch_over_its_limit_is_tried_one_by_one(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", time_limit=timedelta(seconds=1), prefetch=100, retries=Retries(max_attempts=1))
def handle(messages: list[Message]):
    for message in messages:
        while message.payload == "hangs":
            time.sleep(0.01)
    note([message.payload for message in messages])
"""
    publish(shop, "t", 1, "hangs", 2)
    with worker(shop.url, tmp_path, app):
        wait_for_rest(shop)
    handled = sorted(str(payload) for call in map(eval, seen(shop)) for payload in call)
    assert handled == ["1", "2"]
    assert shop.value("SELECT array_agg(payload #>> '{}') FROM outbox.dead_letter") == ["hangs"]


def test_without_a_limit_a_handler_takes_its_time(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", time_limit=None)
def handle(message):
    time.sleep(1.5)
    note(message.payload)
"""
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app, "--timeout", "1"):
        wait_for_rest(shop)
    assert seen(shop) == ["1"]


#: What a message can be that can't be read, written in SQL by somebody who bypassed our checks.
UNREADABLE = {
    "a lone surrogate": ("""'"\\ud800"'::json, headers => '{}'""", "message.payload", "DecodeError"),
    "a number too large": ("'1e999999999'::json, headers => '{}'", "message.payload", "ValidationError"),
    "headers that are no text": ("""'1'::json, headers => '{"a": 1}'""", "message.headers", "ValidationError"),
    "a body that is no JSON": ("NULL, body => '\\xff', headers => '{}'", "message.decode(dict)", "DecodeError"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("batch", [1, 10])
def test_a_message_that_cannot_be_read_is_a_dead_letter_alone(
    shop: Database, tmp_path: Path, kind: str, batch: int
) -> None:
    arguments, reads, error = UNREADABLE[kind]
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", prefetch=20, batch={batch}, retries=Retries(max_attempts=1))
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES ('x')")
    if message.key == "odd":
        {reads}
"""
    publish(shop, "t", 1, 2)
    shop.value(f"SELECT outbox.publish('t', {arguments}, key => 'odd')")
    publish(shop, "t", 3, 4)
    with worker(shop.url, tmp_path, app):
        wait_for_rest(shop)
    dead = shop.connect().execute("SELECT errors->0->>'class' FROM outbox.dead_letter").fetchall()
    assert dead == [(error,)]
    assert len(seen(shop)) == 4


@pytest.mark.parametrize("hang", ["await asyncio.gather(block())", "await block()"])
def test_a_message_that_blocks_the_event_loop_unseen_is_found(shop: Database, tmp_path: Path, hang: str) -> None:
    """In a task of its own, or without a limit: nobody knows who it is, until it is alone in hand."""
    limit = "timedelta(seconds=1)" if "gather" in hang else "None"
    app = f"""{PREAMBLE}
TWICE = Retries(first=timedelta(milliseconds=20), longest=timedelta(milliseconds=20), max_attempts=2)

async def block():
    time.sleep(3600)

@app.subscribe("s", "t", time_limit={limit}, concurrency=3, retries=TWICE)
async def handle(message):
    if message.payload == "blocks":
        {hang}
    note(message.payload)
"""
    publish(shop, "t", 1, "blocks", 2)
    with worker(shop.url, tmp_path, app, "--timeout", "3"):
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter"), "the dead letter")
        wait_for_rest(shop)
    assert set(seen(shop)) == {"1", "2"}
    assert shop.value("SELECT array_agg(payload #>> '{}') FROM outbox.dead_letter") == ["blocks"]


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_worker_that_was_asked_to_stop_is_not_replaced(
    shop: Database, tmp_path: Path, colour: str, loop: str
) -> None:
    """Its handler hangs, or blocks the event loop; the signal, sent by itself, came before that was found out."""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", time_limit=timedelta(seconds=1))
{colour} handle(message):
    os.kill(os.getpid(), 15)
    time.sleep(3600)
"""
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app, "--timeout", "3", "--grace", "20", "--loop", loop) as process:
        assert process.process.wait(PATIENCE) == 0
        assert process.log.count("worker started") == 1


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_the_time_that_a_handler_waits_for_the_database_is_not_its_own(
    own_postgres: Database, tmp_path: Path, colour: str
) -> None:
    """An outage longer than the limit charges nobody."""
    own_postgres.execute("CREATE TABLE seen (id serial, what text)")
    kind, wait = ("Connection", "") if colour == "def" else ("AsyncConnection", "await ")
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", time_limit=timedelta(seconds=2), retries=Retries(max_attempts=1))
{colour} handle(message, connection: psycopg.{kind}):
    {wait}connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    {wait}connection.execute("SELECT pg_sleep(0.05)")
"""
    publish(own_postgres, "t", *range(40))
    with worker(own_postgres.url, tmp_path, app) as process:
        wait_for(lambda: len(seen(own_postgres)) > 3, "some effects")
        own_postgres.postgres.stop("immediate")
        process.wait_for_line("database away")
        time.sleep(4)  # the outage itself
        own_postgres.postgres.start()
        wait_for_rest(own_postgres)
        assert process.log.count("worker started") == 1
    dead = own_postgres.value("SELECT array_agg(errors) FROM outbox.dead_letter")
    assert "TimeLimitExceeded" not in str(dead)
    assert len(seen(own_postgres)) + own_postgres.value("SELECT count(*) FROM outbox.dead_letter") == 40
