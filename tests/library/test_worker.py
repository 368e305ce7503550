"""`outbox worker` as users run it: real processes, stopped by real signals; what they did is read from Postgres."""

import signal
from pathlib import Path

import pytest

from outbox import Outbox
from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.servers import PgBouncer
from tests.shop_floor import PATIENCE, Database, WorkerProcess, at_rest, outbox, value, wait_for, worker

HANDLERS = {
    "a function": "def handle(message): note(message.payload)",
    "a coroutine function": "async def handle(message): note(message.payload)",
    "a function with a session": """def handle(message, session: Session):
        session.execute(text("INSERT INTO seen (what) VALUES (:what)"), {"what": str(message.payload)})""",
    "a function with a connection": """def handle(message, connection: psycopg.Connection):
        connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))""",
    "a coroutine function with a session": """async def handle(message, session: AsyncSession):
        await session.execute(text("INSERT INTO seen (what) VALUES (:what)"), {"what": str(message.payload)})""",
    "a coroutine function with a connection": """async def handle(message, connection: psycopg.AsyncConnection):
        await connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))""",
}


@pytest.mark.parametrize("guarantee", ["at-most-once", "at-least-once", "exactly-once"])
@pytest.mark.parametrize("kind", HANDLERS)
def test_each_kind_of_handler_gets_each_message_once_under_each_guarantee(
    shop: Database, tmp_path: Path, kind: str, guarantee: str
) -> None:
    if guarantee == "exactly-once" and "with" not in kind:
        guarantee = "at-least-once"  # exactly-once needs the transaction; its refusal is tested elsewhere
    app = f"{PREAMBLE}\n@app.subscribe('s', 't', guarantee={guarantee!r}, concurrency=3)\n{HANDLERS[kind]}\n"
    publish(shop, "t", *range(20))
    with worker(shop.url, tmp_path, app) as process:
        publish(shop, "t", *range(20, 30))
        wait_for(lambda: len(seen(shop)) >= 30, "thirty effects")
        assert process.stop() == 0
    assert sorted(map(int, seen(shop))) == list(range(30))
    assert at_rest(shop)
    assert shop.value("SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL") == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_on_uvloop_delivers_and_stops_as_on_asyncio(shop: Database, tmp_path: Path, processes: int) -> None:
    app = f"""{PREAMBLE}

@app.subscribe("s", "t", concurrency=10)
async def handle(message):
    note(type(asyncio.get_running_loop()).__module__)
"""
    publish(shop, "t", *range(30))
    with worker(shop.url, tmp_path, app, "--loop", "uvloop", "--processes", str(processes)) as process:
        wait_for_rest(shop)
        assert process.stop() == 0
    assert seen(shop) == ["uvloop"] * 30
    assert shop.value("SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL") == 0


def test_the_handler_sees_the_message_as_it_was_published(shop: Database, tmp_path: Path) -> None:
    app = PREAMBLE + (
        "@app.subscribe('s', 'orders.*')\n"
        "def handle(m):\n"
        "    note((m.topic, m.partition, m.priority, m.key, m.headers, m.payload, m.attempt, str(m.id), m.offset))\n"
    )
    publish(shop, "orders.placed", {"a": [1, "é", None]}, b"\x00raw")
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: len(seen(shop)) == 2, "two messages")
    first, second = map(eval, seen(shop))
    assert first == ("orders.placed", 0, 0, "k", {"h": "v"}, {"a": [1, "é", None]}, 1, "1-1", 1)
    assert second[4:6] == ({"content-type": "application/octet-stream", "h": "v"}, b"\x00raw")


OUTCOMES = {
    "raises": "raise ValueError('no good')",
    "raises Retry": "raise Retry(after=timedelta(milliseconds=10))",
    "returns Retry": "return Retry(after=timedelta(milliseconds=10))",
}


