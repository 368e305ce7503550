"""Seek and replay from Python and from the command line, while workers run."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from outbox import InvalidDeclaration, NotOwnTransaction, Outbox, SubscriptionNotFound
from outbox.definitions import Definitions, Subscription, apply, parse
from outbox.replay import Range, Replayed
from tests.library.test_guides import blocks
from tests.library.test_readme import Reader
from tests.library.workshop import PREAMBLE, seen
from tests.shop_floor import (
    PATIENCE,
    ROOT,
    Database,
    at_rest,
    drain,
    environment,
    outbox,
    publish,
    register,
    subscribe,
    value,
    wait_for,
    worker,
)


@pytest.fixture
def db(shop: Database) -> psycopg.Connection[Any]:
    return shop.connect(autocommit=True)


@pytest.fixture
def taken(db: psycopg.Connection[Any]) -> int:
    """A subscription that has had a to d; the id of a worker."""
    publish(db, "t", *"abcd", key="k")
    subscribe(db, "s", "t")
    worker = register(db)
    assert drain(db, "s", worker) == list("abcd")
    return worker


# seek


@pytest.mark.parametrize(
    "to", [3, "3", timedelta(days=1), "1d ago", "1d-ago", datetime(2020, 1, 1, tzinfo=UTC), "first"]
)
def test_a_seek_goes_where_it_is_told(db, taken: int, to: Any) -> None:
    expected = "cd" if to in (3, "3") else "abcd"
    (planned,) = Outbox().seek(db, "s", to, dry_run=True)
    assert (planned.before, planned.messages, planned.is_back) == (4, len(expected), True)
    assert drain(db, "s", taken) == []
    (moved,) = Outbox().seek(db, "s", to)
    assert (moved.before, moved.after, moved.topic) == (4, 4 - len(expected), "t")
    assert drain(db, "s", taken) == list(expected)


def test_a_seek_begins_its_transaction(shop: Database, db, taken: int) -> None:
    app = Outbox()
    with shop.connect() as connection:
        assert len(app.seek(connection, "s", "first", topic="*", dry_run=True)) == 1
        app.seek(connection, "s", "first", topic="t", partition=0)
        connection.rollback()
        app.publish(connection, "t", "e")
        with pytest.raises(NotOwnTransaction):
            app.seek(connection, "s", "first")
    assert drain(db, "s", taken) == []


@pytest.mark.parametrize("to", ["soon", True, None, 0, datetime(2020, 1, 1), "2020-01-01T00:00", 1.5])
def test_what_is_nowhere_to_go_is_refused(db, taken: int, to: Any) -> None:
    app = Outbox()
    with pytest.raises(InvalidDeclaration, match="is nowhere to start: it is first, last, next, an offset"):
        app.seek(db, "s", to)
    with pytest.raises(InvalidDeclaration, match="is nowhere to start: it is first, last, next, an offset"):
        app.subscribe("new", "t", start=to)(print)


def test_async_connections_seek_and_replay(shop: Database, db, taken: int) -> None:
    async def main() -> None:
        app = Outbox()
        async with await psycopg.AsyncConnection.connect(shop.url, autocommit=True) as connection:
            assert [move.after for move in await app.seek(connection, "s", "next")] == [4]
            assert await app.replay(connection, "s", "t", key="k", from_at=timedelta(hours=1)) == Replayed(4, 0)
        engine = create_async_engine(shop.url.replace("postgresql:", "postgresql+asyncpg:"), poolclass=NullPool)
        async with engine.begin() as connection:
            assert [move.messages for move in await app.seek(connection, "s", "3", dry_run=True)] == [2]
            await app.seek(connection, "s", "3")
        async with engine.begin() as connection:
            assert await app.replay(connection, "s", "t", to_at=datetime.now(UTC), rate=5.0) == Replayed(0, 2)

    asyncio.run(main())
    assert drain(db, "s", taken).count("d") == 2


def test_the_command_says_how_far_and_over_how_many_messages(shop: Database, db, taken: int) -> None:
    dry = outbox(shop.url, "seek", "s", "--to", "2", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would be delivered again: 3, skipped: 0" in dry.stdout
    assert drain(db, "s", taken) == []
    done = outbox(shop.url, "seek", "s", "--to", "1h-ago", "--topic", "t", "--partition", "0")
    assert re.search(r"│ t +│ +0 │ +0 │ +4 │ +0 │ +4 again │", done.stdout), done.stdout
    assert outbox(shop.url, "seek", "s", "--to", "last").stdout.endswith("delivered again: 0, skipped: 3\n")
    assert drain(db, "s", taken) == ["d"]
    (plain,) = json.loads(outbox(shop.url, "seek", "s", "--to", "2020-01-01T00:00", "--json").stdout)
    assert (plain["before"], plain["after"], plain["messages"]) == (4, 0, 4)


def test_the_command_refuses_what_is_nowhere(shop: Database, db, taken: int) -> None:
    assert "is nowhere to start" in outbox(shop.url, "seek", "s", "--to", "soon").stderr
    assert outbox(shop.url, "seek", "s", "--to", "soon").returncode == 2
    nobody = outbox(shop.url, "seek", "nobody", "--to", "first")
    assert (nobody.returncode, "does not exist" in nobody.stderr) == (1, True)
    assert outbox(shop.url, "subscriptions", "bind", "s", "u", "--start", "2h").returncode == 0
    assert outbox(shop.url, "subscriptions", "bind", "s", "v", "--start", "soon").returncode == 2


# definitions


@pytest.mark.parametrize(
    ("start", "expected"),
    [('"last"', "d"), ("3", "cd"), ('"1h"', "abcd"), ("2020-01-01T00:00:00Z", "abcd"), ('"2100-01-01T00:00Z"', "")],
)
def test_definitions_name_any_start(shop: Database, db, taken: int, start: str, expected: str) -> None:
    wanted = parse(f'[subscriptions.defined]\nbindings = ["t"]\nstart = {start}')
    with shop.connect() as connection:
        apply(connection, wanted)
    assert drain(db, "defined", taken) == list(expected)


@pytest.mark.parametrize("start", ['"soon"', "2020-01-01T00:00:00", "0", "true", "1.5"])
def test_definitions_refuse_a_start_that_is_none(start: str) -> None:
    with pytest.raises(InvalidDeclaration, match=r"subscriptions\.defined\.start"):
        parse(f'[subscriptions.defined]\nbindings = ["t"]\nstart = {start}')


def test_a_definition_that_is_applied_says_where_it_starts(shop: Database, db, taken: int) -> None:
    with shop.connect() as connection:
        plan = apply(connection, Definitions(subscriptions={"defined": Subscription(bindings=("t",), start="2h")}))
    assert "+ binding t, from 2h" in str(plan)


# replay


def test_a_replay_is_of_a_topic_or_of_ranges(db, taken: int) -> None:
    app = Outbox()
    assert app.replay(db, "s", "t", dry_run=True) == Replayed(4, 0)
    assert app.replay(db, "s", ranges=[Range(1, 2, 3)]) == Replayed(2, 0)
    assert app.replay(db, "s", "t", from_at=timedelta(hours=1), to_at=datetime.now(UTC)) == Replayed(2, 2)
    assert sorted(drain(db, "s", taken)) == list("abcd")
    for wrong in ({}, {"topic": "t", "ranges": []}, {"topic": "t", "from_at": datetime(2020, 1, 1)}):
        with pytest.raises(InvalidDeclaration):
            app.replay(db, "s", **wrong)
    with pytest.raises(InvalidDeclaration, match="chosen by age"):
        app.replay(db, "s", "t", age=1)  # type: ignore[call-arg]
    with pytest.raises(SubscriptionNotFound, match="Bind it first"):
        app.replay(db, "s", "elsewhere")


def test_a_replay_of_many_portions_takes_each_message_once(shop: Database, db) -> None:
    subscribe(db, "s", "t")
    with shop.connect() as connection:
        Outbox().publish_many(connection, "t", range(2_500))
    value(db, "SELECT count(*) FROM outbox.seek_to('s', 'next')")
    assert Outbox().replay(db, "s", "t", filter="$ >= 100", rate=1e6) == Replayed(2_400, 0)
    assert sorted(drain(db, "s", register(db), 10_000)) == list(range(100, 2_500))


def test_the_command_chooses_as_it_is_told(shop: Database, db) -> None:
    subscribe(db, "s", "t")
    for n in range(4):
        headers = json.dumps({"country": "DE" if n % 2 else "FR"})
        value(db, "SELECT outbox.publish('t', %s::json, %s, %s)", json.dumps({"n": n}), f"k{n}", headers)
    worker_id = register(db)
    drain(db, "s", worker_id)

    def replayed(*options: str) -> list[int]:
        done = outbox(shop.url, "replay", "s", *options)
        assert done.returncode == 0, done.stderr
        found = sorted(payload["n"] for payload in drain(db, "s", worker_id))
        assert f"replayed: {len(found)}, skipped: 0" in done.stdout
        return found

    assert replayed("t", "--key", "k1") == [1]
    assert replayed("t", "--header", "country=DE", "--filter", "$.n > 1") == [3]
    assert replayed("t", "--from", "1h", "--to", "2100-01-01T00:00") == [0, 1, 2, 3]
    assert replayed("t", "--to", "1h") == []
    assert replayed("--range", "1:1-2") == [0, 1]
    assert replayed("t", "--partition", "0", "--header", "country") == [0, 1, 2, 3]
    assert "would be replayed: 4" in outbox(shop.url, "replay", "s", "#", "--dry-run").stdout
    assert drain(db, "s", worker_id) == []
    for wrong in ([], ["t", "--range", "1:1-2"], ["--range", "1-2"], ["t", "--from", "soon"], ["t", "--rate", "fast"]):
        assert outbox(shop.url, "replay", "s", *wrong).returncode == 2, wrong
    assert outbox(shop.url, "replay", "s", "elsewhere").returncode == 1


def test_a_replay_that_is_interrupted_says_how_to_go_on(shop: Database, db) -> None:
    """It is stopped in a portion, which waits for another's lock; the rest is done later, and nothing twice."""
    subscribe(db, "s", "t")
    with shop.connect() as connection:
        Outbox().publish_many(connection, "t", range(5_000))
    value(db, "SELECT count(*) FROM outbox.seek_to('s', 'next')")
    blocker = shop.connect()
    blocker.execute(
        "INSERT INTO outbox.redelivery (subscription_id, partition_id, "
        "\"offset\", attempt, due_at, published_at, payload) VALUES (1, 1, 2500, 1, now(), now(), '0')"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox", "replay", "s", "t", "--from", "1h", "--filter", "$ >= 10"],
        env=environment(shop.url), cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: value(db, "SELECT count(*) FROM outbox.redelivery") == 1_990, "two portions")
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    wait_for(lambda: value(db, blocked) == 1, "the third waits")
    process.send_signal(signal.SIGINT)
    blocker.rollback()
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 1
    assert "replayed: 2990, skipped: 0" in said
    worker_id = register(db)
    first = drain(db, "s", worker_id, 10_000)
    (command,) = re.findall("go on with: outbox (.*)", said)
    assert "--range 1:3001-5000" in command
    rest = outbox(shop.url, *shlex.split(command))
    assert "replayed: 2000, skipped: 0" in rest.stdout, rest.stderr
    assert sorted(first + drain(db, "s", worker_id, 10_000)) == list(range(10, 5_000))


