"""Several messages in one transaction or in one call: fast while all is well, and exact when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.shop_floor import Database, wait_for, worker

INSERT = "INSERT INTO seen (what) VALUES (%s)"

#: Handlers that write each payload into `seen`, in the transaction that they are given.
SHARING = {
    "function, connection": f"""def handle(message, connection: psycopg.Connection):
    connection.execute("{INSERT}", (str(message.payload),))
    judge(message)""",
    "coroutine, connection": f"""async def handle(message, connection: psycopg.AsyncConnection):
    await connection.execute("{INSERT}", (str(message.payload),))
    judge(message)""",
    "function, session": """def handle(message, session: Session):
    session.execute(text("INSERT INTO seen (what) VALUES (:what)"), {"what": str(message.payload)})
    judge(message)""",
    "coroutine, session": """async def handle(message, session: AsyncSession):
    await session.execute(text("INSERT INTO seen (what) VALUES (:what)"), {"what": str(message.payload)})
    judge(message)""",
    "function, list": f"""def handle(messages: list[Message], connection: psycopg.Connection):
    for message in messages:
        connection.execute("{INSERT}", (str(message.payload),))
    for message in messages:
        judge(message)""",
    "coroutine, list": f"""async def handle(messages: list[Message], connection: psycopg.AsyncConnection):
    for message in messages:
        await connection.execute("{INSERT}", (str(message.payload),))
    for message in messages:
        judge(message)""",
}

JUDGE = """
def judge(message):
    if message.payload == "bad":
        raise ValueError("no good")
    if message.payload == "worse":
        raise Reject("not for us")
"""


def app(handler: str, *settings: str) -> str:
    given = "".join(f", {setting}" for setting in settings)
    return f"{PREAMBLE}\n{JUDGE}\n@app.subscribe('s', 't', retries=SOON{given})\n{handler}\n"


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("kind", SHARING)
def test_of_a_batch_that_fails_only_the_guilty_message_is_charged(
    shop: Database, tmp_path: Path, kind: str, guarantee: str
) -> None:
    publish(shop, "t", *range(20), "bad", *range(20, 40), "worse", *range(40, 50))
    with worker(shop.url, tmp_path, app(SHARING[kind], "batch=25", "prefetch=100", f"guarantee={guarantee!r}")):
        wait_for_rest(shop)
    assert sorted(seen(shop), key=int) == [str(n) for n in range(50)]
    dead = (
        shop.connect().execute("SELECT payload #>> '{}', reason, attempt FROM outbox.dead_letter ORDER BY 1").fetchall()
    )
    assert dead == [("bad", "attempts exhausted", 3), ("worse", "rejected", 1)]


@pytest.mark.parametrize("kind", ["function, connection", "function, list"])
def test_a_batch_is_one_transaction(shop: Database, tmp_path: Path, kind: str) -> None:
    publish(shop, "t", *range(100))
    with worker(shop.url, tmp_path, app(SHARING[kind], "batch=50", "prefetch=200", "guarantee='exactly-once'")):
        wait_for_rest(shop)
    transactions = shop.connect().execute("SELECT count(*) FROM seen GROUP BY xmin").fetchall()
    assert max(transactions) == (50,)
    assert len(seen(shop)) == 100


@pytest.mark.parametrize("batch", [1, 25])
@pytest.mark.parametrize("kind", ["function, connection", "coroutine, connection", "function, list"])
def test_in_a_pipeline_a_statement_that_fails_charges_its_own_message_only(
    shop: Database, tmp_path: Path, kind: str, batch: int
) -> None:
    """Its error comes when the transaction settles, after statements of others were sent."""
    shop.execute("ALTER TABLE seen ADD CHECK (what <> 'wrong')")
    publish(shop, "t", *range(20), "wrong", *range(20, 40), "bad", *range(40, 50))
    settings = (f"batch={batch}", "prefetch=100", "guarantee='exactly-once'", "pipeline=True")
    with worker(shop.url, tmp_path, app(SHARING[kind], *settings)):
        wait_for_rest(shop)
    assert sorted(seen(shop), key=int) == [str(n) for n in range(50)]
    with shop.connect() as db:
        dead = db.execute(
            "SELECT payload #>> '{}', attempt, errors -> 0 ->> 'class' FROM outbox.dead_letter ORDER BY 1"
        )
        assert dead.fetchall() == [("bad", 3, "ValueError"), ("wrong", 3, "CheckViolation")]


OUTCOMES = """
@app.subscribe("s", "t", retries=SOON, prefetch=50, batch=10, guarantee={guarantee!r})
{colour} handle(messages: list[Message]{wanted}):
    note([m.payload for m in messages])
    return [
        Retry() if m.payload == 3 and m.attempt == 1 else Reject("no") if m.payload == 5 else Ack() if m.payload == 7
        else None for m in messages
    ]