@pytest.mark.parametrize("kind", OUTCOMES)
@pytest.mark.parametrize("colour", ["def", "async def"])
def test_a_message_that_fails_is_retried_and_then_a_dead_letter(
    shop: Database, tmp_path: Path, kind: str, colour: str
) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", retries=SOON)
{colour} handle(message):
    note(f"{{message.payload}} {{message.attempt}}")
    if message.payload == "bad":
        {OUTCOMES[kind]}
"""
    publish(shop, "t", "good", "bad", "good")
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 1, "a dead letter")
        wait_for_rest(shop)
    assert sorted(seen(shop)) == ["bad 1", "bad 2", "bad 3", "good 1", "good 1"]
    row = shop.connect().execute("SELECT reason, attempt, errors FROM outbox.dead_letter").fetchone()
    assert row is not None
    assert row[:2] == ("attempts exhausted", 3)
    assert [error["attempt"] for error in row[2]] == [1, 2, 3]
    if kind == "raises":
        assert {error["class"] for error in row[2]} == {"ValueError"}
        assert row[2][0]["text"] == "no good"
        assert "app_under_test.py" in row[2][0]["traceback"]


@pytest.mark.parametrize("how", ["raise Reject('not for us')", "return Reject('not for us')"])
def test_a_rejected_message_is_a_dead_letter_at_once(shop: Database, tmp_path: Path, how: str) -> None:
    publish(shop, "t", "a")
    with worker(shop.url, tmp_path, f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message):\n    {how}\n"):
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 1, "a dead letter")
    row = shop.connect().execute("SELECT reason, attempt, errors->0->>'text' FROM outbox.dead_letter").fetchone()
    assert row == ("rejected", 1, "not for us")


@pytest.mark.parametrize("how", ["raise ValueError", "return Retry()", "connection.rollback()"])
def test_effects_of_a_failed_exactly_once_handler_roll_back(shop: Database, tmp_path: Path, how: str) -> None:
    """Even if it tampers with its transaction."""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", retries=SOON)
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES ('effect')")
    app.publish(connection, "follow-up", 1)
    if message.attempt < 3:
        {how}
"""
    publish(shop, "t", "a")
    with worker(shop.url, tmp_path, app):
        wait_for(lambda: seen(shop), "the third attempt")
        wait_for_rest(shop)
    assert seen(shop) == ["effect"]
    assert shop.value("SELECT sum(last_offset) FROM outbox.lag") == 1
    count = "SELECT count(*) FROM outbox.message m JOIN outbox.partition p ON p.id = m.partition_id JOIN outbox.topic t"
    assert shop.value(f"{count} ON t.id = p.topic_id WHERE t.name = 'follow-up'") == 1


WRAPPED = """
def decorated(function):
    def wrapper(message):
        return function(message)
    return wrapper

@app.subscribe("s", "t", retries=ONCE)
@decorated
async def handle(message):
    note("never runs")
"""
UNSPEAKABLE = """
class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("nothing to say")

@app.subscribe("s", "t", retries=ONCE)
def handle(message):
    raise Unspeakable
"""
PLAIN = "@app.subscribe('s', 't', retries=ONCE)\n"
EXACT = "@app.subscribe('s', 't', retries=ONCE, guarantee='exactly-once')\n"
EFFECT = "INSERT INTO seen (what) VALUES ('effect')"