APP = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", retries=SOON)
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    if message.payload % 10 == 0 and message.attempt == 1:
        raise ValueError

@app.subscribe("other", "t", guarantee="exactly-once")
def note(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO noted (what) VALUES (%s)", (str(message.payload),))
"""


def test_a_time_range_is_replayed_while_live_messages_flow(shop: Database, tmp_path: Path) -> None:
    """The ledger: live messages once, those of the range once more, and the other subscription sees nothing of it."""
    shop.execute("CREATE TABLE noted (what text)")
    history, live, enough = range(600), [], threading.Event()
    with shop.connect() as connection:
        Outbox().declare_topic(connection, "t", partitions=3)
        for n in history:
            Outbox().publish(connection, "t", n, key=str(n % 20))
    days = "make_interval(days => payload::text::int / 200)"
    shop.execute(f"UPDATE outbox.message SET published_at = timestamptz '2020-01-01' + {days}")

    def publish_live() -> None:
        with shop.connect(autocommit=True) as connection:
            while not enough.wait(0.002):
                live.append(1_000 + len(live))
                Outbox().publish(connection, "t", live[-1], key=str(live[-1] % 20))

    with worker(shop.url, tmp_path, APP, "--processes", "2"):
        wait_for(lambda: len(seen(shop)) == len(history) and at_rest(shop), "the history")
        publisher = threading.Thread(target=publish_live)
        publisher.start()
        wait_for(lambda: len(seen(shop)) > len(history) + 50, "live messages")
        done = outbox(shop.url, "replay", "s", "t", "--from", "2020-01-02T00:00Z", "--to", "2020-01-03T00:00Z")
        assert "replayed: 200, skipped: 0" in done.stdout, done.stderr
        enough.set()
        publisher.join()
        wait_for(lambda: len(seen(shop)) >= len(history) + len(live) + 200 and at_rest(shop), "all of it")
    assert Counter(map(int, seen(shop))) == Counter([*history, *live, *range(200, 400)])
    noted = shop.value("SELECT array_agg(what::int ORDER BY what::int) FROM noted")
    assert noted == [*history, *live]


def test_every_block_of_the_page_runs(shop: Database, db, tmp_path: Path) -> None:
    for topic in ("orders.placed", "prices"):
        publish(db, topic, *"abc", key="4711")
    subscribe(db, "search", "orders.#", "prices")
    subscribe(db, "reports")
    drain(db, "search", register(db))
    reader = Reader(shop, tmp_path)
    for language, block in blocks("replay.md"):
        reader.do(language, block)
    calls = f"from program import *\nwith psycopg.connect({shop.url!r}, autocommit=True) as c:\n    "
    functions = [block for language, block in blocks("replay.md") if "(connection: psycopg" in block]
    for block in functions:
        reader.python(block)
        (name,) = re.findall(r"^def (\w+)", block, re.MULTILINE)
        (tmp_path / "call.py").write_text(f"{calls}{name}(c)")
        reader.run([sys.executable, str(tmp_path / "call.py")])
    assert len(functions) == 2