"""


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once", "at-most-once"])
def test_a_handler_of_a_list_says_what_became_of_each_message(
    shop: Database, tmp_path: Path, colour: str, guarantee: str
) -> None:
    kind = "Connection" if colour == "def" else "AsyncConnection"
    wanted = f", connection: psycopg.{kind}" if guarantee == "exactly-once" else ""
    publish(shop, "t", *range(10))
    with worker(shop.url, tmp_path, PREAMBLE + OUTCOMES.format(guarantee=guarantee, colour=colour, wanted=wanted)):
        wait_for_rest(shop)
        wait_for(lambda: sum(len(eval(call)) for call in seen(shop)) >= 10, "all calls")  # at-most-once has no lease
    calls = [eval(call) for call in seen(shop)]
    assert sorted(n for call in calls for n in call if call != [3]) == list(range(10))
    if guarantee == "at-most-once":
        assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0
    else:
        assert calls[-1] == [3]
        assert shop.value("SELECT array_agg(payload::text || reason) FROM outbox.dead_letter") == ["5rejected"]


ODD = {
    "too few": "[None] * (len(messages) - 1)",
    "one for all": "Retry()",
    "an iterator": "map(str, messages)",
    "a dict": "{1: Reject('no')}",
    "other values": "[m.payload for m in messages]",
    "exceptions": "[ValueError('no') for m in messages]",
    "an exception for all": "ValueError('no')",
}


@pytest.mark.parametrize("returned", ODD)
def test_odd_outcomes_of_a_list_lose_no_message(shop: Database, tmp_path: Path, returned: str) -> None:
    """None of them is an ack: all are tried again, and done when the handler says so."""
    handler = f"""def handle(messages: list[Message]):
    if len(messages) > 1 or messages[0].attempt < 3:
        return {ODD[returned]}
    note(messages[0].payload)"""
    publish(shop, "t", 1, 2, 3)
    with worker(shop.url, tmp_path, app(handler, "prefetch=100")):
        wait_for_rest(shop)
    assert sorted(seen(shop)) == ["1", "2", "3"]
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_handler_may_empty_the_list_that_it_got(shop: Database, tmp_path: Path, guarantee: str) -> None:
    handler = """def handle(messages: list[Message], connection: psycopg.Connection):
    while messages:
        connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(messages.pop().payload),))"""
    publish(shop, "t", *range(20))
    with worker(shop.url, tmp_path, app(handler, "prefetch=100", f"guarantee={guarantee!r}")):
        wait_for_rest(shop)
    assert sorted(map(int, seen(shop))) == list(range(20))


def test_a_worker_whose_lease_is_lost_begins_with_none_of_its_messages_any_more(shop: Database, tmp_path: Path) -> None:
    """Or one partition would be handled by two: the order of a key would be lost."""
    handler = """def handle(message):
    note(f"{os.getpid()} {message.payload}")
    while message.payload == 0 and message.attempt == 1 and not message.redelivered and not os.path.exists("go-on"):
        time.sleep(0.01)"""
    publish(shop, "t", *range(25))
    with worker(shop.url, tmp_path, app(handler, "ordered=True", "prefetch=40")) as first:
        wait_for(lambda: seen(shop), "the first message in hand")
        shop.value("SELECT outbox.recover(id) FROM outbox.worker")
        first.wait_for_line("begins anew")
        with worker(shop.url, tmp_path, app(handler, "ordered=True", "prefetch=40")):
            wait_for(lambda: len(seen(shop)) > 5, "the second at work")
            (tmp_path / "go-on").touch()
            wait_for_rest(shop)
    came = [int(what.split()[1]) for what in seen(shop)]
    assert came[0] == 0
    assert [n for n in came[1:] if n] == list(range(1, 25)), "each once, in order"


def test_a_batch_publishes_its_follow_ups_once(shop: Database, tmp_path: Path) -> None:
    handler = """def handle(messages: list[Message], connection: psycopg.Connection):
    for message in messages:
        app.publish(connection, "follow-up", message.payload)
    for message in messages:
        judge(message)"""
    publish(shop, "t", *range(30), "bad")
    with worker(shop.url, tmp_path, app(handler, "batch=31", "prefetch=100", "guarantee='exactly-once'")):
        wait_for_rest(shop)
    followed = (
        "SELECT array_agg(m.payload::text::int ORDER BY m.payload::text::int) FROM outbox.message m "
        "JOIN outbox.partition p ON p.id = m.partition_id JOIN outbox.topic t ON t.id = p.topic_id "
        "WHERE t.name = 'follow-up'"
    )
    assert shop.value(followed) == list(range(30))


ORDERED = f"""
SHORT = timedelta(milliseconds=50)
RETRIES = Retries(first=SHORT, longest=SHORT, max_attempts={{attempts}})
ORDER = dict(ordered=True, on_failure="{{on_failure}}")

@app.subscribe("s", "t", **ORDER, batch={{batch}}, guarantee="exactly-once", concurrency=2, retries=RETRIES)
def handle(message, connection: psycopg.Connection):
    connection.execute("{INSERT}", (f"{{{{message.key}}}} {{{{message.payload}}}}",))
    if message.payload == 3 and message.attempt < 4:
        raise ValueError("not yet")
"""


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("on_failure", "attempts"), [("block", 10), ("park", 10), ("dead-letter", 10), ("block", 2), ("park", 2)]
)
def test_each_key_is_handled_in_order(
    shop: Database, tmp_path: Path, on_failure: str, attempts: int, batch: int
) -> None:
    with shop.connect() as connection:
        connection.execute("SELECT outbox.declare_topic('t', partitions => 2)")
        for n in range(8):
            for key in ("a", "b", "c", "d"):
                connection.execute("SELECT outbox.publish('t', %s::text::json, key => %s)", (n, key))
    with worker(shop.url, tmp_path, PREAMBLE + ORDERED.format(on_failure=on_failure, attempts=attempts, batch=batch)):
        wait_for_rest(shop)
    dies = on_failure == "dead-letter" or attempts == 2
    expected = [n for n in range(8) if not (dies and n == 3)]
    for key in ("a", "b", "c", "d"):
        assert [int(what[2:]) for what in seen(shop) if what.startswith(key)] == expected, key
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == (4 if dies else 0)