#: What a handler may do to us, and the class of the error that its dead letter shows.
ODD = {
    "wraps a coroutine": (WRAPPED, "InvalidOutcome"),
    "raises what has no text": (UNSPEAKABLE, "Unspeakable"),
    "exits": (f"{PLAIN}def handle(message):\n    raise SystemExit(3)", "RuntimeError"),
    "is interrupted": (f"{PLAIN}def handle(message):\n    raise KeyboardInterrupt", "RuntimeError"),
    "raises CancelledError": (f"{PLAIN}async def handle(message):\n    raise asyncio.CancelledError", "RuntimeError"),
    "misuses Retry": (f"{PLAIN}def handle(message):\n    raise Retry(after=5)", "TypeError"),
    "swallows a failed statement": (
        f"""{PLAIN}def handle(message, connection: psycopg.Connection):
    connection.execute("{EFFECT}")
    try:
        connection.execute("SELECT 1/0")
    except psycopg.Error:
        pass""",
        "HandlerTransactionError",
    ),
    "swallows a failed statement in a session": (
        f"""{PLAIN}async def handle(message, session: AsyncSession):
    await session.execute(text("{EFFECT}"))
    try:
        await session.execute(text("SELECT 1/0"))
    except Exception:
        pass""",
        "HandlerTransactionError",
    ),
    "commits its session": (
        f"""{EXACT}def handle(message, session: Session):
    session.execute(text("{EFFECT}"))
    session.commit()""",
        "HandlerTransactionError",
    ),
    "commits its async session": (
        f"""{EXACT}async def handle(message, session: AsyncSession):
    await session.execute(text("{EFFECT}"))
    await session.commit()""",
        "HandlerTransactionError",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_handler_fails_its_message_leaves_no_effect_and_stops_nothing(
    shop: Database, tmp_path: Path, kind: str
) -> None:
    handler, error = ODD[kind]
    publish(shop, "t", 1, 2, 3)
    with worker(shop.url, tmp_path, f"{PREAMBLE}\nONCE = Retries(max_attempts=1)\n{handler}\n") as process:
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 3, "three dead letters")
        assert process.stop() == 0
    assert shop.value("SELECT array_agg(DISTINCT errors->0->>'class') FROM outbox.dead_letter") == [error]
    assert seen(shop) == []


@pytest.mark.parametrize("kind", ["Session", "psycopg.Connection"])
def test_a_message_whose_handler_could_not_begin_is_not_charged(shop: Database, tmp_path: Path, kind: str) -> None:
    """The connections that wait for handlers were cut, as by a restart of the database."""
    statement = "INSERT INTO seen (what) VALUES ('effect')"
    statement = f'text("{statement}")' if kind == "Session" else f'"{statement}"'
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once", retries=Retries(max_attempts=1))
def handle(message, transaction: {kind}):
    transaction.execute({statement})
"""
    with worker(shop.url, tmp_path, app):
        publish(shop, "t", 1)
        wait_for(lambda: len(seen(shop)) == 1, "the first message")
        wait_for_rest(shop)
        shop.value(
            "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        publish(shop, "t", 2)
        wait_for(lambda: len(seen(shop)) == 2, "the second message")
    assert shop.value("SELECT count(*) FROM outbox.dead_letter") == 0


def test_workers_that_disagree_on_the_guarantee_lose_nothing(shop: Database, tmp_path: Path) -> None:
    """An older deployment may declare the subscription otherwise while we run."""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="exactly-once")
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
"""
    with worker(shop.url, tmp_path, app):
        shop.value("SELECT outbox.subscribe('s', 'at-most-once', 20)")
        publish(shop, "t", *range(10))
        wait_for(lambda: len(seen(shop)) == 10, "ten effects")
        wait_for_rest(shop)
    assert sorted(map(int, seen(shop))) == list(range(10))


def test_a_worker_can_be_stopped_while_its_database_is_away(tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): pass\n"
    process = WorkerProcess("postgresql://postgres@127.0.0.1:1/nothing", tmp_path, app)
    try:
        process.wait_for_line("database away")
        assert process.stop(seconds=60) == 0
    finally:
        process.kill()


def test_a_supervisor_asks_its_processes_to_stop_once(shop: Database, tmp_path: Path) -> None:
    """So that one which is done first does not cut the grace time of the others."""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t")
def handle(message):
    note("began")
    while not os.path.exists("go-on"):
        time.sleep(0.01)
    note("ended")
"""
    publish(shop, "t", 1)
    arguments = ["--processes", "2", "--database-url", shop.url]
    with worker("", tmp_path, app.replace('os.environ["OUTBOX_DATABASE_URL"]', repr(shop.url)), *arguments) as process:
        wait_for(lambda: seen(shop) and process.log.count("worker started") == 2, "both, and the handler at work")
        process.process.send_signal(signal.SIGTERM)
        process.wait_for_line("worker stopped")
        (tmp_path / "go-on").touch()
        assert process.process.wait(PATIENCE) == 0
        assert process.log.count("unfinished=0") == 2
    assert seen(shop) == ["began", "ended"]


def test_sigterm_lets_the_handler_finish_and_gives_the_rest_back_uncharged(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", prefetch=10)
def handle(message):
    note(f"began {{message.payload}}")
    while not os.path.exists("go-on"):
        time.sleep(0.01)
    note(f"ended {{message.payload}}")
"""
    publish(shop, "t", *range(10))
    with worker(shop.url, tmp_path, app) as process:
        wait_for(lambda: seen(shop) == ["began 0"], "the first handler at work")
        process.process.send_signal(signal.SIGTERM)
        process.wait_for_line("stopping")
        (tmp_path / "go-on").touch()
        assert process.process.wait(PATIENCE) == 0
    assert seen(shop) == ["began 0", "ended 0"]
    assert shop.value("SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL") == 0
    with worker(shop.url, tmp_path, app.replace("began {message", "began {message.attempt} {message")):
        wait_for_rest(shop)
    assert [what for what in seen(shop) if what.startswith("began")][1:] == [f"began 1 {n}" for n in range(1, 10)]


def test_a_slow_message_does_not_keep_its_neighbours_from_being_settled(shop: Database, tmp_path: Path) -> None:
    """Not even while other batches are settled all the time: a crash would repeat them."""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", prefetch=10, concurrency=2)
def handle(message):
    while message.payload == "slow" and not os.path.exists("go-on"):
        time.sleep(0.01)
"""
    publish(shop, "t", "slow", *range(9))
    with worker(shop.url, tmp_path, app):

        def only_the_slow_one_is_left() -> bool:
            publish(shop, "t", *range(5))
            return bool(
                shop.value("SELECT EXISTS (SELECT FROM outbox.in_flight WHERE messages = 1 AND offsets @> 1::bigint)")
            )

        wait_for(only_the_slow_one_is_left, "its neighbours settled")
        (tmp_path / "go-on").touch()
        wait_for_rest(shop)


_HELD_BACK = """
@app.subscribe("s", "t", prefetch=1000)
def handle(message):
    while not os.path.exists("go-on"):
        time.sleep(0.01)
"""


def test_large_messages_are_not_multiplied_by_the_prefetch(shop: Database, tmp_path: Path) -> None:
    """What is in hand is bounded in bytes, too: 8 MiB."""
    with shop.connect() as db:
        Outbox().publish_many(db, "t", [{"n": n, "text": "x" * 1_000_000} for n in range(40)])
    with worker(shop.url, tmp_path, f"{PREAMBLE}{_HELD_BACK}") as process:
        wait_for(lambda: shop.value("SELECT sum(messages) >= 5 FROM outbox.in_flight"), "messages in hand")
        assert shop.value("SELECT sum(messages) FROM outbox.in_flight") <= 9
        (tmp_path / "go-on").touch()
        wait_for_rest(shop)
        assert process.peak_megabytes < 150


def test_a_worker_with_a_thousand_messages_in_hand_is_small(shop: Database, tmp_path: Path) -> None:
    with shop.connect() as db:
        Outbox().publish_many(db, "t", [{"n": n, "text": "x" * 1_000} for n in range(5_000)])
    with worker(shop.url, tmp_path, f"{PREAMBLE}{_HELD_BACK}") as process:
        wait_for(lambda: shop.value("SELECT sum(messages) = 1000 FROM outbox.in_flight"), "a thousand in hand")
        (tmp_path / "go-on").touch()
        wait_for_rest(shop)
        assert process.peak_megabytes < 120


def test_a_handler_that_outlasts_the_grace_time_loses_its_message_to_others(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t")
def handle(message):
    note("began")
    time.sleep(3600)
"""
    publish(shop, "t", "a")
    with worker(shop.url, tmp_path, app, "--grace", "0.2") as process:
        wait_for(lambda: seen(shop), "the handler at work")
        assert process.stop() == 0
        assert "unfinished=1" in process.log
    with worker(shop.url, tmp_path, f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): note('taken over')\n"):
        wait_for_rest(shop)
    assert seen(shop) == ["began", "taken over"]


def test_a_second_signal_ends_the_waiting(shop: Database, tmp_path: Path) -> None:
    handler = "async def handle(message):\n    note('began')\n    await asyncio.sleep(3600)\n"
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\n{handler}"
    publish(shop, "t", "a")
    with worker(shop.url, tmp_path, app) as process:
        wait_for(lambda: seen(shop), "the handler at work")
        process.process.send_signal(signal.SIGINT)
        process.wait_for_line("stopping")
        assert process.stop(signal.SIGINT) == 0
    assert shop.value("SELECT count(*) FROM outbox.redelivery") == 1


def test_at_most_once_messages_in_hand_are_handled_before_the_end(shop: Database, tmp_path: Path) -> None:
    """They have no lease: given back they would be lost."""
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", guarantee="at-most-once", prefetch=10)
def handle(message):
    note(message.payload)
    while not os.path.exists("go-on"):
        time.sleep(0.01)
"""
    publish(shop, "t", *range(10))
    with worker(shop.url, tmp_path, app) as process:
        wait_for(lambda: seen(shop), "the first handler at work")
        wait_for(lambda: shop.value("SELECT sum(lag) FROM outbox.lag") == 0, "all of them in hand")
        process.process.send_signal(signal.SIGTERM)
        process.wait_for_line("stopping")
        (tmp_path / "go-on").touch()
        assert process.process.wait(PATIENCE) == 0
    assert seen(shop) == [str(n) for n in range(10)]


def test_a_sleeping_worker_is_woken_by_a_commit(shop: Database, tmp_path: Path) -> None:
    """Not by its slow poll: it holds the wake lock, the publisher sees it, and a notification goes out."""
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): note(message.payload)\n"
    publish(shop, "t", 0)
    # on its topic: the scheduler of the same process sleeps on a lock of its own
    asleep = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database() "
        "JOIN outbox.topic t ON outbox.wake_lock(t.id) = (l.classid::bigint << 32) | l.objid::bigint "
        "WHERE l.locktype = 'advisory' AND l.mode = 'ShareLock'"
    )
    with worker(shop.url, tmp_path, app):
        listener = shop.connect(autocommit=True)
        listener.execute("LISTEN outbox")
        for n in range(1, 4):
            wait_for(lambda: shop.value(asleep), "the worker asleep")
            publish(shop, "t", n)
            assert [note.payload for note in listener.notifies(timeout=PATIENCE, stop_after=1)] == ["1"]
            wait_for(lambda n=n: len(seen(shop)) == n + 1, "the message handled")
    assert seen(shop) == ["0", "1", "2", "3"]


def test_a_topic_that_appears_later_is_read_by_a_running_worker(shop: Database, tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 'orders.#')\ndef handle(message): note(message.topic)\n"
    with worker(shop.url, tmp_path, app):
        for topic in ("orders", "orders.placed", "invoices", "orders.placed.eu"):
            publish(shop, topic, 1)
        wait_for(lambda: len(seen(shop)) == 3, "three messages")
    assert sorted(seen(shop)) == ["orders", "orders.placed", "orders.placed.eu"]


def test_several_processes_share_the_messages_and_stop_together(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", prefetch=2)
def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(os.getpid()),))
    time.sleep(0.01)
"""
    with worker(shop.url, tmp_path, app, "--processes", "3") as process:
        process.wait_for_line("worker started", 3)  # one alone may be done before the others are there
        publish(shop, "t", *range(200))
        wait_for(lambda: len(seen(shop)) >= 200, "all messages")
        assert process.stop() == 0
        assert process.log.count("worker stopped") == 3
    assert len(seen(shop)) == 200
    assert len(set(seen(shop))) >= 2


def test_processes_end_by_themselves_when_their_supervisor_is_killed(shop: Database, tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): note(message.payload)\n"
    with worker(shop.url, tmp_path, app, "--processes", "2", "--timeout", "3") as process:
        alive = "SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL"
        wait_for(lambda: shop.value(alive) == 2, "two processes")
        process.kill()
        wait_for(lambda: process.log.count("worker stopped") == 2, "both ended in good order")
        assert shop.value(alive) == 0


def test_a_process_that_dies_is_replaced_and_its_messages_recovered_at_once(shop: Database, tmp_path: Path) -> None:
    app = f"""{PREAMBLE}
@app.subscribe("s", "t", prefetch=50)
def handle(message, connection: psycopg.Connection):
    if message.payload == "poison" and not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid(), 9)
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (message.payload,))
"""
    publish(shop, "t", "a", "b", "poison", "c", "d")
    with worker(shop.url, tmp_path, app, "--processes", "2", "--timeout", "600") as process:
        process.wait_for_line("recovered")
        wait_for(lambda: {"a", "b", "poison", "c", "d"} <= set(seen(shop)), "all messages")
        wait_for_rest(shop)


def test_behind_pgbouncer_a_worker_polls(shop: Database, pgbouncer: PgBouncer, tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): note(message.payload)\n"
    with worker(pgbouncer.url(shop.name), tmp_path, app) as process:
        process.wait_for_line("polling instead of listening")
        publish(shop, "t", *range(50))
        wait_for(lambda: len(seen(shop)) == 50, "all messages")
        assert process.stop() == 0
    assert at_rest(shop)


def test_only_named_subscriptions_run(shop: Database, tmp_path: Path) -> None:
    app = PREAMBLE + "".join(f"@app.subscribe('{n}', 't')\ndef {n}(message): note('{n}')\n" for n in ("one", "two"))
    publish(shop, "t", 1)
    with worker(shop.url, tmp_path, app, "--only", "two"):
        wait_for(lambda: seen(shop), "the message")
    assert seen(shop) == ["two"]
    assert shop.value("SELECT string_agg(name, ',') FROM outbox.subscription") == "two"


@pytest.mark.parametrize(
    ("target", "arguments", "says", "code"),
    [
        ("nowhere:app", [], "there is no module 'nowhere'", 2),
        ("outbox", [], "does not say which object", 2),
        ("outbox:nothing", [], "is missing, not an outbox.Outbox", 2),
        ("outbox:Outbox", [], "is a type, not an outbox.Outbox", 2),
        ("workers.shop:app", ["--only", "nobody"], "has no subscription nobody; it has accounting, mailer, crm", 1),
        ("workers.shop:app", ["--log-level", "LOUD"], "is not one of DEBUG", 2),
    ],
)
def test_a_worker_that_cannot_start_says_why(one_database: Database, target, arguments, says: str, code: int) -> None:
    result = outbox(one_database.url, "worker", target, *arguments)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == code


def test_a_worker_refuses_a_database_without_the_schema(empty_database: Database) -> None:
    for processes in ("1", "2"):
        result = outbox(empty_database.url, "worker", "workers.shop:app", "--processes", processes)
        assert "run `outbox migrate`" in result.stderr
        assert result.returncode == 1
    with empty_database.connect() as db:
        assert value(db, "SELECT count(*) FROM pg_namespace WHERE nspname = 'outbox'") == 0
