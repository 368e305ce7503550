"""RabbitMQ on both ends: what is confirmed is settled, what is committed is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aio_pika

from outbox import Outbox
from tests.relay.brokers import RabbitMQ
from tests.relay.running import came_in, check_ledger, publish, relaying, send_probe, settled, wait_until_settled
from tests.relay.wire import Wire
from tests.shop_floor import Database, wait_for


def definition(url: str, name: str, *more: str) -> str:
    fields = "\n".join([f'address = "{name}"', 'longest_pause = "200ms"', *more])
    return f'[relays.out]\nurl = "{url}"\nbindings = ["orders.*"]\n{fields}\n'


def source(url: str, name: str, *more: str) -> str:
    fields = "\n".join(['topic = "in.orders"', 'longest_pause = "200ms"', *more])
    return f'[sources.in]\nurl = "{url}"\naddress = "{name}"\n{fields}\n'


def do(broker: RabbitMQ, act: Callable[[Any], Any]) -> Any:
    """Run a coroutine function of a channel."""

    async def connected() -> Any:
        connection = await aio_pika.connect(broker.url)
        async with connection:
            return await act(await connection.channel())

    return asyncio.run(connected())


def declare(broker: RabbitMQ, name: str, **arguments: Any) -> None:
    async def act(channel: Any) -> None:
        await channel.declare_queue(name, durable=True, arguments=arguments)

    do(broker, act)


def drain(broker: RabbitMQ, name: str) -> list[Any]:
    """All messages of a queue."""

    async def act(channel: Any) -> list[Any]:
        queue = await channel.get_queue(name)
        found = []
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append(message)
        return found

    return list(do(broker, act))


def numbers(found: list[Any]) -> list[tuple[str, int]]:
    return [(message.message_id, int(message.body)) for message in found]


def send(broker: RabbitMQ, name: str, bodies: range) -> None:
    async def act(channel: Any) -> None:
        for n in bodies:
            headers = {"cloudEvents_specversion": "1.0", "cloudEvents_id": f"{n}", "cloudEvents_source": "/shop"}
            headers |= {"cloudEvents_type": "order", "cloudEvents_partitionkey": f"k{n % 7}", "tenant": "eu"}
            message = aio_pika.Message(
                str(n).encode(),
                content_type="application/json",
                headers=dict(headers),
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            )
            await channel.default_exchange.publish(message, name)

    do(broker, act)


def test_a_message_arrives_as_a_persistent_cloudevent(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, name)
    with one_database.connect() as connection:
        id = Outbox().publish(
            connection, "orders.placed", {"id": 1}, key="k", headers={"traceparent": "00-a-b-01", "tenant": "eu"}
        )
    with relaying(one_database.url, tmp_path, definition(rabbitmq.url, name)) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (message,) = drain(rabbitmq, name)
    assert (message.body, message.content_type, message.message_id) == (b'{"id":1}', "application/json", str(id))
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.headers["tenant"] == "eu"
    assert message.headers["traceparent"] == "00-a-b-01"
    wanted = {"specversion": "1.0", "id": str(id), "type": "orders.placed", "partitionkey": "k"}
    assert wanted.items() <= {n.removeprefix("cloudEvents_"): v for n, v in message.headers.items()}.items()


def test_a_broker_that_restarts_in_the_middle_loses_nothing(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, name)
    rabbitmq.kill()
    publish(one_database, "orders.placed", range(500))
    with relaying(
        one_database.url, tmp_path, definition(rabbitmq.url, name, "max_attempts = 1", "batch = 20")
    ) as process:
        process.wait_for_line("circuit open")
        rabbitmq.start()
        process.wait_for_line("circuit closed")
        rabbitmq.kill()
        publish(one_database, "orders.placed", range(500, 900))
        rabbitmq.start()
        wait_until_settled(one_database)
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(numbers(drain(rabbitmq, name)), range(900), doubled=True)


def test_a_connection_that_is_cut_before_the_confirms_repeats_messages_under_their_ids(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str, wires: Callable[[int], Wire]
) -> None:
    declare(rabbitmq, name)
    wire = wires(rabbitmq.port)
    text = definition(f"amqp://127.0.0.1:{wire.port}", name, "batch = 100")
    with relaying(one_database.url, tmp_path, text):
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        wire.lose_answers(2_000, 20_000, 60_000)
        publish(one_database, "orders.placed", range(10, 500), keys=7)
        wait_until_settled(one_database)
    assert wire.lost == 3
    found = numbers(drain(rabbitmq, name))
    check_ledger(found, range(500), doubled=True)
    assert 500 < len(found) < 900  # a wave for each cut, at most


def test_an_unroutable_message_parks_its_key_until_a_queue_is_bound(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    for key in "k0", "k1":
        declare(rabbitmq, f"{name}.{key}")
    publish(one_database, "orders.placed", range(30), keys=3)
    with relaying(one_database.url, tmp_path, definition(rabbitmq.url, f"{name}.{{key}}")) as process:
        retrying = "SELECT count(*) FROM outbox.redelivery r WHERE r.lease_id IS NULL AND r.due_at < 'infinity'"
        wait_for(lambda: one_database.value(retrying) == 1, "the message that nobody wants")
        wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.redelivery") == 10, "those behind it")
        declare(rabbitmq, f"{name}.k2")
        wait_until_settled(one_database)
        assert process.stop() == 0
    for n in range(3):
        check_ledger(numbers(drain(rabbitmq, f"{name}.k{n}")), range(n, 30, 3), keys=3)


def test_a_message_that_is_refused_parks_its_key_and_others_go_on(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, f"{name}.k0", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    declare(rabbitmq, f"{name}.k1")
    publish(one_database, "orders.placed", range(20), keys=2)
    with relaying(one_database.url, tmp_path, definition(rabbitmq.url, f"{name}.{{key}}")):
        wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.redelivery") == 8, "what the queue refuses")
        others = numbers(drain(rabbitmq, f"{name}.k1"))
        found: list[Any] = []

        def rest() -> bool:
            found.extend(drain(rabbitmq, f"{name}.k0"))
            return settled(one_database)

        wait_for(rest, "all of them", 60)
        found.extend(drain(rabbitmq, f"{name}.k0"))
    check_ledger(others, range(1, 20, 2), keys=2)
    check_ledger(numbers(found), range(0, 20, 2), keys=2)


def test_a_message_that_amqp_can_t_carry_is_a_dead_letter_and_others_go_on(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, name)
    with one_database.connect() as connection:
        Outbox().publish(connection, "orders.placed", b"99", key="k0", headers={"content-type": "x/" + "y" * 300})
    publish(one_database, "orders.placed", range(20))
    with relaying(one_database.url, tmp_path, definition(rabbitmq.url, name)) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
        assert "circuit open" not in process.log
    check_ledger(numbers(drain(rabbitmq, name)), range(20))
    assert "AMQP allows" in one_database.value("SELECT errors -> -1 ->> 'text' FROM outbox.dead_letter")


def test_a_probe_says_what_is_wrong(one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str) -> None:
    (tmp_path / "outbox.toml").write_text(definition(rabbitmq.url, name))
    assert "no queue is bound" in send_probe(one_database.url, tmp_path, "out").stderr
    declare(rabbitmq, name)
    assert send_probe(one_database.url, tmp_path, "out").returncode == 0
    (tmp_path / "outbox.toml").write_text(definition(rabbitmq.url, name, 'exchange = "nowhere"'))
    assert "nowhere" in send_probe(one_database.url, tmp_path, "out").stderr
    more = ('user = "guest"', f'password = {{ file = "{tmp_path}/password" }}')
    (tmp_path / "password").write_text("hush\n")
    (tmp_path / "outbox.toml").write_text(definition(rabbitmq.url, name, *more))
    refused = send_probe(one_database.url, tmp_path, "out").stderr
    assert "can't connect to RabbitMQ" in refused
    assert "hush" not in refused


def test_a_source_publishes_what_a_queue_holds_and_acknowledges_it(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, name)
    send(rabbitmq, name, range(300))
    send(rabbitmq, name, range(100))  # sent again by somebody who did not know
    with relaying(one_database.url, tmp_path, source(rabbitmq.url, name)) as process:
        wait_for(lambda: len(came_in(one_database)) == 300, "all of them")
        wait_for(lambda: queued(rabbitmq, name) == 0, "all acknowledged")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(300))
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})
    assert drain(rabbitmq, name) == []


def test_a_message_that_can_t_be_published_goes_to_the_dead_letter_exchange_and_others_go_on(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, f"{name}.dead")
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}.dead"}
    declare(rabbitmq, name, **dead)
    send(rabbitmq, name, range(10))

    async def too_large(channel: Any) -> None:
        await channel.default_exchange.publish(aio_pika.Message(b"x" * 1_100_000), name)

    do(rabbitmq, too_large)
    with relaying(one_database.url, tmp_path, source(rabbitmq.url, name)) as process:
        wait_for(lambda: queued(rabbitmq, f"{name}.dead") == 1, "the dead letter")
        wait_for(lambda: len(came_in(one_database)) == 10, "the others")
        assert process.stop() == 0
    assert "circuit open" not in process.log
    assert drain(rabbitmq, name) == []


def queued(broker: RabbitMQ, name: str) -> int:
    async def act(channel: Any) -> int:
        queue = await channel.get_queue(name)
        return int(queue.declaration_result.message_count)

    return int(do(broker, act))


def test_a_source_that_is_cut_off_and_killed_publishes_once(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str, wires: Callable[[int], Wire]
) -> None:
    declare(rabbitmq, name)
    wire = wires(rabbitmq.port)
    text = source(f"amqp://127.0.0.1:{wire.port}", name, "batch = 10")
    send(rabbitmq, name, range(400))
    with relaying(one_database.url, tmp_path, text) as process:
        wait_for(lambda: len(came_in(one_database)) >= 20, "some of them")
        wire.cut()
        wait_for(lambda: len(came_in(one_database)) >= 100, "more of them")
        process.kill()
    with relaying(one_database.url, tmp_path, text) as process:
        wait_for(lambda: len(came_in(one_database)) >= 400, "all of them")
        send(rabbitmq, name, range(400, 500))
        rabbitmq.kill()
        rabbitmq.start()
        wait_for(lambda: len(came_in(one_database)) >= 500, "what a restart has kept")
        assert process.stop() == 0
    assert {n for _, n in came_in(one_database)} == set(range(500))
    assert len(came_in(one_database)) == 500


def test_a_source_whose_queue_was_deleted_says_so_and_goes_on_when_it_is_there_again(
    one_database: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, name)
    send(rabbitmq, name, range(10))
    with relaying(one_database.url, tmp_path, source(rabbitmq.url, name)) as process:
        wait_for(lambda: len(came_in(one_database)) == 10, "the first")

        async def delete(channel: Any) -> None:
            await channel.queue_delete(name)

        do(rabbitmq, delete)
        process.wait_for_line("circuit open")
        declare(rabbitmq, name)
        send(rabbitmq, name, range(10, 20))
        wait_for(lambda: len(came_in(one_database)) == 20, "the rest")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(20))


def test_a_source_whose_database_is_away_loses_nothing(
    own_postgres: Database, tmp_path: Path, rabbitmq: RabbitMQ, name: str
) -> None:
    declare(rabbitmq, name)
    with relaying(own_postgres.url, tmp_path, source(rabbitmq.url, name)) as process:
        send(rabbitmq, name, range(50))
        wait_for(lambda: len(came_in(own_postgres)) == 50, "the first")
        own_postgres.close()
        own_postgres.postgres.stop()
        send(rabbitmq, name, range(50, 100))
        process.wait_for_line("source can't publish")
        own_postgres.postgres.start()
        wait_for(lambda: len(came_in(own_postgres)) == 100, "the others")
        assert process.stop() == 0
    check_ledger(came_in(own_postgres), range(100))
