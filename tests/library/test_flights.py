"""pipeline=True: no transaction waits for the one before; what becomes of a message is its own affair all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest

from outbox.operations import Operation, Statement
from outbox.pipelining import Flight, PipelinedSeries
from outbox.series import ConnectionSeries
from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.servers import PgBouncer
from tests.shop_floor import Database, wait_for, worker

INSERT = "INSERT INTO seen (what) VALUES (%s)"

HANDLER = """
{before}
@app.subscribe("s", "t", guarantee="exactly-once", prefetch=100, pipeline=True, retries=SOON{settings})
{colour}def handle(message, connection: psycopg.{kind}):
    {awaited}connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
    {body}
"""
COLOURS = [("", "Connection", ""), ("async ", "AsyncConnection", "await ")]
both = pytest.mark.parametrize(("colour", "kind", "awaited"), COLOURS, ids=["function", "coroutine"])


def app(colour: str, kind: str, awaited: str, body: str = "", before: str = "", settings: str = "") -> str:
    parts = {"before": before, "settings": settings, "colour": colour, "kind": kind, "awaited": awaited}
    return PREAMBLE + HANDLER.format(body=body.replace("AWAIT ", awaited), **parts)


def settlement() -> Operation[None]:
    yield Statement("SELECT 1", ())


@contextmanager
def on_the_wire(
    shop: Database, tmp_path: Path, make: Callable[[Any], ConnectionSeries]
) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A series of one connection, and how many round trips it was made to wait for until now."""
    trace = tmp_path / "trace"
    with trace.open("w") as file:

        def listen(connection: psycopg.Connection[Any]) -> None:
            connection.pgconn.trace(file.fileno())

        with psycopg_pool.ConnectionPool(shop.url, min_size=1, max_size=1, configure=listen) as pool:

            def trips() -> int:
                return sum("\tSync" in line or "\tQuery" in line for line in trace.read_text().splitlines())

            yield make(pool), trips
            with pool.connection() as connection:
                connection.pgconn.untrace()


def test_a_settlement_its_commit_and_the_next_transaction_take_one_round_trip(shop: Database, tmp_path: Path) -> None:
    with on_the_wire(shop, tmp_path, ConnectionSeries) as (series, trips), series:
        counted = []
        for n in range(10):
            with series.begin(more=True) as transaction:
                transaction.given.execute(INSERT, (str(n),))
                transaction.last = settlement()
            counted.append(trips())
    assert {after - before for before, after in pairwise(counted[6:])} == {2}  # the other is the INSERT's
    assert seen(shop) == [str(n) for n in range(10)]


def test_a_flight_waits_once(shop: Database, tmp_path: Path) -> None:
    def fly(flight: Flight, first: int) -> None:
        for n in range(first, first + 20):
            flight.connection.execute(INSERT, (str(n),))
            flight.commit(settlement())

    with on_the_wire(shop, tmp_path, PipelinedSeries) as (series, trips), series:
        with series.flight() as flight:
            fly(flight, 0)
        before = trips()
        with series.flight() as flight:
            fly(flight, 20)
        assert trips() - before == 1
        assert flight.committed == 20
        assert seen(shop) == [str(n) for n in range(40)]


def test_a_flight_says_how_far_it_came(shop: Database, tmp_path: Path) -> None:
    with on_the_wire(shop, tmp_path, PipelinedSeries) as (series, _), series:
        flights = []

        def fly() -> None:
            with series.flight() as flight:
                flights.append(flight)
                for n in range(5):
                    flight.connection.execute("INSERT INTO seen (what) VALUES (1 / (3 - %s::int))", (n,))
                    flight.commit(settlement())

        with pytest.raises(psycopg.errors.DivisionByZero):
            fly()
        assert [flight.committed for flight in flights] == [3]
        with series.flight() as flight:  # on the same connection
            flight.connection.execute(INSERT, ("after",))
            flight.commit(None)
    assert seen(shop) == ["0", "0", "1", "after"]


@both
def test_a_handler_that_went_on_in_a_failed_transaction_has_no_effect(
    shop: Database, tmp_path: Path, colour: str, kind: str, awaited: str
) -> None:
    body = """try:
        AWAIT (AWAIT connection.execute("SELECT 1 / 0")).fetchone()
    except psycopg.Error:
        pass"""
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app(colour, kind, awaited, body)):
        wait_for_rest(shop)
    assert seen(shop) == []
    assert shop.value("SELECT errors -> 0 ->> 'class' FROM outbox.dead_letter") == "HandlerTransactionError"


