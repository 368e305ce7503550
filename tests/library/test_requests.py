"""Requests and replies: what comes back, and how often, whatever befalls the two sides."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import psycopg2
import pytest
import sqlalchemy
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine

from outbox import (
    InvalidDeclaration,
    InvalidMessage,
    Message,
    NotOwnTransaction,
    Outbox,
    RequestFailed,
    RequestTimedOut,
)
from outbox.model import Batch
from tests.library.test_publish import SYNC
from tests.library.test_roles import Users, refused, users  # noqa: F401  # a fixture
from tests.library.workshop import PREAMBLE, seen, wait_for_rest
from tests.servers import PgBouncer
from tests.shop_floor import PATIENCE, Database, Later, WorkerProcess, outbox, wait_for, worker

SECONDS = timedelta(seconds=60)

#: Answers with the square, in the handler's transaction.
SQUARES = f"""{PREAMBLE}
@app.subscribe("squares", "square", guarantee="exactly-once", concurrency=4, retries=SOON)
def square(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    if not isinstance(message.payload, int):
        app.reply_error(connection, message, "not a number", {{"got": message.payload}})
    else:
        app.reply(connection, message, message.payload ** 2, headers={{"by": "squares"}})
"""


def count(database: Database, topic: str) -> int:
    """Messages in the log of a topic."""
    found = database.value(
        "SELECT count(*) FROM outbox.message m JOIN outbox.partition p ON p.id = m.partition_id "
        "JOIN outbox.topic t ON t.id = p.topic_id WHERE t.name = %s",
        topic,
    )
    return int(found)


class Asking(threading.Thread):
    """A request that waits in a thread of its own; its reply, or its error."""

    def __init__(self, url: str, payload: Any, timeout: timedelta = SECONDS) -> None:
        super().__init__()
        self.url, self.payload, self.timeout = url, payload, timeout
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        try:
            with psycopg.connect(self.url, prepare_threshold=None) as connection:
                self.outcome = Outbox().request(connection, "square", self.payload, timeout=self.timeout)
        except Exception as error:
            self.outcome = error

    def result(self) -> Any:
        self.join(2 * PATIENCE)
        assert not self.is_alive(), "it waits for ever"
        return self.outcome


def taken(database: Database, topic: str = "square") -> Message:
    """The request that was published, as a handler gets it."""
    rows = "SELECT headers::text FROM outbox.message m JOIN outbox.partition p ON p.id = m.partition_id "
    rows += 'JOIN outbox.topic t ON t.id = p.topic_id WHERE t.name = %s ORDER BY m."offset" DESC LIMIT 1'
    wait_for(lambda: count(database, topic), "a request")
    headers: str = database.value(rows, topic)
    batch = Batch(None, 1, False, topic, 0, 0, 1, 1)
    return Message(batch, 1, 0, None, msgspec.json.decode(headers, type=dict[str, str]), b"1", None)


def test_a_request_gets_its_reply(shop: Database, tmp_path: Path) -> None:
    app = Outbox()
    with worker(shop.url, tmp_path, SQUARES), shop.connect() as db:
        reply = app.request(db, "square", 12, timeout=SECONDS, key="k", headers={"h": "v"})
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert isinstance(reply, Message)
    assert (reply.payload, reply.topic, reply.headers["by"]) == (144, "replies.square", "squares")
    assert reply.headers["correlation-id"] == reply.key
    assert reply.raw == b"144"
    assert reply.decode(int) == 144
    assert abs(reply.published_at.timestamp() - shop.value("SELECT extract(epoch FROM now())::float")) < 60
    assert str(reply.id) == shop.value("SELECT partition_id || '-' || \"offset\" FROM outbox.deduplication")
    assert count(shop, "replies.square") == 1


@pytest.mark.parametrize("kind", SYNC)
def test_a_request_works_on_any_kind_of_sync_connection(shop: Database, tmp_path: Path, kind: str) -> None:
    with worker(shop.url, tmp_path, SQUARES), SYNC[kind](shop.url) as connection:
        for number in 2, 3:
            reply = Outbox().request(connection, "square", number, timeout=SECONDS)
            assert reply.payload == number**2


@contextlib.asynccontextmanager
async def on_psycopg(url: str):  # type: ignore[no-untyped-def]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection


def on_sqlalchemy(driver: str, make: Callable[[Any], Any]) -> Callable[[str], Any]:
    @contextlib.asynccontextmanager
    async def opened(url: str):  # type: ignore[no-untyped-def]
        engine = create_async_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
        async with make(engine) as connection:
            yield connection
        await engine.dispose()

    return opened


@contextlib.asynccontextmanager
async def scoped(engine: Any):  # type: ignore[no-untyped-def]
    session = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
    yield session
    await session.remove()


ASYNC = {
    "psycopg": on_psycopg,
    "SQLAlchemy connection": on_sqlalchemy("psycopg", lambda engine: engine.connect()),
    "SQLAlchemy session": on_sqlalchemy("psycopg", AsyncSession),
    "SQLAlchemy scoped session": on_sqlalchemy("psycopg", scoped),
    "SQLAlchemy session on asyncpg": on_sqlalchemy("asyncpg", AsyncSession),
}


@pytest.mark.parametrize("kind", ASYNC)
def test_a_request_works_on_any_kind_of_async_connection(shop: Database, tmp_path: Path, kind: str) -> None:
    async def ask() -> list[Any]:
        async with ASYNC[kind](shop.url) as connection:
            app = Outbox()
            replies = [await app.request(connection, "square", n, timeout=SECONDS) for n in (2, 3)]
            with pytest.raises(RequestFailed, match="not a number"):
                await app.request(connection, "square", "x", timeout=SECONDS)
            with pytest.raises(RequestTimedOut):
                await app.request(connection, "nobody", 1, timeout=timedelta(milliseconds=30))
            return [reply.payload for reply in replies]

    with worker(shop.url, tmp_path, SQUARES):
        assert asyncio.run(ask()) == [4, 9]


RESPONDERS = {
    "a coroutine in its transaction": """
@app.subscribe("squares", "square", guarantee="exactly-once")
async def square(message, connection: psycopg.AsyncConnection):
    await app.reply(connection, message, message.payload ** 2)
""",
    "a coroutine with a session": """
@app.subscribe("squares", "square", guarantee="exactly-once")
async def square(message, session: AsyncSession):
    await app.reply(session, message, message.payload ** 2)
""",
    "a function with a session": """
@app.subscribe("squares", "square")
def square(message, session: Session):
    app.reply(session, message, message.payload ** 2)
""",
    "a function without a transaction": """
@app.subscribe("squares", "square")
def square(message):
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"]) as own:
        app.reply(own, message, message.payload ** 2)
""",
    "a coroutine without a transaction": """
@app.subscribe("squares", "square")
async def square(message):
    async with await psycopg.AsyncConnection.connect(os.environ["OUTBOX_DATABASE_URL"], autocommit=True) as own:
        await app.reply(own, message, message.payload ** 2)
""",
    "at-most-once": """
@app.subscribe("squares", "square", guarantee="at-most-once")
def square(message, connection: psycopg.Connection):
    app.reply(connection, message, message.payload ** 2)
""",
    "plain SQL": """
@app.subscribe("squares", "square")
def square(message, connection: psycopg.Connection):
    id = message.headers["correlation-id"]
    connection.execute(
        "SELECT outbox.publish(%s, to_json(%s::int), headers => jsonb_build_object('correlation-id', %s::text), "
        "idempotency_key => %s)", (message.headers["reply-to"], message.payload ** 2, id, id))
""",
}


@pytest.mark.parametrize("kind", RESPONDERS)
def test_each_kind_of_handler_can_reply(shop: Database, tmp_path: Path, kind: str) -> None:
    with worker(shop.url, tmp_path, PREAMBLE + RESPONDERS[kind]), shop.connect() as db:
        assert Outbox().request(db, "square", 7, timeout=SECONDS).payload == 49


def test_a_reply_of_bytes_comes_as_bytes(shop: Database) -> None:
    asking = Asking(shop.url, 1)
    request = taken(shop)
    with shop.connect() as db:
        Outbox().reply(db, request, b"\x00\xff")
    assert asking.result().payload == b"\x00\xff"


def test_two_hundred_at_once_get_each_its_own(shop: Database, tmp_path: Path) -> None:
    async def ask(app: Outbox, number: int) -> tuple[int, Any]:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection:
            return number, (await app.request(connection, "square", number, timeout=2 * SECONDS)).payload

    async def all_of_them(numbers: range) -> list[tuple[int, Any]]:
        app = Outbox()
        return await asyncio.gather(*(ask(app, number) for number in numbers))

    room = int(shop.value("SELECT current_setting('max_connections')::int")) - 30
    with worker(shop.url, tmp_path, SQUARES):
        answers = []
        for first in range(0, 200, room):
            answers += asyncio.run(all_of_them(range(first, min(200, first + room))))
        wait_for_rest(shop)
    assert answers == [(number, number**2) for number in range(200)]
    assert count(shop, "replies.square") == 200
    assert sorted(map(int, seen(shop))) == list(range(200))


def test_two_hundred_share_ten_connections_of_pgbouncer(shop: Database, pgbouncer: PgBouncer, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, SQUARES):
        asking = [Asking(pgbouncer.url(shop.name), number, 2 * SECONDS) for number in range(190)]
        assert [one.result().payload for one in asking] == [number**2 for number in range(190)]


def test_an_error_reply_is_raised_with_its_text_and_its_payload(shop: Database, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, SQUARES), shop.connect() as db:
        with pytest.raises(RequestFailed, match="the request on 'square' failed: not a number") as failed:
            Outbox().request(db, "square", "seven", timeout=SECONDS)
        wait_for_rest(shop)
    assert failed.value.topic == "square"
    assert failed.value.reply.payload == {"got": "seven"}
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_an_error_reply_may_be_too_long_for_a_header(shop: Database) -> None:
    asking = Asking(shop.url, 1)
    with shop.connect() as db:
        Outbox().reply_error(db, taken(shop), "é\0" * 10_000)
    error = asking.result()
    assert isinstance(error, RequestFailed)
    assert error.reply.headers["error"] == "é" * 4_096


def test_without_a_reply_the_request_times_out_and_is_there_all_the_same(shop: Database) -> None:
    with shop.connect() as db, pytest.raises(RequestTimedOut, match=r"no reply to request \S+ on 'square'") as error:
        Outbox().request(db, "square", 1, timeout=timedelta(milliseconds=50))
    assert error.value.topic == "square"
    assert error.value.correlation_id == taken(shop).headers["correlation-id"]
    assert count(shop, "square") == 1


def test_a_request_that_nobody_took_in_time_is_not_handled_any_more(shop: Database, tmp_path: Path) -> None:
    with shop.connect() as db:
        with pytest.raises(RequestTimedOut):
            Outbox().request(db, "square", 5, timeout=timedelta(milliseconds=20))
        with worker(shop.url, tmp_path, SQUARES):
            assert Outbox().request(db, "square", 6, timeout=SECONDS).payload == 36
            wait_for_rest(shop)
    assert seen(shop) == ["6"]


def test_a_late_reply_harms_nobody(shop: Database, tmp_path: Path) -> None:
    slow = SQUARES.replace(
        "    connection.execute", "    while not os.path.exists('go-on'): time.sleep(0.01)\n    connection.execute"
    )
    with shop.connect() as db, worker(shop.url, tmp_path, slow):
        with pytest.raises(RequestTimedOut) as late:
            Outbox().request(db, "square", 5, timeout=timedelta(seconds=5))
        (tmp_path / "go-on").touch()
        assert Outbox().request(db, "square", 6, timeout=SECONDS).payload == 36
        wait_for_rest(shop)
        reply = db.execute(
            "SELECT payload FROM outbox.reply_to('replies.square', %s)", (late.value.correlation_id,)
        ).fetchone()
    assert reply == (25,)


def test_the_first_of_two_replies_is_the_reply(shop: Database) -> None:
    app = Outbox()
    asking = Asking(shop.url, 1)
    request = taken(shop)
    with shop.connect() as db:
        first = app.reply(db, request, "first")
        assert app.reply(db, request, "second") == first
        assert app.reply_error(db, request, "third") == first
        db.commit()
        assert app.reply(db, request, "fourth") == first
    assert asking.result().payload == "first"
    assert count(shop, "replies.square") == 1


def test_a_second_reply_waits_for_the_first_and_takes_its_place_if_that_rolls_back(shop: Database) -> None:
    asking = Asking(shop.url, 1)
    request = taken(shop)
    first, second = shop.connect(), shop.connect(autocommit=True)
    Outbox().reply(first, request, "first")
    id = request.headers["correlation-id"]
    publish = (
        "SELECT \"offset\" FROM outbox.publish('replies.square', '\"second\"', "
        "headers => jsonb_build_object('correlation-id', %s::text), idempotency_key => %s)"
    )
    later = Later(second, publish, id, id).wait_until_it_waits(shop)
    first.rollback()
    later.join()
    assert asking.result().payload == "second"


def test_a_reply_is_there_when_its_transaction_commits_and_not_before(shop: Database) -> None:
    asking = Asking(shop.url, 1, timedelta(milliseconds=300))
    request = taken(shop)
    db = shop.connect()
    Outbox().reply(db, request, "not yet")
    assert isinstance(asking.result(), RequestTimedOut)


@pytest.mark.parametrize("when", ["before the reply", "after the reply"])
def test_a_responder_that_is_killed_is_replaced_and_the_reply_comes_once(
    shop: Database, tmp_path: Path, when: str
) -> None:
    """It hangs between the request and the commit of its reply until it is killed; another answers."""
    hang = 'if what == "first":\n        note("hangs")\n        time.sleep(600)'
    app = f"""{PREAMBLE}
what = os.environ.get("WHAT", "first")

@app.subscribe("squares", "square", guarantee="exactly-once")
def square(message, connection: psycopg.Connection):
    {hang if when == "before the reply" else "pass"}
    app.reply(connection, message, [what, message.payload ** 2])
    {hang if when == "after the reply" else "pass"}
"""
    first = WorkerProcess(shop.url, tmp_path, app, "--timeout", "1")
    asking = Asking(shop.url, 9, 2 * SECONDS)
    try:
        wait_for(lambda: seen(shop) == ["hangs"], "the first worker has it")
        second = WorkerProcess(shop.url, tmp_path, app, "--timeout", "1", more={"WHAT": "second"})
        try:
            second.wait_for_line("worker started")
            first.process.send_signal(signal.SIGKILL)
            assert asking.result().payload == ["second", 81]
            wait_for_rest(shop)
        finally:
            second.kill()
    finally:
        first.kill()
    assert count(shop, "replies.square") == 1


def test_a_responder_without_a_transaction_that_is_killed_after_its_reply_replies_once(
    shop: Database, tmp_path: Path
) -> None:
    """The request comes again, its handler replies again, and nothing is stored."""
    app = f"""{PREAMBLE}
@app.subscribe("squares", "square")
def square(message):
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"]) as own:
        app.reply(own, message, [message.redelivered, message.payload ** 2])
    note("replied")
    if not message.redelivered:
        time.sleep(600)
"""
    asking = Asking(shop.url, 9)
    first = WorkerProcess(shop.url, tmp_path, app, "--timeout", "1")
    try:
        assert asking.result().payload == [False, 81]
        wait_for(lambda: seen(shop), "it has replied")
    finally:
        first.kill()
    with worker(shop.url, tmp_path, app, "--timeout", "1"):
        wait_for(lambda: len(seen(shop)) == 2, "it has replied again")
        wait_for_rest(shop)
    assert count(shop, "replies.square") == 1


def test_a_request_that_is_replayed_is_answered_as_before(shop: Database, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, SQUARES), shop.connect() as db:
        Outbox().request(db, "square", 4, timeout=SECONDS)
        wait_for_rest(shop)
    shop.value(
        "SELECT outbox.seek('squares', p.id, 0) FROM outbox.partition p JOIN outbox.topic t ON t.id = p.topic_id "
        "WHERE t.name = 'square'"
    )
    with worker(shop.url, tmp_path, SQUARES):
        wait_for(lambda: seen(shop) == ["4", "4"], "the replay")
        wait_for_rest(shop)
    assert count(shop, "replies.square") == 1


def test_a_handler_that_fails_after_its_reply_has_not_replied(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("squares", "square", guarantee="exactly-once", retries=SOON)
def square(message, connection: psycopg.Connection):
    app.reply(connection, message, message.attempt)
    if message.attempt < 3:
        raise ValueError("not now")
"""
    with worker(shop.url, tmp_path, app), shop.connect() as db:
        assert Outbox().request(db, "square", 1, timeout=SECONDS).payload == 3


def test_a_message_that_asks_for_no_reply_gets_none(shop: Database, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, SQUARES), shop.connect() as db:
        Outbox().publish(db, "square", 3)
        db.commit()
        wait_for(lambda: seen(shop) == ["3"], "it is handled")
        wait_for_rest(shop)
    assert shop.value("SELECT count(*) FROM outbox.topic") == 1


def in_transaction_of_psycopg(url: str) -> Any:
    connection = psycopg.connect(url)
    connection.execute("CREATE TABLE mine ()")
    return connection


def in_transaction_of_psycopg2(url: str) -> Any:
    connection = psycopg2.connect(url)
    connection.cursor().execute("CREATE TABLE mine ()")
    return connection


def in_transaction_of_a_session(url: str) -> Any:
    session = orm.Session(sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://")))
    session.execute(sqlalchemy.text("CREATE TABLE mine ()"))
    return session


@pytest.mark.parametrize("begin", [in_transaction_of_psycopg, in_transaction_of_psycopg2, in_transaction_of_a_session])
def test_a_request_in_a_transaction_is_refused_and_the_transaction_goes_on(
    one_database: Database, begin: Callable[[str], Any]
) -> None:
    connection = begin(one_database.url)
    with contextlib.closing(connection):
        with pytest.raises(NotOwnTransaction, match="a request commits"):
            Outbox().request(connection, "square", 1, timeout=SECONDS)
        assert one_database.value("SELECT count(*) FROM pg_class WHERE relname = 'mine'") == 0
        connection.commit()
    assert one_database.value("SELECT count(*) FROM pg_class WHERE relname = 'mine'") == 1
    assert one_database.value("SELECT count(*) FROM outbox.message") == 0
    if isinstance(connection, orm.Session):
        connection.get_bind().engine.dispose()


def test_a_request_in_djangos_atomic_block_is_refused(one_database: Database) -> None:
    with SYNC["Django"](one_database.url) as connection:
        connection.in_atomic_block = True
        with pytest.raises(NotOwnTransaction):
            Outbox().request(connection, "square", 1, timeout=SECONDS)
        connection.in_atomic_block = False


def test_a_connection_whose_transactions_cannot_be_seen_is_refused() -> None:
    class Odd:
        def cursor(self) -> None: ...

    with pytest.raises(TypeError, match="whether a Odd is in a transaction"):
        Outbox().request(Odd(), "square", 1, timeout=SECONDS)


def test_what_makes_no_request_is_refused_before_anything_is_sent(one_database: Database) -> None:
    app = Outbox()
    with one_database.connect() as db:
        for timeout in (5, timedelta(0), None):
            with pytest.raises(InvalidDeclaration, match="timeout is"):
                app.request(db, "square", 1, timeout=timeout)  # type: ignore[call-overload]
        with pytest.raises(InvalidMessage, match="not a topic name"):
            app.request(db, "square", 1, timeout=SECONDS, reply_topic="a.*")
        for name in "reply-to", "correlation-id":
            with pytest.raises(InvalidMessage, match="is set by outbox"):
                app.request(db, "square", 1, timeout=SECONDS, headers={name: "x"})
        with pytest.raises(InvalidMessage, match="a dict"):
            app.request(db, "square", 1, timeout=SECONDS, headers="x")  # type: ignore[call-overload]
    assert one_database.value("SELECT count(*) FROM outbox.topic") == 0


def test_a_request_whose_publish_fails_leaves_the_connection_usable(one_database: Database) -> None:
    one_database.switch_off_declaring()
    with one_database.connect() as db:
        with pytest.raises(Exception, match="declare"):
            Outbox().request(db, "square", 1, timeout=SECONDS)
        assert db.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert db.execute("SELECT 1").fetchone() == (1,)


def test_a_request_that_is_cancelled_leaves_the_connection_usable(one_database: Database) -> None:
    async def ask() -> Any:
        async with await psycopg.AsyncConnection.connect(one_database.url) as connection:
            waiting: Awaitable[Message] = Outbox().request(connection, "square", 1, timeout=SECONDS)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting, 0.2)
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            return await (await connection.execute("SELECT 1")).fetchone()

    assert asyncio.run(ask()) == (1,)


def test_who_waits_holds_no_transaction_open(one_database: Database) -> None:
    """Looking is a transaction of its own each time: nothing is kept from vacuum, no connection of a pooler is held."""
    asking = Asking(one_database.url, 1, timedelta(seconds=2))
    taken(one_database)
    idle: set[Any] = set()
    with one_database.connect(autocommit=True) as db:
        while asking.is_alive():
            rows = db.execute(
                "SELECT state_change FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND state = 'idle'"
            )
            idle |= {at for (at,) in rows.fetchall()}
    assert isinstance(asking.result(), RequestTimedOut)
    assert len(idle) > 2, "between one look and the next"


def test_a_publisher_asks_and_reads_nothing_but_replies(shop: Database, users: Users, tmp_path: Path) -> None:  # noqa: F811
    """Who may publish may not read: neither what others published with a key that can be guessed, nor a request."""
    app = Outbox()
    with shop.connect(autocommit=True) as db:
        app.publish(db, "payments", {"secret": 1}, idempotency_key="pay-1")
    with worker(shop.url, tmp_path, SQUARES), users.connect("outbox_publisher") as db:
        reply = app.request(db, "square", 8, timeout=SECONDS)
        assert reply.payload == 64
        for topic, key in ("payments", "pay-1"), ("square", reply.key), ("nowhere", reply.key), ("payments", None):
            assert db.execute("SELECT * FROM outbox.reply_to(%s, %s)", (topic, key)).fetchall() == []
    refused(users.url("outbox_monitor"), "SELECT * FROM outbox.reply_to('t', 'k')")


def test_the_command_prints_the_reply(shop: Database, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, SQUARES):
        done = outbox(shop.url, "request", "square", "12", "--timeout", "60")
        assert (done.stdout, done.returncode) == ("144\n", 0)
        assert '"payload": 144' in outbox(shop.url, "request", "square", "-", "--json", input="12").stdout
        failed = outbox(shop.url, "request", "square", '"x"', "--timeout", "60")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr == "outbox: the request on 'square' failed: not a number\n"
    late = outbox(shop.url, "request", "square", "12", "--timeout", "0.05")
    assert late.returncode == 1
    assert "no reply to request" in late.stderr
