"""The iterator over a log, and `outbox read`: from where, what of it, and how it goes on after whatever befell it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outbox import InvalidDeclaration, MessageId, NewMessage, NotOwnTransaction, Outbox, TopicNotDeclared
from tests.library.test_publish import ASYNC, SYNC
from tests.library.workshop import seen
from tests.servers import PgBouncer
from tests.shop_floor import PATIENCE, Database, environment, outbox, wait_for

app = Outbox()


def publish(database: Database, topic: str, *payloads: Any, **more: Any) -> None:
    with database.connect() as connection:
        app.publish_many(connection, topic, [NewMessage(payload, **more) for payload in payloads])


def payloads(database: Database, topic: str = "t", **more: Any) -> list[Any]:
    with psycopg.connect(database.url) as connection:
        return [message.payload for message in app.read(connection, topic, **more)]


@pytest.mark.parametrize("kind", SYNC)
def test_a_log_is_read_on_any_kind_of_connection(one_database: Database, kind: str) -> None:
    publish(one_database, "t", {"id": "é"}, key="k", headers={"h": "v"})
    publish(one_database, "t", b"\x00\xff")
    before = datetime.now(UTC)
    with SYNC[kind](one_database.url) as connection:
        first, second = app.read(connection, "t")
        app.publish(connection, "t", "the connection can be used as ever")
        connection.commit()
        assert [message.payload for message in app.read(connection, "t", start=timedelta(minutes=5), filter='$ > "a"')]
    assert (first.id, first.topic, first.partition, first.priority) == (MessageId(1, 1), "t", 0, 0)
    assert (first.payload, first.key, first.headers) == ({"id": "é"}, "k", {"h": "v"})
    assert (second.payload, second.key, second.headers["content-type"]) == (
        b"\x00\xff",
        None,
        "application/octet-stream",
    )
    assert abs(before - first.published_at) < timedelta(minutes=1)


@pytest.mark.parametrize("kind", ASYNC)
def test_a_log_is_read_on_any_kind_of_async_connection(one_database: Database, kind: str) -> None:
    publish(one_database, "t", 1, 2)

    async def read() -> list[Any]:
        async with ASYNC[kind](one_database.url) as connection:
            reader = app.read(connection, "t")
            found = [message.payload async for message in reader]
            publish(one_database, "t", 3)
            again = app.read(connection, "t", resume=reader.token)
            return found + [message.payload async for message in again]

    assert asyncio.run(read()) == [1, 2, 3]


def test_a_reading_ends_where_the_log_ended_when_it_began(one_database: Database) -> None:
    publish(one_database, "t", *range(2500))
    with one_database.connect() as connection:
        reader = app.read(connection, "t")
        found = [next(reader).payload]
        publish(one_database, "t", "later")
        found += [message.payload for message in reader]
    assert found == list(range(2500))


def test_large_messages_are_read_in_portions(one_database: Database) -> None:
    publish(one_database, "t", *("x" * 1_000_000 for _ in range(20)))
    assert [len(payload) for payload in payloads(one_database)] == [1_000_000] * 20


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"start": "last"}, [3]),
        ({"start": "next"}, []),
        ({"start": 3}, [2, 3]),
        ({"start": MessageId(1, 2)}, [1, 2, 3]),
        ({"start": timedelta(hours=1)}, [0, 1, 2, 3]),
        ({"start": timedelta(0)}, []),
        ({"start": datetime(2020, 1, 1, tzinfo=UTC)}, [0, 1, 2, 3]),
        ({"to": datetime(2020, 1, 1, tzinfo=UTC)}, []),
        ({"key": "even"}, [0, 2]),
        ({"headers": {"n": "3"}}, [3]),
        ({"headers": {"n": None}}, [0, 1, 2, 3]),
        ({"filter": "$ > 0", "key": "even"}, [2]),
        ({"partition": 0}, [0, 1, 2, 3]),
    ],
)
def test_what_is_read_and_from_where(one_database: Database, more: dict[str, Any], expected: list[int]) -> None:
    for n in range(4):
        publish(one_database, "t", n, key="odd" if n % 2 else "even", headers={"n": str(n)})
    assert payloads(one_database, **more) == expected


def test_times_are_exact_though_offsets_are_found_by_them(one_database: Database) -> None:
    publish(one_database, "t", "a")
    noon = one_database.value("SELECT clock_timestamp()")
    publish(one_database, "t", "b")
    assert payloads(one_database, start=noon) == ["b"]
    assert payloads(one_database, to=noon) == ["a"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"start": "middle"}, "nowhere to start"),
        ({"start": True}, "nowhere to start"),
        ({"start": datetime(2026, 1, 1)}, "a time with its zone"),
        ({"start": 99}, "it holds 1 to 1"),
        ({"start": 1, "topic": "wide"}, "single partition"),
        ({"start": MessageId(99, 1)}, "has no partition 99"),
        ({"partition": 7}, "has no partition 7"),
        ({"filter": "$.a >"}, "not a predicate"),
        ({"headers": {"a": 1}}, "headers are names and values"),
        ({"topic": "a..b"}, "not a topic or pattern"),
        ({"resume": "{}"}, "no token"),
        ({"resume": '{"topic": "x", "position": {}}'}, "of a reading of 'x'"),
        ({"follow": True, "to": datetime(2026, 1, 1, tzinfo=UTC)}, "has no end"),
    ],
)
def test_what_makes_no_sense_is_refused(one_database: Database, more: dict[str, Any], says: str) -> None:
    publish(one_database, "t", 1)
    with one_database.connect() as connection:
        app.declare_topic(connection, "wide", partitions=2)
        connection.commit()
        with pytest.raises(InvalidDeclaration, match=says):
            list(app.read(connection, **{"topic": "t", **more}))


def test_an_unknown_topic_is_an_error_and_a_pattern_may_match_none(one_database: Database) -> None:
    with pytest.raises(TopicNotDeclared, match="nothing was published to it"):
        payloads(one_database, "nosuch")
    assert payloads(one_database, "nosuch.*") == []


def test_a_reader_looks_outside_of_transactions_only_and_goes_on_then(one_database: Database) -> None:
    publish(one_database, "t", *range(1500))
    with one_database.connect() as connection:
        reader = app.read(connection, "t")
        found = [next(reader).payload for _ in range(1000)]
        connection.execute("SELECT 1")
        with pytest.raises(NotOwnTransaction, match="each look of a reader"):
            next(reader)
        connection.rollback()
        assert found + [message.payload for message in reader] == list(range(1500))


def test_a_reader_follows_until_it_is_closed(one_database: Database) -> None:
    found: list[Any] = []
    publish(one_database, "orders.placed", "before")
    with one_database.connect() as connection:
        reader = app.read(connection, "orders.*", follow=True)

        def follow() -> None:
            found.extend(message.payload for message in reader)

        thread = threading.Thread(target=follow)
        thread.start()
        wait_for(lambda: reader.token, "the reader stands somewhere")
        publish(one_database, "orders.placed", "a")
        wait_for(lambda: found == ["a"], "what was published")
        publish(one_database, "orders.paid", "b")  # a topic that did not exist
        wait_for(lambda: found == ["a", "b"], "what was published to a new topic")
        reader.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_an_async_reader_may_be_cancelled_and_goes_on_after_it(one_database: Database) -> None:
    publish(one_database, "t", "before")

    async def follow() -> list[Any]:
        async with await psycopg.AsyncConnection.connect(one_database.url) as connection:
            reader = app.read(connection, "t", follow=True)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(reader), 0.3)
            publish(one_database, "t", "a", "b")
            found = [(await asyncio.wait_for(anext(reader), PATIENCE)).payload for _ in range(2)]
            asyncio.get_running_loop().call_later(0.1, reader.close)
            return found + [message.payload async for message in reader]

    assert asyncio.run(follow()) == ["a", "b"]


def test_a_token_of_any_moment_goes_on_with_just_the_rest(one_database: Database) -> None:
    """Also amid late messages of several transactions, of several partitions."""
    with one_database.connect() as connection:
        app.declare_topic(connection, "t", partitions=2)
    slow = [one_database.connect() for _ in range(3)]
    publish(one_database, "t", "first", key="a")
    for n, connection in itertools.product(range(4), slow):
        app.publish(connection, "t", f"{slow.index(connection)}-{n}", key=f"k{n}")
    publish(one_database, "t", "between", key="b")
    with one_database.connect() as connection:
        reader = app.read(connection, "t")
        assert sorted(message.payload for message in reader) == ["between", "first"]
        token = reader.token
        slow[0].commit()
        slow[2].commit()
        publish(one_database, "t", *range(20))
        whole = sorted(str(message.payload) for message in app.read(connection, "t", resume=token))
        assert len(whole) == 28
        reader = app.read(connection, "t", resume=token)
        before: list[str] = []
        for message in reader:
            before.append(str(message.payload))
            with psycopg.connect(one_database.url) as other:
                rest = [str(message.payload) for message in app.read(other, "t", resume=reader.token)]
            assert sorted(before + rest) == whole, f"after {before[-1]}"
        slow[1].commit()
        late = [message.payload for message in app.read(connection, "t", resume=reader.token)]
        assert sorted(late) == [f"1-{n}" for n in range(4)]


READER = """
import sys, time
import psycopg
from outbox import Outbox

