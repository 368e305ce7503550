"""Messages are sent in the caller's transaction, or at once; with priorities and delays."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq
import psycopg
import pytest
import sqlalchemy
from dramatiq import Message
from dramatiq.errors import ConnectionFailed
from sqlalchemy.orm import Session

from outbox.database import sqlalchemy_url
from outbox.dramatiq import PostgresBroker
from outbox.errors import InvalidDeclaration, InvalidMessage
from outbox.payload import Limits
from tests.actors.work import working
from tests.shop_floor import Database


@pytest.fixture
def actor(broker: PostgresBroker, seen: list[Any]) -> dramatiq.Actor[..., None]:
    @dramatiq.actor
    def note(*args: Any) -> None:
        seen.append(args[0] if len(args) == 1 else args)

    return note


def handled(broker: PostgresBroker, seen: list[Any]) -> list[Any]:
    """What actors note of all that is there, one after the other."""
    with working(broker, threads=1):
        broker.join("default", timeout=120_000)
    return seen


def test_a_send_in_a_transaction_is_delivered_if_it_commits_and_not_if_it_rolls_back(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    db = one_database.connect()
    with broker.transaction(db):
        actor.send("kept")
        assert broker.count("default").waiting == 0, "not before the commit"
        db.commit()
        actor.send("rolled back")
        db.rollback()
    actor.send("plain")
    assert handled(broker, seen) == ["kept", "plain"]


def test_a_session_of_sqlalchemy_sends_with_its_changes(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    one_database.execute("CREATE TABLE orders (id int PRIMARY KEY)")
    engine = sqlalchemy.create_engine(sqlalchemy_url(one_database.url))
    insert = sqlalchemy.text("INSERT INTO orders VALUES (:id)")
    with Session(engine) as session, session.begin(), broker.transaction(session):
        session.execute(insert, {"id": 1})
        actor.send(1)
    with pytest.raises(sqlalchemy.exc.IntegrityError), Session(engine) as session, session.begin():  # noqa: PT012
        with broker.transaction(session):
            actor.send("twice")
        session.execute(insert, {"id": 1})
    with Session(engine) as session, session.begin(), broker.transaction(session):
        with session.begin_nested() as savepoint:
            actor.send("in a savepoint")
            savepoint.rollback()
        actor.send(2)
    engine.dispose()
    assert handled(broker, seen) == [1, 2]


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg through run_sync"])
def test_other_drivers_send_too(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any], driver: str
) -> None:
    url = sqlalchemy_url(one_database.url)
    if driver == "psycopg2":
        engine = sqlalchemy.create_engine(url.set(drivername="postgresql+psycopg2"))
        with engine.begin() as connection, broker.transaction(connection):
            actor.send(1)
        engine.dispose()
    else:
        asyncio.run(_send_by_asyncpg(url, broker, actor))
    assert handled(broker, seen) == [1]


async def _send_by_asyncpg(url: sqlalchemy.URL, broker: PostgresBroker, actor: dramatiq.Actor[..., None]) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    def send(connection: sqlalchemy.Connection) -> None:
        with broker.transaction(connection):
            actor.send(1)

    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        with pytest.raises(TypeError, match="run_sync"):
            broker.transaction(connection).__enter__()
        await connection.run_sync(send)
    await engine.dispose()


def test_the_innermost_transaction_counts_and_ends_with_its_block(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    outer, inner = one_database.connect(), one_database.connect()
    with broker.transaction(outer):
        with broker.transaction(inner):
            actor.send("inner")
        actor.send("outer")
    actor.send("plain")
    inner.rollback()
    outer.commit()
    assert sorted(handled(broker, seen)) == ["outer", "plain"]


def test_other_threads_and_copies_of_a_context_that_outlive_the_block_are_not_in_it(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    db = one_database.connect()
    with broker.transaction(db):
        context = contextvars.copy_context()
        thread = threading.Thread(target=actor.send, args=("of a thread",))
        thread.start()
        thread.join()
    context.run(actor.send, "after the block")
    db.rollback()
    assert handled(broker, seen) == ["of a thread", "after the block"]


def test_blocks_of_generators_may_end_in_any_order(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    first, second = one_database.connect(), one_database.connect()

    def unit_of_work() -> Iterator[None]:
        with broker.transaction(first):
            yield

    generator = unit_of_work()
    next(generator)
    with broker.transaction(second):
        generator.close()
        actor.send("second")
    actor.send("plain")
    first.rollback()
    second.rollback()
    assert handled(broker, seen) == ["plain"]


def test_a_block_that_is_left_in_another_context_says_what_it_did_not_do(
    one_database: Database, broker: PostgresBroker
) -> None:
    """As a framework does that runs the two halves of a generator in two threads."""
    block = broker.transaction(one_database.connect())
    contextvars.copy_context().run(block.__enter__)
    with pytest.raises(RuntimeError, match="entered in one thread or task and left in another"):
        block.__exit__(None, None, None)


def test_a_broker_can_be_told_where_the_current_connection_is(one_database: Database) -> None:
    db = one_database.connect()
    current: list[psycopg.Connection[Any]] = []
    broker = PostgresBroker(one_database.url, connection=lambda: current[0] if current else None)
    actor = dramatiq.actor(lambda: None, actor_name="a", broker=broker)
    actor.send()
    current.append(db)
    actor.send()
    db.rollback()
    assert broker.count("default").waiting == 1
    broker.close()


def test_messages_carry_their_actor_and_can_be_read_in_the_database(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None]
) -> None:
    message = actor.send({"id": 1})
    row = one_database.connect().execute("SELECT headers, payload -> 'args' FROM outbox.message").fetchone()
    assert row == ({"actor": "note", "message-id": message.message_id}, [{"id": 1}])


@pytest.mark.parametrize("argument", [float("nan"), "\0", 2**70, "é\ud800"])
def test_what_is_no_json_for_postgres_arrives_as_it_was(
    broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any], argument: Any
) -> None:
    actor.send(argument)
    assert repr(handled(broker, seen)) == repr([argument])


def test_any_encoder_will_do(broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]) -> None:
    before = dramatiq.get_encoder()
    dramatiq.set_encoder(dramatiq.PickleEncoder())
    try:
        actor.send({1, 2})
        assert handled(broker, seen) == [{1, 2}]
    finally:
        dramatiq.set_encoder(before)


def test_a_message_that_is_too_large_is_refused_before_anything_is_sent(one_database: Database) -> None:
    broker = PostgresBroker(one_database.url, limits=Limits(payload=1000))
    actor = dramatiq.actor(lambda text: None, actor_name="a", broker=broker)
    with pytest.raises(InvalidMessage, match="limit is 1,000"):
        actor.send("x" * 1000)
    assert broker.count("default").waiting == 0
    broker.close()


def test_lower_priorities_of_actors_and_higher_ones_of_messages_come_first(
    broker: PostgresBroker, seen: list[Any]
) -> None:
    for priority in (0, 2, 100, -1):
        dramatiq.actor(lambda name=priority: seen.append(name), actor_name=f"at{priority}", priority=priority)
    for name in ("at100", "at2", "at0", "at-1"):
        broker.get_actor(name).send()
    broker.get_actor("at100").send_with_options(args=("urgent",), broker_priority=9)
    with working(broker, threads=1, prefetch=1):
        broker.join("default", timeout=120_000)
    assert seen[3:] == [2, 100], "0 is the highest, beyond 9 is the lowest"
    assert set(seen[:3]) == {0, -1, "urgent"}


def test_a_delayed_message_waits_in_the_database_and_comes_at_its_time(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    message = actor.send_with_options(args=(2,), delay=700)
    actor.send_with_options(args=(1,), delay=300)
    assert message.queue_name == "default.DQ"
    assert message.options["eta"] > message.message_timestamp
    assert broker.count("default").delayed == 2
    with working(broker, threads=1) as worker:
        assert [*worker.consumers] == ["default"], "no thread, and no memory, for delayed ones"
        broker.join("default", timeout=120_000)
    assert seen == [1, 2]
    early = (
        "SELECT count(*) FROM outbox.message WHERE extract(epoch FROM published_at) * 1000 "
        "< (payload ->> 'message_timestamp')::bigint + CASE payload #>> '{args,0}' WHEN '1' THEN 300 ELSE 700 END"
    )
    assert one_database.value(early) == 0


def test_a_delay_in_a_transaction_rolls_back_with_it(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None]
) -> None:
    db = one_database.connect()
    with broker.transaction(db):
        actor.send_with_options(delay=10)
    db.rollback()
    assert broker.count("default").delayed == 0


def test_a_message_with_a_time_of_its_own_waits_in_the_database_too(
    broker: PostgresBroker, actor: dramatiq.Actor[..., None]
) -> None:
    actor.send_with_options(eta=dramatiq.common.current_millis() + 60_000)
    assert broker.count("default").delayed == 1


def test_middleware_sees_each_message_before_and_after_it_is_sent(
    broker: PostgresBroker, actor: dramatiq.Actor[..., None], seen: list[Any]
) -> None:
    class Tag(dramatiq.Middleware):
        def before_enqueue(self, broker: Any, message: Message[Any], delay: int | None) -> None:
            message.options["tag"] = delay

        def after_enqueue(self, broker: Any, message: Message[Any], delay: int | None) -> None:
            seen.append(message.options["tag"])

        def before_process_message(self, broker: Any, message: Any) -> None:
            seen.append(("processed", message.options["tag"]))

    broker.add_middleware(Tag())
    actor.send("x")
    actor.send_with_options(args=("y",), delay=50)
    assert handled(broker, seen) == [None, 50, ("processed", None), "x", ("processed", 50), "y"]


def test_a_message_for_an_actor_that_only_others_know_can_be_sent(broker: PostgresBroker) -> None:
    broker.enqueue(Message(queue_name="theirs", actor_name="unknown", args=(), kwargs={}, options={}))
    assert broker.count("theirs").waiting == 1


def test_namespaces_keep_applications_apart(one_database: Database, broker: PostgresBroker) -> None:
    other = PostgresBroker(one_database.url, namespace="billing")
    dramatiq.actor(lambda: None, actor_name="a", broker=other).send()
    assert (other.count("default").waiting, broker.count("default").waiting) == (1, 0)
    other.close()


def test_a_broken_connection_that_was_idle_costs_no_message(
    one_database: Database, broker: PostgresBroker, actor: dramatiq.Actor[..., None]
) -> None:
    actor.send(1)
    one_database.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE application_name = 'outbox' AND datname = current_database()"
    )
    actor.send(2)
    assert broker.count("default").waiting == 2


def test_a_database_that_is_away_is_an_error_that_dramatiq_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.dramatiq.pool._PATIENCE", 0.1)
    broker = PostgresBroker("postgresql://postgres@127.0.0.1:1/nowhere")
    actor = dramatiq.actor(lambda: None, actor_name="a", broker=broker)
    with pytest.raises(ConnectionFailed, match="no connection"):
        actor.send()
    broker.close()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"url": "redis://x"}, "not one of Postgres"),
        ({"url": None}, "OUTBOX_DATABASE_URL"),
        ({"namespace": "a b"}, "namespace"),
    ],
)
def test_a_broker_that_can_not_be_is_refused(
    settings: dict[str, Any], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUTBOX_DATABASE_URL", raising=False)
    with pytest.raises(InvalidDeclaration, match=error):
        PostgresBroker(**{"url": "postgresql://x/y", **settings})


def test_a_queue_whose_name_can_be_no_topic_is_refused(broker: PostgresBroker) -> None:
    with pytest.raises(InvalidMessage, match="words"):
        broker.declare_queue("a..b")
