"""Kafka on both ends: an idempotent producer, and offsets that move in the transaction that publishes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import NoneType

import pytest
from confluent_kafka import KafkaError

from outbox import Outbox
from outbox.chunks import Deferred
from outbox.cli.relay import probe
from outbox.definitions import Relay
from outbox.model import Message, Reject, Retry
from outbox.relay.kafka import Topic
from outbox.relay.target import Outcome, Unavailable
from tests.relay.mocked import PRODUCE
from tests.relay.peers import KafkaPeer, MockPeer
from tests.relay.running import came_in, check_ledger, publish, relaying, wait_until_settled
from tests.shop_floor import Database, at_rest, wait_for

PEER = "librdkafka"
on_tansu = pytest.mark.parametrize("peer", ["kafka"], indirect=True)


@on_tansu
def test_messages_arrive_as_cloudevents_in_the_order_of_their_keys(
    one_database: Database, tmp_path: Path, peer: KafkaPeer
) -> None:
    peer.create()
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 3)")
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", {"id": 1}, key="k", headers={"tenant": "eu"})
    with relaying(one_database.url, tmp_path, peer.relay()) as process:
        wait_until_settled(one_database)
        (record,) = peer.drain()
        headers = {name: value.decode() for name, value in record.headers()}
        wanted = {"ce_id": str(id), "ce_type": "orders.placed", "content-type": "application/json", "tenant": "eu"}
        assert wanted.items() <= headers.items()
        assert (record.key(), record.value()) == (b"k", b'{"id":1}')
        publish(one_database, "orders.placed", range(2000))
        wait_until_settled(one_database)
        assert process.stop() == 0
    found = [record for record in peer.drain() if record.value() != b'{"id":1}']
    check_ledger(peer.numbers(found), range(2000))
    assert len({(record.key(), record.partition()) for record in found}) == 7


def test_a_message_that_is_too_large_is_a_dead_letter_and_others_go_on(
    one_database: Database, tmp_path: Path, peer: MockPeer
) -> None:
    with one_database.connect() as connection:
        Outbox().publish(connection, "orders.placed", "x" * 1_000_500, key="k0")
    publish(one_database, "orders.placed", range(50))
    with relaying(one_database.url, tmp_path, peer.relay()):
        wait_until_settled(one_database)
    check_ledger(peer.arrived(), range(50))
    assert one_database.value("SELECT errors -> -1 ->> 'text' FROM outbox.dead_letter").startswith("Kafka can't store")


#: What a broker answers to a batch, how often, and what that says of its messages.
ANSWERS: list[tuple[int, int, type[Exception] | None]] = [
    (KafkaError.NOT_ENOUGH_REPLICAS, 3, None),  # librdkafka asks again
    (KafkaError.NOT_LEADER_FOR_PARTITION, 2, None),
    (KafkaError.REQUEST_TIMED_OUT, 2, None),
    (KafkaError.TOPIC_AUTHORIZATION_FAILED, 1, Retry),
    (KafkaError.POLICY_VIOLATION, 1, Retry),
    (KafkaError.CLUSTER_AUTHORIZATION_FAILED, 1, Unavailable),
    (KafkaError.INVALID_PRODUCER_EPOCH, 1, Unavailable),
]


def deliver(peer: MockPeer, *rounds: list[Message]) -> list[list[Outcome]]:
    """By one target, one round after the other."""

    async def play() -> list[list[Outcome]]:
        topic = Topic("out", Relay(url=peer.url, bindings=("a",), address=peer.name), "/s")
        try:
            return [await topic.deliver(messages) for messages in rounds]
        finally:
            await topic.close()

    return asyncio.run(play())


def messages(count: int) -> list[Message]:
    """With ids of their own."""
    return [probe("orders.placed", str(n)) for n in range(count)]


@pytest.mark.parametrize(("error", "times", "said"), ANSWERS)
def test_what_a_broker_answers_says_what_becomes_of_the_messages(
    peer: MockPeer, error: int, times: int, said: type[Exception] | None
) -> None:
    peer.create(partitions=1)
    wanted = messages(20)
    with peer.server.answering(PRODUCE, *[error] * times):
        first, again = deliver(peer, wanted, wanted)
    assert {type(outcome) for outcome in first} <= {NoneType if said is None else said, Deferred, Unavailable}
    assert said is None or isinstance(first[0], said)
    assert said is not None or first == [None] * 20
    assert [outcome for outcome in again if outcome is not None] == [] or said is Retry
    check_ledger(peer.arrived(), range(20), keys=1, doubled=True)


@pytest.mark.parametrize(("error", "times"), [(KafkaError.MSG_SIZE_TOO_LARGE, 7), (KafkaError.INVALID_RECORD, 2)])
def test_a_batch_that_a_broker_refuses_is_halved_until_it_is_known_for_whom(
    peer: MockPeer, error: int, times: int
) -> None:
    """Each of its answers is to one batch; if the last is to a single message, that one can never be stored."""
    peer.create(partitions=1)
    with peer.server.answering(PRODUCE, *[error] * times):
        (outcomes,) = deliver(peer, messages(40))
    rejected = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Reject)]
    assert [outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, Reject)] == []
    assert len(rejected) <= times // 6 + 1
    check_ledger(peer.arrived(), [n for n in range(40) if n not in rejected], keys=1)


def test_a_pattern_that_kafka_can_t_read_opens_the_circuit_and_ends_nothing(
    one_database: Database, tmp_path: Path, peer: MockPeer
) -> None:
    with relaying(one_database.url, tmp_path, peer.source().replace(peer.name, "^(")) as process:
        process.wait_for_line("source's circuit open")
        assert process.stop() == 0


def test_a_source_publishes_a_topic_exactly_once_though_it_is_killed_again_and_again(
    one_database: Database, tmp_path: Path, peer: MockPeer
) -> None:
    """There are no idempotency keys here: only the offsets, which move with what is published."""
    peer.send(range(300))
    for wanted in 50, 120, 200:  # each with a group of its own: none waits until Kafka has forgotten the one before
        with relaying(one_database.url, tmp_path, peer.source("batch = 7", f'group = "{wanted}"')) as process:
            wait_for(lambda wanted=wanted: len(came_in(one_database)) >= wanted, f"{wanted} of them")  # type: ignore[misc]
            process.kill()
    with relaying(one_database.url, tmp_path, peer.source("batch = 7")) as process:
        peer.send(range(300, 600))
        wait_for(lambda: len(came_in(one_database)) >= 600, "all of them")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(600))
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})


def test_two_sources_share_a_topic_and_publish_it_once(one_database: Database, tmp_path: Path, peer: MockPeer) -> None:
    peer.send(range(400))
    text = peer.source("batch = 20")
    (tmp_path / "b").mkdir()
    with relaying(one_database.url, tmp_path, text) as first:
        wait_for(lambda: came_in(one_database), "the first")
        with relaying(one_database.url, tmp_path / "b", text) as second:
            peer.send(range(400, 1200))
            wait_for(lambda: len(came_in(one_database)) >= 1200, "all of them")
            first.kill()
            peer.send(range(1200, 1500))
            wait_for(lambda: len(came_in(one_database)) >= 1500, "the rest")
            assert second.stop() == 0
    check_ledger(came_in(one_database), range(1500))


@on_tansu
def test_what_goes_out_to_kafka_comes_back_in_once(one_database: Database, tmp_path: Path, peer: KafkaPeer) -> None:
    """On a real broker: a round trip, with the ids that relays give."""
    peer.create()
    publish(one_database, "orders.placed", range(200))
    text = peer.relay() + peer.source()
    with relaying(one_database.url, tmp_path, text) as process:
        came = "SELECT count(*) FROM outbox.history WHERE topic = 'in.orders'"
        wait_for(lambda: one_database.value(came) == 200, "all of them")
        wait_for(lambda: at_rest(one_database), "all settled")
        assert process.stop() == 0
    assert one_database.value(f"{came} AND key IS NOT NULL") == 200