url, = sys.argv[1:]
with psycopg.connect(url) as connection, psycopg.connect(url) as effects:
    row = effects.execute("SELECT token FROM progress").fetchone()
    reader = Outbox().read(connection, "t", start="first", follow=True, resume=row[0] if row else None)
    for message in reader:
        effects.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
        effects.execute("DELETE FROM progress")
        effects.execute("INSERT INTO progress VALUES (%s)", (reader.token,))
        effects.commit()
"""


def test_a_reader_that_is_killed_again_and_again_misses_nothing_and_doubles_nothing(shop: Database) -> None:
    shop.execute("CREATE TABLE progress (token text)")
    publish(shop, "t", "first")
    committed, ends = ["first"], threading.Event()

    def publisher(number: int) -> None:
        with psycopg.connect(shop.url) as connection:
            for n in itertools.count():
                if ends.is_set():
                    break
                app.publish(connection, "t", f"{number}-{n}")
                time.sleep(0.002 * (n % 7))  # while it is open, others commit later offsets
                if n % 5 == 4:
                    connection.rollback()
                else:
                    connection.commit()
                    committed.append(f"{number}-{n}")

    publishers = [threading.Thread(target=publisher, args=(n,)) for n in range(3)]
    for thread in publishers:
        thread.start()
    command = [sys.executable, "-c", READER, shop.url]
    try:
        for _ in range(4):
            count = len(seen(shop))
            process = subprocess.Popen(command, env=environment(shop.url))
            wait_for(lambda count=count: len(seen(shop)) > count + 20, "it reads")
            process.kill()
            process.wait()
    finally:
        ends.set()
        for thread in publishers:
            thread.join()
    process = subprocess.Popen(command, env=environment(shop.url))
    try:
        wait_for(lambda: len(seen(shop)) >= len(committed), "it reads the rest")
    finally:
        process.kill()
        process.wait()
    assert sorted(seen(shop)) == sorted(committed)


# The command


def lines(database: Database, *arguments: str) -> list[Any]:
    result = outbox(database.url, "read", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_command_prints_an_object_a_line(one_database: Database) -> None:
    with one_database.connect(autocommit=True) as db:
        db.execute(
            """SELECT outbox.publish('t', '{"n":\n 12345678901234567890.10}', key => 'k', headers => '{"h": "v"}')"""
        )
    publish(one_database, "t", b"\x00\xff")
    result = outbox(one_database.url, "read", "t", "--json")
    assert result.stdout.count("\n") == 2
    assert '"payload":{"n":  12345678901234567890.10}' in result.stdout
    first, second = map(json.loads, result.stdout.splitlines())
    assert list(first) == [
        "id",
        "topic",
        "partition",
        "priority",
        "offset",
        "published_at",
        "key",
        "headers",
        "payload",
    ]
    assert (first["id"], first["key"], first["headers"]) == ("1-1", "k", {"h": "v"})
    assert datetime.fromisoformat(first["published_at"]).tzinfo is not None
    assert second["payload"] is None
    assert base64.b64decode(second["body"]) == b"\x00\xff"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["t"], [0, 1, 2, 3]),
        (["t", "--limit", "2"], [0, 1]),
        (["t", "--from", "last"], [3]),
        (["t", "--from", "next"], []),
        (["t", "--from", "3"], [2, 3]),
        (["t", "--from", "1-4"], [3]),
        (["t", "--from", "2h"], [0, 1, 2, 3]),
        (["t", "--from", "2020-01-01"], [0, 1, 2, 3]),
        (["t", "--from", "2020-01-01T12:00Z", "--to", "2020-01-02"], []),
        (["t", "--to", "1h"], []),
        (["t", "--key", "even"], [0, 2]),
        (["t", "--header", "n=1"], [1]),
        (["t", "--filter", "$ > 1"], [2, 3]),
        (["#", "--filter", "$ < 1"], [0]),
        (["t", "--partition", "0"], [0, 1, 2, 3]),
    ],
)
def test_the_command_reads_what_it_is_asked_for(
    one_database: Database, arguments: list[str], expected: list[int]
) -> None:
    for n in range(4):
        publish(one_database, "t", n, key="odd" if n % 2 else "even", headers={"n": str(n)})
    assert [line["payload"] for line in lines(one_database, *arguments)] == expected


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["t", "--from", "yesterday"], 2, "nowhere to start"),
        (["t", "--from", "2026-13-01"], 2, "not a time"),
        (["t", "--header", "x"], 2, "not a header"),
        (["nosuch"], 1, "not declared"),
        (["t", "--filter", "$.x >"], 1, "not a predicate"),
        (["t", "--follow", "--to", "1h"], 1, "has no end"),
    ],
)
def test_the_command_says_what_is_wrong(one_database: Database, arguments: list[str], code: int, says: str) -> None:
    publish(one_database, "t", 1)
    result = outbox(one_database.url, "read", *arguments)
    assert result.returncode == code
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_lines_for_people_are_shortened_and_harmless(one_database: Database) -> None:
    publish(one_database, "orders.placed", {"text": "x" * 1000}, key="red \x1b[31m alarm")
    publish(one_database, "orders.placed", b"\x00" * 7)
    result = outbox(one_database.url, "read", "orders.*")
    first, second = result.stdout.splitlines()
    assert len(first) == 200
    assert first.endswith("…")
    assert "\x1b" not in first
    assert "  1-1  orders.placed  red" in first
    assert second.endswith("1-2  orders.placed  -  (7 bytes)")


def test_a_pipe_that_is_closed_ends_it_quietly(one_database: Database) -> None:
    publish(one_database, "t", *range(5000))
    command = f"{sys.executable} -m outbox read t --json | head -n 2; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", command], env=environment(one_database.url), capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.stderr == ""
    assert result.stdout.count("payload") == 2
    assert result.stdout.endswith("\n0\n")


class Following:
    """`outbox read … --follow` with its output in a file."""

    def __init__(self, database: Database, path: Path, *arguments: str) -> None:
        self.path = path
        with open(path, "a") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outbox", "read", *arguments, "--follow", "--json"],
                env=environment(database.url),
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
            )

    @property
    def payloads(self) -> list[Any]:
        return [json.loads(line)["payload"] for line in self.path.read_text().split("\n")[:-1]]

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


def test_the_command_follows_until_ctrl_c(one_database: Database, tmp_path: Path) -> None:
    publish(one_database, "t", 1)
    following = Following(one_database, tmp_path / "out", "t", "--from", "first")
    wait_for(lambda: following.payloads == [1], "what there is")
    publish(one_database, "t", 2)
    wait_for(lambda: following.payloads == [1, 2], "what comes")
    assert following.end(signal.SIGINT) == (130, "")


def test_the_command_reads_through_a_pooler(one_database: Database, pgbouncer: PgBouncer) -> None:
    publish(one_database, "t", *range(1200))
    result = outbox(pgbouncer.url(one_database.name), "read", "t", "--json")
    assert result.stdout.count("\n") == 1200, result.stderr


def test_the_command_goes_on_where_it_stopped(one_database: Database, tmp_path: Path) -> None:
    kept = ["--resume", str(tmp_path / "orders.position")]
    publish(one_database, "t", 1, 2, 3)
    assert [line["payload"] for line in lines(one_database, "t", *kept, "--limit", "2")] == [1, 2]
    assert [line["payload"] for line in lines(one_database, "t", *kept)] == [3]
    assert lines(one_database, "t", *kept) == []
    following = Following(one_database, tmp_path / "out", "t", *kept)
    for n in range(4, 8):
        publish(one_database, "t", n)
    wait_for(lambda: following.payloads == [4, 5, 6, 7], "what comes")
    following.end(signal.SIGKILL)
    publish(one_database, "t", 8)
    assert [line["payload"] for line in lines(one_database, "t", *kept)][-1] == 8


def test_who_follows_survives_a_restart_of_the_database(own_postgres: Database, tmp_path: Path) -> None:
    publish(own_postgres, "t", 1)
    following = Following(own_postgres, tmp_path / "out", "t", "--from", "first")
    wait_for(lambda: following.payloads == [1], "what there is")
    own_postgres.postgres.stop()
    own_postgres.postgres.start()
    publish(own_postgres, "t", 2)
    wait_for(lambda: following.payloads == [1, 2], "what comes after the restart")
    code, errors = following.end(signal.SIGINT)
    assert code == 130
    assert "the database is away, trying again" in errors
