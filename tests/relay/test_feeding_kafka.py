"""Handlers on Kafka instead of the log: the same application, effects once, failures tried again here."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from outbox import Outbox
from tests.relay.brokers import Tansu
from tests.relay.feeding import (
    EFFECTS,
    EXACTLY_ONCE,
    FAILING,
    check_once,
    count,
    effects,
    ends,
    feeding,
    send,
    standing,
    told,
)
from tests.relay.peers import create_topic, servers
from tests.relay.running import relaying
from tests.servers import Postgres
from tests.shop_floor import Database, WorkerProcess, outbox, wait_for, worker


@pytest.mark.parametrize("more", [", concurrency=4", ", concurrency=4, ordered=True, batch=20"])
def test_effects_are_exactly_once_and_in_order_though_workers_are_killed_again_and_again(
    books: Database, tmp_path: Path, mock: str, name: str, more: str
) -> None:
    send(mock, name, range(400))
    app = EXACTLY_ONCE.format(more=more)
    for wanted in 30, 250:
        with worker(books.url, tmp_path, app, *feeding(mock, name), "--timeout", "2") as process:
            wait_for(lambda wanted=wanted: count(books) >= wanted, f"{wanted} of them")  # type: ignore[misc]
            process.kill()
    with worker(books.url, tmp_path, app, *feeding(mock, name), "--timeout", "2") as process:
        send(mock, name, range(400, 800))
        wait_for(lambda: count(books) >= 800, "all of them")
        assert process.stop() == 0, process.log
    check_once(books, range(800), in_order="ordered" in more)
    assert books.value("SELECT count(*) FROM outbox.message") == 0
    assert books.value("SELECT count(*) FROM outbox.dead_letter") == 0
    assert books.value("SELECT bool_and(begun = 0) FROM outbox.source_position")


def test_a_failing_message_goes_round_looks_the_same_dies_and_is_redriven_while_others_go_on(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    books.execute("INSERT INTO broken VALUES (3), (5)")
    send(mock, name, range(50))
    with worker(books.url, tmp_path, FAILING.format(more=""), *feeding(mock, name)) as process:
        wait_for(lambda: count(books) >= 48, "the others")
        wait_for(lambda: books.value("SELECT count(*) FROM outbox.dead_letter") == 2, "two dead letters")
        found = [one for one in told(process.log) if one[1] == "3"]
        place = found[0][6]
        wanted = ["orders.placed", "3", "k3", {"tenant": "eu"}, "2026-01-02T03:04:05.500000+00:00"]
        assert found == [[*wanted, attempt, place] for attempt in (1, 2, 3)]
        listed = outbox(books.url, "dead", "list", "books")
        assert "ValueError" in listed.stdout, listed
        history = books.value("SELECT jsonb_path_query_array(errors, '$.attempt') FROM outbox.dead_letter LIMIT 1")
        assert history == [1, 2, 3]
        books.execute("TRUNCATE broken")
        assert outbox(books.url, "dead", "redrive", "books", "--all").returncode == 0
        wait_for(lambda: count(books) >= 50, "what was redriven")
        assert told(process.log)[-1][:5] in ([*wanted], [wanted[0], "5", "k5", *wanted[3:]])
        assert process.stop() == 0
    check_once(books, range(50), in_order=False)


def test_the_key_of_a_failed_message_waits_behind_it_and_others_go_on(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    books.execute("INSERT INTO broken VALUES (10)")
    app = FAILING.format(more=", ordered=True, batch=10").replace(
        "delays([timedelta(0)] * 2)", "delays([timedelta(0)] * 999)"
    )
    send(mock, name, range(100))
    with worker(books.url, tmp_path, app, *feeding(mock, name)) as process:
        waiting = len(range(10, 100, 7))
        wait_for(lambda: count(books) == 100 - waiting, "the other keys")
        send(mock, name, range(100, 150))
        waiting += len([n for n in range(100, 150) if n % 7 == 3])
        wait_for(lambda: count(books) == 150 - waiting, "the other keys again")
        assert books.value("SELECT count(*) FROM outbox.redelivery") == waiting
        books.execute("TRUNCATE broken")
        wait_for(lambda: count(books) == 150, "the key that waited")
        wait_for(lambda: books.value("SELECT count(*) FROM outbox.redelivery") == 0, "nothing goes round")
        send(mock, name, range(150, 300))
        wait_for(lambda: count(books) == 300, "what came then")
        assert process.stop() == 0
    check_once(books, range(300))


def test_a_blocked_partition_waits_in_kafka(books: Database, tmp_path: Path, mock: str, name: str) -> None:
    books.execute("INSERT INTO broken VALUES (10)")
    app = FAILING.format(more=", ordered=True, on_failure='block'").replace("* 2)", "* 999)")
    send(mock, name, range(30), keys=1)
    with worker(books.url, tmp_path, app, *feeding(mock, name)) as process:
        wait_for(lambda: len([one for one in told(process.log) if one[1] == "10"]) >= 5, "some tries")
        assert (count(books), books.value("SELECT count(*) FROM outbox.redelivery")) == (10, 1)
        books.execute("TRUNCATE broken")
        wait_for(lambda: count(books) == 30, "all of them")
    check_once(books, range(30))


def test_what_comes_twice_under_one_id_has_one_effect(books: Database, tmp_path: Path, mock: str, name: str) -> None:
    """In the same read, in another partition, and after a restart."""
    app = EXACTLY_ONCE.format(more=", batch=7")
    for more in "", ", concurrency=4":
        app = EXACTLY_ONCE.format(more=f"{more}, batch=7")
        send(mock, name, [*range(20), *range(20)])
        send(mock, name, range(20), keys=5)
        with worker(books.url, tmp_path, app, *feeding(mock, name)) as process:
            send(mock, name, [-1 - len(more)])
            wait_for(lambda more=more: (-1 - len(more), f"k{(-1 - len(more)) % 7}") in effects(books), "the last")  # type: ignore[misc]
            wait_for(lambda: standing(books) == ends(mock, name), "all passed over")
            assert process.stop() == 0
    assert sorted(n for n, _ in effects(books) if n >= 0) == list(range(20))


def test_a_handler_that_kills_its_process_ends_as_a_dead_letter_alone(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    app = FAILING.format(more="").replace('raise ValueError("broken")', "__import__('os')._exit(1)")
    books.execute("INSERT INTO broken VALUES (10)")
    send(mock, name, range(40), keys=1)
    with worker(books.url, tmp_path, app, *feeding(mock, name), "--timeout", "2", "-p", "1") as process:
        processes = [process]
        try:

            def died() -> int:
                if processes[-1].process.poll() is not None:
                    processes.append(WorkerProcess(books.url, tmp_path, app, *feeding(mock, name), "--timeout", "2"))
                return int(books.value("SELECT count(*) FROM outbox.dead_letter"))

            wait_for(died, "its dead letter", 240)
            wait_for(lambda: count(books) == 39, "the others")
        finally:
            for one in processes:
                one.kill()
    check_once(books, [n for n in range(40) if n != 10], in_order=False)
    assert books.value("SELECT reason FROM outbox.dead_letter") == "worker died"


HANGING = """
import time
from datetime import timedelta
from psycopg import Connection
from outbox import Outbox, Retries
app = Outbox()
@app.subscribe("books", "orders.*", guarantee="exactly-once", retries=Retries(max_attempts=1), ordered=True,
               time_limit=timedelta(seconds=1))
