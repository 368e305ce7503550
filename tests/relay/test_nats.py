"""NATS JetStream on both ends: acked messages are settled, committed ones are acked; repetitions are stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats as client

from outbox import Outbox
from tests.relay.brokers import Nats
from tests.relay.running import came_in, check_ledger, publish, relaying, send_probe, wait_until_settled
from tests.relay.wire import Wire
from tests.shop_floor import Database, wait_for


def definition(url: str, name: str, *more: str) -> str:
    fields = "\n".join([f'address = "{name}.{{key}}"', 'longest_pause = "200ms"', 'timeout = "2s"', *more])
    return f'[relays.out]\nurl = "{url}"\nbindings = ["orders.*"]\n{fields}\n'


def source(url: str, name: str, *more: str) -> str:
    fields = "\n".join(['topic = "in.orders"', 'longest_pause = "200ms"', 'timeout = "2s"', *more])
    return f'[sources.in]\nurl = "{url}"\naddress = "{name}"\n{fields}\n'


def do(broker: Nats, act: Callable[[Any], Any]) -> Any:
    """Run a coroutine function of a JetStream context."""

    async def connected() -> Any:
        connection = await client.connect(broker.url)
        try:
            return await act(connection.jetstream())
        finally:
            await connection.close()

    return asyncio.run(connected())


def create(broker: Nats, name: str, subjects: str = "*") -> None:
    do(broker, lambda jetstream: jetstream.add_stream(name=name, subjects=[f"{name}.{subjects}"]))


def stored(broker: Nats, name: str) -> list[Any]:
    """All messages of a stream, in its order."""

    async def act(jetstream: Any) -> list[Any]:
        state = (await jetstream.stream_info(name)).state
        return [await jetstream.get_msg(name, n) for n in range(state.first_seq or 1, state.last_seq + 1)]

    return list(do(broker, act))


def numbers(found: list[Any]) -> list[tuple[str, int]]:
    return [(message.headers["Nats-Msg-Id"], int(message.data)) for message in found]


def send(broker: Nats, name: str, bodies: range) -> None:
    async def act(jetstream: Any) -> None:
        for n in bodies:
            headers = {"ce-specversion": "1.0", "ce-id": str(n), "ce-source": "/shop", "ce-type": "order"}
            headers |= {"ce-partitionkey": f"k{n % 7}", "tenant": "eu", "content-type": "application/json"}
            await jetstream.publish(f"{name}.new", str(n).encode(), headers=headers)

    do(broker, act)


def test_a_message_arrives_as_a_cloudevent(one_database: Database, tmp_path: Path, nats: Nats, name: str) -> None:
    create(nats, name)
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", {"id": 1}, key="k", headers={"note": "two\nlines"})
    with relaying(one_database.url, tmp_path, definition(nats.url, name)) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (message,) = stored(nats, name)
    assert (message.subject, message.data) == (f"{name}.k", b'{"id":1}')
    assert message.headers["Nats-Msg-Id"] == f"/outbox/{one_database.name} {id}"
    assert message.headers["ce-id"] == str(id)
    assert message.headers["ce-type"] == "orders.placed"
    assert message.headers["note"] == "two%0Alines"


def test_a_broker_that_is_absent_and_restarts_in_the_middle_loses_nothing(
    one_database: Database, tmp_path: Path, nats: Nats, name: str
) -> None:
    create(nats, name)
    nats.kill()
    publish(one_database, "orders.placed", range(300))
    text = definition(nats.url, name, "max_attempts = 1", "batch = 20")
    with relaying(one_database.url, tmp_path, text) as process:
        process.wait_for_line("circuit open")
        nats.start()
        process.wait_for_line("circuit closed")
        nats.kill()
        publish(one_database, "orders.placed", range(300, 600))
        nats.start()
        wait_until_settled(one_database)
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(numbers(stored(nats, name)), range(600))  # within its window, a repetition is not stored


def test_a_broker_that_comes_back_without_its_data_parks_keys_until_its_stream_is_there_again(
    one_database: Database, tmp_path: Path, name: str, nats: Nats
) -> None:
    broker = Nats()
    try:
        create(broker, name)
        with relaying(one_database.url, tmp_path, definition(broker.url, name)) as process:
            publish(one_database, "orders.placed", range(50))
            wait_until_settled(one_database)
            broker.kill()
            broker.forget()
            publish(one_database, "orders.placed", range(50, 100))
            process.wait_for_line("circuit open")
            broker.start()
            wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.redelivery") == 50, "all parked")
            create(broker, name)
            wait_until_settled(one_database)
        check_ledger(numbers(stored(broker, name)), range(50, 100))
    finally:
        broker.remove()


def test_a_connection_that_is_cut_before_the_acks_stores_nothing_twice(
    one_database: Database, tmp_path: Path, nats: Nats, name: str, wires: Callable[[int], Wire]
) -> None:
    create(nats, name)
    wire = wires(nats.port)
    with relaying(one_database.url, tmp_path, definition(f"nats://127.0.0.1:{wire.port}", name, "batch = 100")):
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        wire.lose_answers(2_000, 10_000)
        publish(one_database, "orders.placed", range(10, 300))
        wait_until_settled(one_database)
    assert wire.lost == 2
    check_ledger(numbers(stored(nats, name)), range(300))


def test_a_subject_that_no_stream_holds_parks_its_key_and_others_go_on(
    one_database: Database, tmp_path: Path, nats: Nats, name: str
) -> None:
    create(nats, name, "k0")
    publish(one_database, "orders.placed", range(20), keys=2)
    with relaying(one_database.url, tmp_path, definition(nats.url, name)):
        wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.redelivery") == 10, "those without a stream")
        check_ledger(numbers(stored(nats, name)), range(0, 20, 2), keys=2)
        do(nats, lambda jetstream: jetstream.update_stream(name=name, subjects=[f"{name}.*"]))
        wait_until_settled(one_database)
    check_ledger(numbers(stored(nats, name)), range(20), keys=2)


def test_a_slow_broker_times_out_and_nothing_is_charged(
    one_database: Database, tmp_path: Path, nats: Nats, name: str, wires: Callable[[int], Wire]
) -> None:
    create(nats, name)
    wire = wires(nats.port)
    text = definition(f"nats://127.0.0.1:{wire.port}", name, "max_attempts = 1")
    with relaying(one_database.url, tmp_path, text) as process:
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        wire.flowing.clear()
        publish(one_database, "orders.placed", range(10, 50))
        process.wait_for_line("did not ack within 2 s")
        wire.flowing.set()
        wait_until_settled(one_database)
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(numbers(stored(nats, name)), range(50))


def test_a_probe_says_what_is_wrong(one_database: Database, tmp_path: Path, nats: Nats, name: str) -> None:
    (tmp_path / "outbox.toml").write_text(definition(nats.url, name))
    assert "no stream holds" in send_probe(one_database.url, tmp_path, "out").stderr
    create(nats, name)
    assert send_probe(one_database.url, tmp_path, "out").returncode == 0


def test_a_source_that_is_cut_off_and_killed_publishes_once(
    one_database: Database, tmp_path: Path, nats: Nats, name: str, wires: Callable[[int], Wire]
) -> None:
    create(nats, name)
    wire = wires(nats.port)
    text = source(f"nats://127.0.0.1:{wire.port}", name, "batch = 10")
    send(nats, name, range(300))
    with relaying(one_database.url, tmp_path, text) as process:
        wait_for(lambda: len(came_in(one_database)) >= 20, "some of them")
        wire.cut()
        wait_for(lambda: len(came_in(one_database)) >= 60, "more of them")
        process.kill()
    # what the killed one had taken comes again when its consumer's ack_wait is over: 30 s
    with relaying(one_database.url, tmp_path, text) as process:
        send(nats, name, range(300, 350))
        wait_for(lambda: len(came_in(one_database)) >= 350, "all of them", 80)
        assert process.stop() == 0
    assert sorted(n for _, n in came_in(one_database)) == list(range(350))
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})
