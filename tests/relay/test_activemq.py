"""ActiveMQ on both ends, over STOMP: what has a receipt is settled, what is committed is acknowledged."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import stomp

from outbox import Outbox
from tests.relay.brokers import ActiveMQ
from tests.relay.running import came_in, check_ledger, publish, relaying, send_probe, wait_until_settled
from tests.relay.wire import Wire
from tests.shop_floor import Database, wait_for


def definition(url: str, name: str, *more: str) -> str:
    fields = "\n".join([f'address = "/queue/{name}"', 'longest_pause = "200ms"', 'timeout = "3s"', *more])
    return f'[relays.out]\nurl = "{url}"\nbindings = ["orders.*"]\n{fields}\n'


def source(url: str, name: str, *more: str) -> str:
    fields = "\n".join(['topic = "in.orders"', 'longest_pause = "200ms"', 'timeout = "3s"', *more])
    return f'[sources.in]\nurl = "{url}"\naddress = "/queue/{name}"\n{fields}\n'


class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # the package has no types
    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def on_message(self, frame: Any) -> None:
        self.frames.put(frame)


@contextmanager
def connected(broker: ActiveMQ) -> Iterator[tuple[Any, Listener]]:
    connection, listener = stomp.Connection12([("127.0.0.1", broker.port)]), Listener()
    connection.set_listener("test", listener)
    connection.connect(wait=True)
    try:
        yield connection, listener
    finally:
        connection.disconnect()


def drain(broker: ActiveMQ, name: str, seconds: float = 1) -> list[Any]:
    """All messages of a queue: until none comes for a while."""
    found = []
    with connected(broker) as (connection, listener):
        connection.subscribe(f"/queue/{name}", "1", "auto")
        try:
            while True:
                found.append(listener.frames.get(timeout=seconds))
        except queue.Empty:
            return found


def numbers(found: list[Any]) -> list[tuple[str, int]]:
    return [(frame.headers["outbox-id"], int(frame.body)) for frame in found]


def send(broker: ActiveMQ, name: str, bodies: range) -> None:
    with connected(broker) as (connection, _):
        for n in bodies:
            headers = {"ce_specversion": "1.0", "ce_id": str(n), "ce_source": "/shop", "ce_type": "order"}
            headers |= {"ce_partitionkey": f"k{n % 7}", "tenant": "eu", "persistent": "true"}
            connection.send(f"/queue/{name}", str(n), content_type="application/json", headers=headers)


def test_a_message_arrives_as_a_persistent_cloudevent(
    one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str
) -> None:
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", {"id": 1}, key="a:b\nc", headers={"tenant": "eu"})
    with relaying(one_database.url, tmp_path, definition(activemq.url, name)) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (frame,) = drain(activemq, name)
    wanted = {"ce_id": str(id), "ce_type": "orders.placed", "ce_subject": "a:b\nc", "ce_partitionkey": "a:b\nc"}
    wanted |= {"persistent": "true", "tenant": "eu", "content-type": "application/json"}
    assert wanted.items() <= frame.headers.items()
    assert frame.body == '{"id":1}'


def test_a_broker_that_is_absent_and_restarts_in_the_middle_loses_nothing(
    one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str
) -> None:
    activemq.kill()
    publish(one_database, "orders.placed", range(200))
    text = definition(activemq.url, name, "max_attempts = 1", "batch = 20")
    with relaying(one_database.url, tmp_path, text) as process:
        process.wait_for_line("circuit open")
        activemq.start()
        process.wait_for_line("circuit closed")
        activemq.kill()
        publish(one_database, "orders.placed", range(200, 400))
        activemq.start()
        wait_until_settled(one_database)
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(numbers(drain(activemq, name)), range(400), doubled=True)


def test_a_connection_that_is_cut_before_the_receipts_repeats_messages_under_their_ids(
    one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str, wires: Callable[[int], Wire]
) -> None:
    wire = wires(activemq.port)
    with relaying(one_database.url, tmp_path, definition(f"stomp://127.0.0.1:{wire.port}", name, "batch = 100")):
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        wire.lose_answers(2_000, 10_000)
        publish(one_database, "orders.placed", range(10, 300))
        wait_until_settled(one_database)
    assert wire.lost == 2
    check_ledger(numbers(drain(activemq, name)), range(300), doubled=True)


def test_a_slow_broker_times_out_and_nothing_is_charged(
    one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str, wires: Callable[[int], Wire]
) -> None:
    wire = wires(activemq.port)
    text = definition(f"stomp://127.0.0.1:{wire.port}", name, "max_attempts = 1")
    with relaying(one_database.url, tmp_path, text) as process:
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        wire.flowing.clear()
        publish(one_database, "orders.placed", range(10, 40))
        process.wait_for_line("no receipt within 3 s")
        wire.flowing.set()
        wait_until_settled(one_database)
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(numbers(drain(activemq, name)), range(40), doubled=True)


def test_a_message_under_which_the_connection_breaks_is_a_dead_letter_and_others_go_on(
    one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str
) -> None:
    """ActiveMQ refuses by an error that ends the connection, whatever else is on its way."""
    with one_database.connect() as connection:
        for n in range(10):
            Outbox().publish(connection, "orders.placed", "x" * 200_000 if n == 4 else n, key=str(n))
    with relaying(one_database.url, tmp_path, definition(activemq.url, name, "max_attempts = 2")):
        wait_until_settled(one_database)
    check_ledger(numbers(drain(activemq, name)), [n for n in range(10) if n != 4], keys=1, doubled=True)
    assert one_database.connect().execute("SELECT key, attempt FROM outbox.dead_letter").fetchall() == [("4", 2)]


def test_a_probe_is_delivered(one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str) -> None:
    (tmp_path / "outbox.toml").write_text(definition(activemq.url, name))
    assert send_probe(one_database.url, tmp_path, "out").returncode == 0
    assert len(drain(activemq, name)) == 1


def test_a_source_that_is_cut_off_and_killed_publishes_once(
    one_database: Database, tmp_path: Path, activemq: ActiveMQ, name: str, wires: Callable[[int], Wire]
) -> None:
    wire = wires(activemq.port)
    text = source(f"stomp://127.0.0.1:{wire.port}", name, "batch = 10")
    send(activemq, name, range(300))
    with relaying(one_database.url, tmp_path, text) as process:
        wait_for(lambda: len(came_in(one_database)) >= 20, "some of them")
        wire.cut()
        wait_for(lambda: len(came_in(one_database)) >= 60, "more of them")
        process.kill()
    with relaying(one_database.url, tmp_path, text) as process:
        wait_for(lambda: len(came_in(one_database)) >= 300, "all of them")
        send(activemq, name, range(300, 350))
        wait_for(lambda: len(came_in(one_database)) >= 350, "the others")
        assert process.stop() == 0
    assert sorted(n for _, n in came_in(one_database)) == list(range(350))
    assert drain(activemq, name) == []
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})