def book(message, connection: Connection):
    if message.payload == 10:
        time.sleep(1000)
    connection.execute("INSERT INTO effect (id, n, key) VALUES (%s, %s, %s)",
                       [str(message.id), message.payload, message.key])
"""


def test_a_handler_that_can_t_be_stopped_has_its_process_replaced_and_its_message_is_a_dead_letter(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    send(mock, name, range(40))
    with worker(books.url, tmp_path, HANGING, *feeding(mock, name)) as process:
        wait_for(lambda: count(books) == 39, "the others")
        assert "handler stuck" in process.log
        assert books.value("SELECT error_class FROM outbox.dead_letter") == "TimeLimitExceeded"
        assert process.stop() == 0
    check_once(books, [n for n in range(40) if n != 10])


def test_two_workers_share_the_partitions_and_one_takes_over(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    app = EXACTLY_ONCE.format(more=", ordered=True, batch=5, concurrency=2")
    (tmp_path / "b").mkdir()
    send(mock, name, range(200))
    with worker(books.url, tmp_path, app, *feeding(mock, name), "--timeout", "2") as first:
        wait_for(lambda: count(books) >= 200, "the first")
        with worker(books.url, tmp_path / "b", app, *feeding(mock, name), "--timeout", "2") as second:
            n = 200
            while "feed reads" not in second.log:
                send(mock, name, range(n, n + 50))
                n += 50
                wait_for(lambda n=n: count(books) >= n, "they are shared")  # type: ignore[misc]
            first.kill()
            send(mock, name, range(n, n + 200))
            wait_for(lambda: count(books) >= n + 200, "the rest")
            assert second.stop() == 0
    check_once(books, range(n + 200))


LOOSE = """
import time
from outbox import Outbox, Retry
app = Outbox()
@app.subscribe("loose", "orders.*", guarantee="{guarantee}"{more})
{handler}
"""
ASYNC_LIST = "async def take(messages: list):\n    print('GOT', *(m.payload for m in messages), flush=True)"
SYNC = "def take(message):\n    print(f'GOT {message.payload}\\n', end='', flush=True)"


@pytest.mark.parametrize("guarantee", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize("handler", [ASYNC_LIST, SYNC])
def test_other_guarantees_and_kinds_of_handlers(
    one_database: Database, tmp_path: Path, mock: str, name: str, guarantee: str, handler: str
) -> None:
    app = LOOSE.format(guarantee=guarantee, handler=handler, more=", concurrency=2")
    send(mock, name, range(300), ids=None)
    with worker(one_database.url, tmp_path, app, *feeding(mock, f"{name}?topic=orders.in")) as process:
        wait_for(lambda: len(got(process.log)) >= 300, "all of them")
        assert process.stop() == 0
    assert sorted(got(process.log)) == list(range(300))
    assert standing(one_database) == 300


def got(log: str) -> list[int]:
    return [int(n) for n in re.findall(r"[0-9]+", " ".join(re.findall(r"GOT[^\n]*", log)))]


SELECTIVE = """
from outbox import Binding, Outbox
app = Outbox()
@app.subscribe("loose", Binding("orders.*", headers={"tenant": "eu"}, filter="$ > 10"), "payments.#")
def take(message):
    print("GOT", message.payload, flush=True)
