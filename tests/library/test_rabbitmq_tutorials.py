"""What RabbitMQ's six tutorials teach, with workers of ours; and the rules of its topic exchange."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from outbox import InvalidMessage, Outbox
from tests.library.workshop import PREAMBLE, seen, wait_for_rest
from tests.shop_floor import Database, WorkerProcess, outbox, wait_for, worker


def test_1_hello_world(shop: Database, tmp_path: Path) -> None:
    """A producer, a queue, a consumer; the message may come before the consumer is there."""
    with shop.connect() as db:
        Outbox().publish(db, "hello", "Hello World!")
    app = f"{PREAMBLE}\n@app.subscribe('receiver', 'hello')\ndef receive(message): note(message.payload)\n"
    with worker(shop.url, tmp_path, app):
        wait_for_rest(shop)
    assert seen(shop) == ["Hello World!"]


def test_2_work_queues(shop: Database, tmp_path: Path) -> None:
    """Two workers share the work, each message goes to one; who is free gets the next; nothing dies with a worker."""
    app = f"""{PREAMBLE}
@app.subscribe("workers", "work", prefetch=1)
def work(message):
    if message.payload == "slow" and os.environ["NAME"] == "one" :
        note("one took slow")
        time.sleep(600)
    note(f"{{os.environ['NAME']}} did {{message.payload}}")
"""
    with shop.connect() as db:
        Outbox().publish(db, "work", "slow")
    one = WorkerProcess(shop.url, tmp_path, app, "--timeout", "5", more={"NAME": "one"})
    try:
        wait_for(lambda: seen(shop) == ["one took slow"], "the first worker has it")
        two = WorkerProcess(shop.url, tmp_path, app, "--timeout", "5", more={"NAME": "two"})
        try:
            with shop.connect() as db:
                Outbox().publish_many(db, "work", [str(number) for number in range(5)])
            wait_for(lambda: len(seen(shop)) == 6, "the rest goes to who is free")
            assert sorted(seen(shop)[1:]) == [f"two did {number}" for number in range(5)]
            one.kill()
            wait_for(lambda: "two did slow" in seen(shop), "what the first one had")
            wait_for_rest(shop)
        finally:
            two.kill()
    finally:
        one.kill()
    assert Counter(seen(shop)).most_common(1)[0][1] == 1


def test_3_publish_subscribe(shop: Database, tmp_path: Path) -> None:
    """A fanout: each subscription gets each message; one that is new and starts at "next" gets what comes from then."""
    logs = f"""{PREAMBLE}
@app.subscribe("screen", "logs", start="next")
def show(message): note(f"screen {{message.payload}}")

@app.subscribe("file", "logs", start="next")
def save(message): note(f"file {{message.payload}}")
"""
    with shop.connect() as db:
        Outbox().publish(db, "logs", "before")
    with worker(shop.url, tmp_path, logs):
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.cursor") == 2, "both are bound")
        with shop.connect() as db:
            Outbox().publish(db, "logs", "now")
        wait_for(lambda: len(seen(shop)) == 2, "both have it")
        wait_for_rest(shop)
    assert sorted(seen(shop)) == ["file now", "screen now"]


def test_4_routing(shop: Database, tmp_path: Path) -> None:
    """A direct exchange: one subscription for errors, another for several severities."""
    logs = f"""{PREAMBLE}
@app.subscribe("file", "logs.error")
def save(message): note(f"file {{message.topic}}")

@app.subscribe("screen", "logs.info", "logs.warning", "logs.error")
def show(message): note(f"screen {{message.topic}}")
"""
    with worker(shop.url, tmp_path, logs), shop.connect() as db:
        for severity in "debug", "info", "warning", "error":
            Outbox().publish(db, f"logs.{severity}", severity)
        db.commit()
        wait_for(lambda: len(seen(shop)) == 4, "what is routed")
        wait_for_rest(shop)
    assert sorted(seen(shop)) == ["file logs.error", "screen logs.error", "screen logs.info", "screen logs.warning"]


ANIMALS = {
    "quick.orange.rabbit": {"orange", "rabbits and lazy"},
    "lazy.orange.elephant": {"orange", "rabbits and lazy"},
    "quick.orange.fox": {"orange"},
    "lazy.brown.fox": {"rabbits and lazy"},
    "lazy.pink.rabbit": {"rabbits and lazy"},  # fits two patterns, comes once
    "quick.brown.fox": set(),
    "orange": set(),
    "quick.orange.new.rabbit": set(),
    "lazy.orange.new.rabbit": {"rabbits and lazy"},
}


def test_5_topics(shop: Database, tmp_path: Path) -> None:
    """A topic exchange: * is one word, # any number; a message that fits two patterns of a subscription comes once."""
    animals = f"""{PREAMBLE}
@app.subscribe("orange", "*.orange.*")
def orange(message): note(f"orange {{message.topic}}")

@app.subscribe("rabbits-and-lazy", "*.*.rabbit", "lazy.#")
def rabbits(message): note(f"rabbits and lazy {{message.topic}}")
"""
    expected = sorted(f"{who} {topic}" for topic, readers in ANIMALS.items() for who in readers)
    with worker(shop.url, tmp_path, animals), shop.connect() as db:
        for topic in ANIMALS:
            Outbox().publish(db, topic, 1)
        db.commit()
        wait_for(lambda: len(seen(shop)) >= len(expected), "what fits")
        wait_for_rest(shop)
    assert sorted(seen(shop)) == expected


