"""Parts of a feed: what a binding means outside of the database, ids, lanes, and what a user may say with --from."""

from __future__ import annotations

import asyncio
import pickle
from collections import deque
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from outbox import Binding, Message, MessageId, Outbox
from outbox import connection as connections
from outbox.chunks import Deferred
from outbox.definitions import Definitions, Source
from outbox.errors import InvalidDeclaration
from outbox.observer import NOBODY
from outbox.relay.cloudevents import Incoming
from outbox.relay.feeding import kafka, named, operations, source_of
from outbox.relay.feeding.bindings import Sieve
from outbox.relay.feeding.handlers import Handlers
from outbox.relay.feeding.lanes import Lane
from outbox.relay.feeding.message import EventId, Fed, Place, fed, id_of
from outbox.relay.feeding.operations import Begun
from outbox.relay.feeding.origin import of_subscription
from tests.relay.feeding import send
from tests.relay.mocked import MockCluster
from tests.relay.peers import servers
from tests.shop_floor import PATIENCE, Database, outbox

WORDS = st.sampled_from(["a", "b", "*", "#"])
PATTERNS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
TOPICS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)
HEADERS = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
BINDINGS = st.builds(
    Binding,
    PATTERNS,
    headers=st.none()
    | st.dictionaries(st.sampled_from("xyz"), st.none() | st.sampled_from("12"), min_size=1, max_size=2),
    match=st.sampled_from(["all", "any"]),
    filter=st.none() | st.sampled_from(["$ > 1", "$.a == 1", "exists($.b)"]),
)
PAYLOADS = st.sampled_from([b"1", b"2", b'{"a": 1}', b'{"b": null}', b'"text"'])


def message(topic: str, headers: dict[str, str] | None = None, body: bytes = b"1", offset: int = 0) -> Fed:
    place = Place(topic, "t/0", 0, offset, 0.0)
    return fed(Incoming(body, "application/json", headers or {}), ("ce_",), place, "s", "{address}")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bindings=st.lists(BINDINGS, min_size=1, max_size=3), topic=TOPICS, headers=HEADERS, body=PAYLOADS)
def test_a_sieve_lets_through_what_the_database_would(
    db: psycopg.Connection[Any], bindings: list[Binding], topic: str, headers: dict[str, str], body: bytes
) -> None:
    one = message(topic, headers, body)

    async def ask(conditions: list[dict[str, object]], messages: list[Fed]) -> list[bool]:
        return connections.run(operations.fitting(conditions, messages), db)

    matching = [
        b for b in bindings if db.execute("SELECT outbox.topic_matches(%s, %s)", (topic, b.pattern)).fetchone()[0]
    ]  # type: ignore[index]
    conditions = [{"headers": b.headers, "match": b.match, "filter": b.filter} for b in matching]
    wanted = bool(matching) and connections.run(operations.fitting(conditions, [one]), db) == [True]
    assert asyncio.run(Sieve(bindings).through([one], ask)) == ([one] if wanted else [])


def test_an_id_is_the_same_as_it_was_in_our_log_or_any_text() -> None:
    assert id_of("3-1042") == MessageId(3, 1042)
    other = id_of("b2c0-11")
    assert (str(other), other.partition_id) == ("b2c0-11", 0)
    assert other == EventId("b2c0-11") != EventId("b2c0-12")
    assert str(pickle.loads(pickle.dumps(other))) == "b2c0-11"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["close", "settle", "enter"])), max_size=60))
def test_a_lane_stands_behind_what_is_closed_and_before_what_is_not(steps: list[tuple[int, str]]) -> None:
    lane, offset, settled = Lane("t/0", 0, 0), 0, 0
    inside: deque[Fed] = deque()
    for number, step in steps:
        if step == "enter":
            offset += 1 + number % 2  # there may be holes
            one = message("a", offset=offset)
            assert lane.enter(one)
            assert not lane.enter(message("a", offset=offset))
            inside.append(one)
        elif step == "close" and inside:
            inside[number % len(inside)].outcome = True
        elif step == "settle":
            closed, stands = lane.closed()
            lane.forget(closed)
            assert stands >= settled
            settled = stands
            for one in closed:
                assert one.outcome is True
                assert inside.popleft() is one
                assert one.offset < stands
            assert all(one.offset >= stands for one in inside)
            assert list(lane.window) == list(inside)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("kafka://a:9092,b:9092/shop", Source(url="kafka://a:9092,b:9092", address="shop", group="mailer")),
        ("kafka://a/shop?group=eu", Source(url="kafka://a", address="shop", group="eu.mailer")),
        (
            "kafkas://a/shop?topic=in.{address}",
            Source(url="kafkas://a", address="shop", topic="in.{address}", group="mailer"),
        ),
        ("amqp://a/vhost", Source(url="amqp://a/vhost", address="mailer")),
        ("amqp://a?queue=q.{subscription}", Source(url="amqp://a", address="q.mailer")),
    ],
)
def test_a_url_says_where_a_subscription_reads(url: str, wanted: Source) -> None:
    assert of_subscription(source_of(url), "mailer") == wanted


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("kafka://a:9092", "which topic"),
        ("kafka://user:secret@a:9092/shop", "user or password"),
        ("kafka://a/shop?password=secret", "can't stand behind"),
        ("amqp://a?group=g", "a group is Kafka's"),
        ("kafka://a/t?queue=g", "a queue is RabbitMQ's"),
        ("http://a/b", "nothing is fetched by HTTP"),
        ("ftp://a/b", "it must be SCHEME"),
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url: str, problem: str) -> None:
    with pytest.raises(InvalidDeclaration, match=problem) as caught:
        source_of(url)
    assert "secret" not in str(caught.value)