"""


def test_what_its_bindings_leave_out_is_passed_over(
    one_database: Database, tmp_path: Path, mock: str, name: str
) -> None:
    send(mock, name, range(20))
    with worker(one_database.url, tmp_path, SELECTIVE, *feeding(mock, name)) as process:
        wait_for(lambda: standing(one_database) == 20, "all read")
        assert sorted(got(process.log)) == list(range(11, 20))
        assert process.stop() == 0


def test_a_paused_subscription_waits_in_kafka(books: Database, tmp_path: Path, mock: str, name: str) -> None:
    send(mock, name, range(10))
    with worker(books.url, tmp_path, EXACTLY_ONCE.format(more=""), *feeding(mock, name)) as process:
        wait_for(lambda: count(books) == 10, "the first")
        assert outbox(books.url, "pause", "books").returncode == 0
        process.wait_for_line("feed paused")
        send(mock, name, range(10, 30))
        time.sleep(1.5)  # nothing is to happen
        assert count(books) == 10
        assert outbox(books.url, "resume", "books").returncode == 0
        wait_for(lambda: count(books) == 30, "the rest")
        assert process.stop() == 0


def test_a_broker_that_is_absent_costs_nothing_but_time(books: Database, tmp_path: Path, name: str) -> None:
    broker = Tansu()
    try:
        broker.kill()
        app = EXACTLY_ONCE.format(more=", ordered=True")
        with worker(books.url, tmp_path, app, *feeding(broker.url, name)) as process:
            process.wait_for_line("circuit open")
            assert "open" in outbox(books.url, "status").stdout
            broker.start()
            create_topic(servers(broker.url), name)
            send(broker.url, name, range(100))
            wait_for(lambda: count(books) == 100, "all of them")
            assert process.stop() == 0
        check_once(books, range(100))
    finally:
        broker.remove()


def test_offsets_that_are_gone_are_said_and_not_passed_over(
    books: Database, tmp_path: Path, mock: str, name: str
) -> None:
    send(mock, name, range(10), keys=1)
    books.execute(f"""
        INSERT INTO outbox.source_position (source, partition, "offset")
        SELECT 'from:books', '{name}/' || n, 5000 FROM generate_series(0, 3) n""")
    with worker(books.url, tmp_path, EXACTLY_ONCE.format(more=""), *feeding(mock, name)) as process:
        process.wait_for_line("does not have the offset that comes next")
    assert count(books) == 0


def test_a_database_that_is_away_loses_and_doubles_nothing(
    own_postgres: Database, tmp_path: Path, mock: str, name: str
) -> None:
    own_postgres.execute(EFFECTS)
    send(mock, name, range(300))
    app = EXACTLY_ONCE.format(more=", ordered=True, batch=3")
    with worker(own_postgres.url, tmp_path, app, *feeding(mock, name)) as process:
        wait_for(lambda: count(own_postgres) >= 30, "the first")
        own_postgres.postgres.stop("immediate")
        own_postgres.postgres.start()
        wait_for(lambda: count(own_postgres) >= 300, "all of them")
        send(mock, name, range(300, 400))
        wait_for(lambda: count(own_postgres) >= 400, "all of them")
        assert process.stop() == 0
    check_once(own_postgres, range(400))


def test_the_same_application_runs_on_the_log_and_on_kafka(
    books: Database, newest_postgres: Postgres, tmp_path: Path, kafka: Tansu, name: str
) -> None:
    """Its handlers are told the same, to the id and the time."""
    for folder in "log", "relay", "kafka":
        (tmp_path / folder).mkdir()
    create_topic(servers(kafka.url), name)
    app = FAILING.format(more=", ordered=True")
    with books.connect() as connection:
        for n in range(30):
            Outbox().publish(connection, "orders.placed", n, key=f"k{n % 7}", headers={"tenant": "eu"})
    with worker(books.url, tmp_path / "log", app) as on_the_log:
        wait_for(lambda: count(books) == 30, "all of the log")
    newest_postgres.execute(f"CREATE DATABASE outgrown_{name} TEMPLATE outbox_template")
    mailer = Database(newest_postgres, f"outgrown_{name}")
    try:
        mailer.execute(EFFECTS)
        mailer.execute("CREATE TABLE broken (n int)")
        text = f'[relays.out]\nurl = "{kafka.url}"\nbindings = ["orders.*"]\naddress = "{name}"\n'
        with relaying(books.url, tmp_path / "relay", text):
            definition = f'[sources.shop]\nurl = "{kafka.url}"\naddress = "{name}"\ntopic = "{{type}}"\n'
            (tmp_path / "kafka" / "shop.toml").write_text(definition)
            arguments = ["--from", "shop", "-f", "shop.toml"]
            with worker(mailer.url, tmp_path / "kafka", app, *arguments, "-p", "2") as on_kafka:
                wait_for(lambda: count(mailer) == 30, "all of Kafka")
        check_once(mailer, range(30))
        assert sorted(one[:6] for one in told(on_kafka.log)) == sorted(one[:6] for one in told(on_the_log.log))
    finally:
        mailer.close()
        newest_postgres.execute(f"DROP DATABASE outgrown_{name} WITH (FORCE)")