@both
@pytest.mark.parametrize("then", ["raise ValueError('not mine') from None", "pass"])
def test_who_meets_the_error_of_another_message_is_not_charged(
    shop: Database, tmp_path: Path, then: str, colour: str, kind: str, awaited: str
) -> None:
    """All others fetch; they say of what they meet that it is their own, or nothing."""
    shop.execute("ALTER TABLE seen ADD CHECK (what <> 'wrong')")
    body = f"""if message.payload != "wrong":
        try:
            AWAIT (AWAIT connection.execute("SELECT 1")).fetchone()
        except psycopg.Error:
            {then}"""
    publish(shop, "t", *range(10), "wrong", *range(10, 20))
    with worker(shop.url, tmp_path, app(colour, kind, awaited, body)):
        wait_for_rest(shop)
    assert sorted(seen(shop), key=int) == [str(n) for n in range(20)]
    with shop.connect() as db:
        dead = db.execute("SELECT payload #>> '{}', attempt, errors -> 0 ->> 'class' FROM outbox.dead_letter")
        assert dead.fetchall() == [("wrong", 3, "CheckViolation")]


@both
def test_an_error_of_the_commit_is_that_of_its_message(
    shop: Database, tmp_path: Path, colour: str, kind: str, awaited: str
) -> None:
    shop.execute("ALTER TABLE seen ADD UNIQUE (what) DEFERRABLE INITIALLY DEFERRED")
    publish(shop, "t", *range(10), 3, *range(10, 20))
    with worker(shop.url, tmp_path, app(colour, kind, awaited)):
        wait_for_rest(shop)
    assert sorted(seen(shop), key=int) == [str(n) for n in range(20)]
    with shop.connect() as db:
        dead = db.execute("SELECT payload #>> '{}', attempt, errors -> 0 ->> 'class' FROM outbox.dead_letter")
        assert dead.fetchall() == [("3", 3, "UniqueViolation")]


@both
def test_a_connection_that_breaks_under_way_neither_loses_nor_doubles(
    shop: Database, tmp_path: Path, colour: str, kind: str, awaited: str
) -> None:
    """Nobody knows which of those that were sent have committed."""
    before = """
def cut(message, connection):
    if message.payload % 7 == 5 and message.attempt == 1:
        with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"], autocommit=True) as db:
            db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
"""
    publish(shop, "t", *range(100))
    with worker(shop.url, tmp_path, app(colour, kind, awaited, "cut(message, connection)", before)):
        wait_for_rest(shop)
    assert sorted(map(int, seen(shop))) == list(range(100))
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0


@both
def test_what_is_ordered_stays_in_order_when_one_under_way_fails(
    shop: Database, tmp_path: Path, colour: str, kind: str, awaited: str
) -> None:
    shop.execute("CREATE TABLE gone (n int)")
    body = """if message.payload % 10 == 4:
        AWAIT connection.execute("INSERT INTO gone VALUES (1 / %s)", (message.attempt - 1,))"""
    publish(shop, "t", *range(50))  # of one key
    with worker(shop.url, tmp_path, app(colour, kind, awaited, body, settings=", ordered=True")):
        wait_for_rest(shop)
    assert seen(shop) == [str(n) for n in range(50)]
    assert shop.value("SELECT count(*) FROM gone") == 5


@both
def test_a_handler_over_its_time_limit_is_charged_alone(
    shop: Database, tmp_path: Path, colour: str, kind: str, awaited: str
) -> None:
    pause = "await asyncio.sleep(60)" if awaited else "time.sleep(60)"
    body = f"if message.payload == 10 and message.attempt == 1: {pause}"
    if not awaited:  # a sleep in C is not interrupted
        body = "while message.payload == 10 and message.attempt == 1: time.sleep(0.01)"
    publish(shop, "t", *range(20))
    limit = ", time_limit=timedelta(seconds=2)"
    with worker(shop.url, tmp_path, app(colour, kind, awaited, body, settings=limit)) as process:
        wait_for_rest(shop)
    assert sorted(map(int, seen(shop))) == list(range(20))
    assert process.log.count("retry") == 1
    assert "TimeLimitExceeded" in process.log


@both
def test_what_is_never_tried_again_waits_for_each_commit(
    shop: Database, tmp_path: Path, colour: str, kind: str, awaited: str
) -> None:
    """At-most-once in a flight would be made again behind one that failed."""
    calls = tmp_path / "calls"
    body = f"""with open({str(calls)!r}, "a") as file:
        print(message.payload, file=file)
    AWAIT connection.execute("SELECT 1 / (%s - 150)", (message.payload,))"""
    text = app(colour, kind, awaited, body).replace("exactly-once", "at-most-once")
    publish(shop, "t", *range(200))
    with worker(shop.url, tmp_path, text):
        wait_for(lambda: len(seen(shop)) == 199, "all were called")
    assert sorted(map(int, calls.read_text().split())) == list(range(200))


def test_behind_a_pooler_each_is_waited_for_and_exact(shop: Database, pgbouncer: PgBouncer, tmp_path: Path) -> None:
    shop.execute("ALTER TABLE seen ADD CHECK (what <> 'wrong')")
    publish(shop, "t", *range(20), "wrong", *range(20, 40))
    with worker(pgbouncer.url(shop.name), tmp_path, app(*COLOURS[0])):
        wait_for_rest(shop)
    assert sorted(map(int, seen(shop))) == list(range(40))
    with shop.connect() as db:
        dead = db.execute("SELECT payload #>> '{}', attempt FROM outbox.dead_letter").fetchall()
    assert dead == [("wrong", 3)]