def test_6_rpc(shop: Database, tmp_path: Path) -> None:
    """A call over two queues with a correlation id, here by `request` and `reply`."""
    server = f"""{PREAMBLE}
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)

@app.subscribe("fibonacci", "rpc", guarantee="exactly-once")
def answer(message, connection: psycopg.Connection): app.reply(connection, message, fib(message.payload))
"""
    with worker(shop.url, tmp_path, server), shop.connect() as db:
        replies = [Outbox().request(db, "rpc", n, timeout=timedelta(seconds=60)).payload for n in (1, 10, 20)]
        assert outbox(shop.url, "request", "rpc", "15", "--timeout", "60").stdout == "610\n"
    assert replies == [1, 55, 6765]


def fits(words: list[str], pattern: list[str]) -> bool:
    """The rules of AMQP 0-9-1 for a topic exchange, said in the plainest way."""
    if not pattern:
        return not words
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(fits(words[taken:], rest) for taken in range(len(words) + 1))
    return bool(words) and first in ("*", words[0]) and fits(words[1:], rest)


PATTERNS = [
    *("a.b.c", "a.*.c", "a.#.b", "a.b.b.c", "#", "#.#", "#.b", "*.*", "a.*", "*.b.c", "a.#", "a.#.#", "b.c", "*.*.*"),
    *("*.#", "#.*.#", "*.#.#", "#.#.#", "*", "#.b.#", "*.#.*", "#.*", "#.a.#.b.#", "a.*.#.b", "args-test", "A.b"),
]
KEYS = [
    *("a.b.c", "a.b", "a.b.b", "b.c.c", "a.a.a.a.a", "b.b.c", "a.x.c.b", "oneword", "args-test", "a", "b", "a_b.c-d"),
    *("nothing.here.at.all", "ab", "a.bc", "ab.c", "A.B.C"),
]


def test_patterns_match_as_those_of_a_topic_exchange_do(one_database: Database) -> None:
    """Each of the patterns with each of the keys; and all short ones of two words and both wildcards."""
    short = [
        ".".join(words) for length in (1, 2, 3) for words in itertools.product(("a", "b", "*", "#"), repeat=length)
    ]
    keys = [".".join(words) for length in (1, 2, 3, 4) for words in itertools.product("ab", repeat=length)]
    pairs = [*itertools.product(KEYS, PATTERNS), *itertools.product(keys, short)]
    with one_database.connect() as db:
        rows = db.execute(
            "SELECT key, pattern, outbox.topic_matches(key, pattern) "
            "FROM unnest(%s::text[], %s::text[]) AS u (key, pattern)",
            ([key for key, _ in pairs], [pattern for _, pattern in pairs]),
        ).fetchall()
    assert len(rows) == len(pairs)
    assert [row for row in rows if row[2] != fits(row[0].split("."), row[1].split("."))] == []


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("a.*.c", {"a.b.c"}),
        ("a.#.b", {"a.b", "a.b.b", "a.x.c.b"}),
        ("#.#", set(KEYS)),
        ("*.#", set(KEYS)),
        ("#.#.#", set(KEYS)),
        ("*.*", {"a.b", "a_b.c-d", "a.bc", "ab.c"}),
        ("*", {"oneword", "args-test", "a", "b", "ab"}),
        ("#.b.#", {"a.b.c", "a.b", "a.b.b", "b.c.c", "b.b.c", "a.x.c.b", "b"}),
        ("A.b", set()),
    ],
)
def test_a_pattern_matches_these_keys_and_no_others(one_database: Database, pattern: str, matched: set[str]) -> None:
    with one_database.connect() as db:
        rows = db.execute(
            "SELECT key FROM unnest(%s::text[]) AS key WHERE outbox.topic_matches(key, %s)", (KEYS, pattern)
        ).fetchall()
    assert {key for (key,) in rows} == matched


@pytest.mark.parametrize("key", ["", ".", "a.", ".a", "a..b"])
def test_a_routing_key_with_an_empty_word_is_no_topic(one_database: Database, key: str) -> None:
    """A topic exchange takes it; docs/coming-from.md says that we don't."""
    with one_database.connect() as db:
        with pytest.raises(InvalidMessage):
            Outbox().publish(db, key, 1)
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute("SELECT outbox.publish(%s, '1')", (key,))
