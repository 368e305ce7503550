"""RabbitMQ on both ends: what is confirmed is settled, what is committed is acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aio_pika

from outbox import Outbox
from tests.relay.peers import RabbitPeer
from tests.relay.running import came_in, check_ledger, publish, relaying, send_probe, wait_until_settled
from tests.shop_floor import Database, at_rest, wait_for

PEER = "rabbitmq"


def test_a_message_arrives_as_a_persistent_cloudevent(one_database: Database, tmp_path: Path, peer: RabbitPeer) -> None:
    peer.create()
    with one_database.connect() as connection:
        id = Outbox().publish(
            connection, "orders.placed", {"id": 1}, key="k", headers={"traceparent": "00-a-b-01", "tenant": "eu"}
        )
    with relaying(one_database.url, tmp_path, peer.relay()) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (message,) = peer.drain()
    assert (message.body, message.content_type, message.message_id) == (b'{"id":1}', "application/json", str(id))
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert message.headers["tenant"] == "eu"
    assert message.headers["traceparent"] == "00-a-b-01"
    wanted = {"specversion": "1.0", "id": str(id), "type": "orders.placed", "partitionkey": "k"}
    assert wanted.items() <= {n.removeprefix("cloudEvents_"): v for n, v in message.headers.items()}.items()


def test_a_message_that_is_refused_parks_its_key_and_others_go_on(
    one_database: Database, tmp_path: Path, peer: RabbitPeer
) -> None:
    peer.create(f"{peer.name}.k0", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    peer.create(f"{peer.name}.k1")
    publish(one_database, "orders.placed", range(20), keys=2)
    with relaying(one_database.url, tmp_path, peer.relay(address=f"{peer.name}.{{key}}")):
        wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.redelivery") == 8, "what the queue refuses")
        others = peer.numbers(peer.drain(f"{peer.name}.k1"))
        found: list[Any] = []

        def rest() -> bool:
            found.extend(peer.drain(f"{peer.name}.k0"))
            return at_rest(one_database)

        wait_for(rest, "all of them")
        found.extend(peer.drain(f"{peer.name}.k0"))
    check_ledger(others, range(1, 20, 2), keys=2)
    check_ledger(peer.numbers(found), range(0, 20, 2), keys=2)


def test_a_message_that_amqp_can_t_carry_is_a_dead_letter_and_others_go_on(
    one_database: Database, tmp_path: Path, peer: RabbitPeer
) -> None:
    peer.create()
    with one_database.connect() as connection:
        Outbox().publish(connection, "orders.placed", b"99", key="k0", headers={"content-type": "x/" + "y" * 300})
    publish(one_database, "orders.placed", range(20))
    with relaying(one_database.url, tmp_path, peer.relay()) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
        assert "circuit open" not in process.log
    check_ledger(peer.arrived(), range(20))
    assert "AMQP allows" in one_database.value("SELECT errors -> -1 ->> 'text' FROM outbox.dead_letter")


def test_a_probe_says_what_is_wrong(one_database: Database, tmp_path: Path, peer: RabbitPeer) -> None:
    (tmp_path / "outbox.toml").write_text(peer.relay())
    assert "no queue is bound" in send_probe(one_database.url, tmp_path, "out").stderr
    peer.create()
    assert send_probe(one_database.url, tmp_path, "out").returncode == 0
    (tmp_path / "outbox.toml").write_text(peer.relay('exchange = "nowhere"'))
    assert "nowhere" in send_probe(one_database.url, tmp_path, "out").stderr
    more = ('user = "guest"', f'password = {{ file = "{tmp_path}/password" }}')
    (tmp_path / "password").write_text("hush\n")
    (tmp_path / "outbox.toml").write_text(peer.relay(*more))
    refused = send_probe(one_database.url, tmp_path, "out").stderr
    assert "can't connect to RabbitMQ" in refused
    assert "hush" not in refused


def test_a_source_publishes_what_a_queue_holds_and_acknowledges_it(
    one_database: Database, tmp_path: Path, peer: RabbitPeer
) -> None:
    peer.create()
    peer.send(range(300))
    peer.send(range(100))  # sent again by somebody who did not know
    with relaying(one_database.url, tmp_path, peer.source()) as process:
        wait_for(lambda: len(came_in(one_database)) == 300, "all of them")
        wait_for(lambda: peer.queued() == 0, "all acknowledged")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(300))
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})
    assert peer.drain() == []


def test_a_message_that_can_t_be_published_goes_to_the_dead_letter_exchange_and_others_go_on(
    one_database: Database, tmp_path: Path, peer: RabbitPeer
) -> None:
    peer.create(f"{peer.name}.dead")
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{peer.name}.dead"}
    peer.create(peer.name, **dead)
    peer.send(range(10))

    async def too_large(channel: Any) -> None:
        await channel.default_exchange.publish(aio_pika.Message(b"x" * 1_100_000), peer.name)

    peer.do(too_large)
    with relaying(one_database.url, tmp_path, peer.source()) as process:
        wait_for(lambda: peer.queued(f"{peer.name}.dead") == 1, "the dead letter")
        wait_for(lambda: len(came_in(one_database)) == 10, "the others")
        assert process.stop() == 0
    assert "circuit open" not in process.log
    assert peer.drain() == []


def test_a_source_whose_queue_was_deleted_says_so_and_goes_on_when_it_is_there_again(
    one_database: Database, tmp_path: Path, peer: RabbitPeer
) -> None:
    peer.create()
    peer.send(range(10))
    with relaying(one_database.url, tmp_path, peer.source()) as process:
        wait_for(lambda: len(came_in(one_database)) == 10, "the first")

        async def delete(channel: Any) -> None:
            await channel.queue_delete(peer.name)

        peer.do(delete)
        process.wait_for_line("circuit open")
        peer.create()
        peer.send(range(10, 20))
        wait_for(lambda: len(came_in(one_database)) == 20, "the rest")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(20))


def test_a_source_whose_database_is_away_loses_nothing(
    own_postgres: Database, tmp_path: Path, peer: RabbitPeer
) -> None:
    peer.create()
    with relaying(own_postgres.url, tmp_path, peer.source()) as process:
        peer.send(range(50))
        wait_for(lambda: len(came_in(own_postgres)) == 50, "the first")
        own_postgres.close()
        own_postgres.postgres.stop()
        peer.send(range(50, 100))
        process.wait_for_line("source can't publish")
        own_postgres.postgres.start()
        wait_for(lambda: len(came_in(own_postgres)) == 100, "the others")
        assert process.stop() == 0
    check_ledger(came_in(own_postgres), range(100))