def test_a_name_is_one_of_the_sources_that_are_defined() -> None:
    with pytest.raises(InvalidDeclaration, match=r"no \[sources.b\]; there are a"):
        named("b", Definitions(sources={"a": Source(url="kafka://a", address="t", topic="t")}))


APP = """
from datetime import timedelta
from outbox import Binding, Outbox
app = Outbox()
@app.subscribe("mailer", {declared})
def take(message):
    pass
"""


@pytest.mark.parametrize(
    ("declared", "arguments", "problem"),
    [
        ("'a', rate=5", ["kafka://127.0.0.1:1/t"], "rate is of our own log"),
        ("'a', ttl=timedelta(1)", ["kafka://127.0.0.1:1/t"], "ttl is of our own log"),
        ("'a', start='2h'", ["kafka://127.0.0.1:1/t"], "'first' or 'next'"),
        ("Binding('a', alternate=True)", ["kafka://127.0.0.1:1/t"], "alternate"),
        ("Binding('a', filter='$ >')", ["kafka://127.0.0.1:1/t"], "not a predicate"),
        ("'a'", ["nats://127.0.0.1:1/t"], "Kafka or RabbitMQ, not on nats"),
        ("'a'", ["kafka://u:secret@127.0.0.1:1/t"], "user or password"),
        ("'a'", ["shop"], "outbox.toml"),
    ],
)
def test_what_can_t_be_read_from_there_is_said_at_start(
    one_database: Database, tmp_path: Path, declared: str, arguments: list[str], problem: str
) -> None:
    (tmp_path / "app.py").write_text(APP.format(declared=declared))
    ended = outbox(one_database.url, "worker", "app:app", "--from", *arguments, folder=tmp_path)
    assert ended.returncode != 0
    assert problem in ended.stderr
    assert "secret" not in ended.stderr


def test_nothing_moves_on_over_a_message_that_follows_its_key_on_its_detour() -> None:
    """Or it would be lost if the process died before it is on its detour, too."""
    app = Outbox()

    @app.subscribe("books", "orders", guarantee="exactly-once", ordered=True, batch=10)
    async def book(message: Message, connection: AsyncConnection[Any]) -> None: ...

    lane = Lane("t/0", 0, 0, parked={"guilty"})
    for offset, key in enumerate(["guilty", "other", "guilty", "other"]):
        one = message("orders", {"ce_specversion": "1.0", "ce_partitionkey": key}, offset=offset)
        assert lane.enter(one)
        lane.waiting.append(one)

    async def play() -> None:
        nothing: Any = None
        told = (lambda: None, lambda lane, error: None)
        handlers = Handlers(app.subscriptions["books"], {"t/0": lane}, nothing, nothing, NOBODY, True, *told)
        handlers.dispatch()
        assert isinstance(lane.window[0].outcome, Deferred)
        assert (handlers.running, len(lane.waiting)) == (0, 3)
        lane.forget([lane.window[0]])  # it is on its detour
        assert [one.offset for one in handlers._take(lane)] == [1]

    asyncio.run(play())


class Owner:
    """Reads every partition from its beginning."""

    def __init__(self) -> None:
        self.begun = 0

    async def begin(self, lane: str, number: int, first: int | None) -> Begun:
        self.begun += 1
        return Begun(0, 0)

    async def end(self, lanes: list[str]) -> None: ...


def test_a_partition_that_was_held_when_partitions_changed_hands_is_read_on(librdkafka: MockCluster, name: str) -> None:
    librdkafka.create(name, 2)
    send(librdkafka.url, name, range(100))
    source, owner = Source(url=librdkafka.url, address=name, group=name), Owner()
    partitions = kafka.stream("s", source, "first", None, owner)
    both, other = {f"{name}/0", f"{name}/1"}, Consumer(servers(librdkafka.url) | {"group.id": name})

    async def read(held: set[str], begun: int, messages: int = 0) -> None:
        found = set()
        async with asyncio.timeout(PATIENCE):
            while owner.begun < begun or len(found) < messages:
                found |= {(one.lane, one.offset) for one in await partitions.read(500, held)}

    def join() -> None:
        other.subscribe([name])
        while not other.assignment():
            other.poll(0.1)

    async def come_and_go() -> None:
        try:
            await read(set(), 2, 100)
            await asyncio.gather(asyncio.to_thread(join), read(both, 3))
            await asyncio.gather(asyncio.to_thread(other.close), read(both, 5))
            await read(set(), 5, 100)
        finally:
            await partitions.close()

    asyncio.run(come_and_go())
