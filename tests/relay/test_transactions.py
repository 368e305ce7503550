"""A transaction a batch: seen whole or not at all, nothing of whoever was taken for dead; what Kafka's answers mean."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from outbox.chunks import Deferred
from outbox.definitions import Relay
from outbox.model import Batch, Message, Reject, Retry
from outbox.relay.producers import Producers
from outbox.relay.target import Outcome, Unavailable
from outbox.relay.transactions import Transactions
from tests.relay.peers import KafkaPeer, MockPeer, servers
from tests.relay.running import check_ledger, publish, relaying, send_probe, wait_until_settled
from tests.relay.test_kafka import messages
from tests.relay.transactional import (
    ADD_PARTITIONS,
    END_TRANSACTION,
    FIND_COORDINATOR,
    INIT_PRODUCER,
    PRODUCE,
    TransactionalBroker,
)
from tests.shop_floor import UNREAD, Database, wait_for

PEER = "librdkafka"


@pytest.fixture
def broker() -> Iterator[TransactionalBroker]:
    one = TransactionalBroker()
    try:
        yield one
    finally:
        one.close()


def seen(url: str, topic: str, isolation: str = "read_committed") -> list[tuple[str, int]]:
    """The id and number of all that such a reader sees, partition by partition."""
    settings = {"group.id": "seen", "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 20}
    consumer = Consumer(servers(url) | settings | {"isolation.level": isolation})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in partitions])
        found, ended = list[Any](), set[int | None]()

        def is_read() -> bool:
            for record in consumer.consume(1000, 0.05):
                error = record.error()
                if error is None:
                    found.append(record)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(record.partition())
            return len(ended) == len(partitions)

        wait_for(is_read, f"the end of {topic}")
        return [(dict(record.headers())["ce_id"].decode(), int(record.value())) for record in found]
    finally:
        consumer.close()


def deliver(
    url: str,
    *rounds: list[Message],
    address: str = "t",
    seconds: float = 3,
    producers: Producers | None = None,
) -> list[list[Outcome]]:
    """By one target, one round after the other."""

    async def play() -> list[list[Outcome]]:
        timeout = timedelta(seconds=seconds)
        relay = Relay(url=url, bindings=("a",), address=address, transactional=True, timeout=timeout)
        target = Transactions("out", relay, "/s", producers)
        try:
            return [await target.deliver(messages) for messages in rounds]
        finally:
            await target.close()

    return asyncio.run(play())


def definitions(url: str, *more: str) -> str:
    lines = "\n".join(['address = "t"', "transactional = true", 'longest_pause = "200ms"', 'timeout = "3s"', *more])
    return f'[relays.out]\nurl = "{url}"\nbindings = ["orders.*"]\n{lines}\n'


#: A fault, and whether all is delivered in the same round all the same: the client asks again by itself.
FAULTS: list[tuple[int, list[int | str], bool]] = [
    (PRODUCE, ["cut"], False),
    (PRODUCE, ["lost"], False),
    (PRODUCE, [KafkaError.NOT_ENOUGH_REPLICAS] * 2, True),
    (PRODUCE, ["", KafkaError.KAFKA_STORAGE_ERROR], True),
    (PRODUCE, [KafkaError.INVALID_REQUIRED_ACKS], False),
    (PRODUCE, [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER], False),
    (PRODUCE, [KafkaError.UNKNOWN_PRODUCER_ID], False),
    (PRODUCE, [KafkaError.INVALID_PRODUCER_EPOCH], False),
    (ADD_PARTITIONS, ["lost"], True),
    (ADD_PARTITIONS, [KafkaError.CONCURRENT_TRANSACTIONS] * 2, True),
    (ADD_PARTITIONS, [KafkaError.INVALID_TXN_STATE], False),
    (ADD_PARTITIONS, [KafkaError.INVALID_PRODUCER_EPOCH], False),
    (ADD_PARTITIONS, [KafkaError.TOPIC_AUTHORIZATION_FAILED], False),
    (ADD_PARTITIONS, [KafkaError.INVALID_PRODUCER_ID_MAPPING], False),
    (END_TRANSACTION, ["cut"], True),
    (END_TRANSACTION, ["lost"], True),
    (END_TRANSACTION, [KafkaError.COORDINATOR_NOT_AVAILABLE] * 2, True),
    (END_TRANSACTION, [KafkaError.INVALID_TXN_STATE], False),
    (END_TRANSACTION, [KafkaError.INVALID_PRODUCER_EPOCH], False),
    (INIT_PRODUCER, ["lost"], True),
    (INIT_PRODUCER, [KafkaError.CONCURRENT_TRANSACTIONS], True),
    (INIT_PRODUCER, [KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED], False),
    (FIND_COORDINATOR, [KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED], False),
]


@pytest.mark.parametrize(("asked", "faults", "is_mended"), FAULTS)
def test_after_any_fault_a_batch_is_there_once(
    broker: TransactionalBroker, asked: int, faults: list[int | str], is_mended: bool
) -> None:
    """For who reads what is committed; the next round is what a relay's circuit does."""
    wanted = messages(20)
    with broker.failing(asked, *faults):
        first, again = deliver(broker.url, wanted, [] if is_mended else wanted)
    if is_mended:
        assert first == [None] * 20
    else:
        assert {type(outcome) for outcome in first} <= {Unavailable, Retry}
        assert again == [None] * 20
    check_ledger(seen(broker.url, "t"), range(20), keys=1)


def test_a_commit_that_nobody_hears_of_repeats_the_batch_under_its_ids(broker: TransactionalBroker) -> None:
    """The one window in which a batch comes twice though nobody died: it is committed, and no answer comes in time."""
    wanted = messages(20)
    with broker.failing(END_TRANSACTION, *["lost"] * 1000):
        ((first, *_),) = deliver(broker.url, wanted, seconds=1)
    assert "not known whether a transaction was committed" in str(first)
    assert deliver(broker.url, wanted) == [[None] * 20]
    assert len(seen(broker.url, "t")) == 40
    check_ledger(seen(broker.url, "t"), range(20), keys=1, doubled=True)


def test_a_batch_with_a_message_that_kafka_can_t_store_is_halved_until_it_is_known_which(
    broker: TransactionalBroker,
) -> None:
    broker.poison = b"\x0417"  # the length of the value, and the value
    (outcomes,) = deliver(broker.url, messages(40))
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Reject)] == [17]
    assert [outcome for outcome in outcomes if outcome is not None] == [outcomes[17]]
    check_ledger(seen(broker.url, "t"), [n for n in range(40) if n != 17], keys=1)


def test_messages_of_a_topic_that_refuses_them_wait_and_the_others_are_committed(broker: TransactionalBroker) -> None:
    broker.refused.add("t.k3")
    wanted = [keyed(n, f"k{n % 7}") for n in range(28)]
    (outcomes,) = deliver(broker.url, wanted, address="t.{key}")
    refused = [outcomes[n] for n in range(28) if n % 7 == 3]
    assert {type(outcome) for outcome in refused} <= {Retry, Deferred}
    assert isinstance(refused[0], Retry)
    assert [outcomes[n] for n in range(28) if n % 7 != 3] == [None] * 24
    for key in range(7):
        there = [] if key == 3 else range(key, 28, 7)
        check_ledger(seen(broker.url, f"t.k{key}"), there)


def keyed(number: int, key: str) -> Message:
    (one,) = messages(1)
    return Message(one.batch, one.offset + number, one._published_at, key, one._headers, str(number).encode(), None)


class Books(Producers):
    """What the database says: each look at the leases, and the dead."""

    def __init__(self, *looks: dict[int, int], dead: tuple[str, ...] = ()) -> None:
        self._looks, self._dead = list(looks), list(dead)
        self.opened: list[str] = []

    async def holders(self, leases: Iterable[int]) -> dict[int, int]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    async def open(self, id: str, worker: int) -> bool:
        self.opened.append(id)
        return worker > 0

    async def dead(self) -> list[str]:
        return list(self._dead)

    async def close(self, id: str) -> None:
        self._dead.remove(id)


def leased(number: int, lease: int, redelivered: bool = False) -> Message:
    (one,) = messages(1)
    batch = Batch(lease, 1, redelivered, one.topic, 0, 0, 1, 0)
    return Message(batch, number + 1, one._published_at, "k", None, str(number).encode(), None)


def test_what_is_in_other_hands_by_now_is_not_sent(broker: TransactionalBroker) -> None:
    wanted = [leased(n, lease=1 + n // 10) for n in range(30)]
    books = Books({1: 7, 2: 7, 3: 7}, {1: 7, 3: 7})  # the second was lost while the producer began
    (outcomes,) = deliver(broker.url, wanted, producers=books)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Deferred)] == list(range(10, 20))
    check_ledger(seen(broker.url, "t"), [*range(10), *range(20, 30)], keys=1)
    for lost in Books({}), Books({1: 0}):  # before it began; and its worker was found dead just then
        (outcomes,) = deliver(broker.url, wanted[:10], producers=lost)
        assert {type(outcome) for outcome in outcomes} == {Deferred}


def test_a_worker_that_registers_anew_sends_under_another_id(broker: TransactionalBroker) -> None:
    """So that whoever fences what it was does not meet what it is."""
    books = Books({1: 7}, {1: 7}, {1: 7}, {2: 8})
    rounds = [[leased(0, 1)], [leased(1, 1)], [leased(2, 2)]]
    assert deliver(broker.url, *rounds, producers=books) == [[None], [None], [None]]
    assert broker.ids == books.opened
    assert len(set(books.opened)) == 2


def test_what_the_dead_may_have_had_in_hand_is_not_sent_before_they_are_fenced(broker: TransactionalBroker) -> None:
    books = Books({1: 7}, dead=("outbox-out-dead",))
    refusal = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    again = [leased(0, 1, redelivered=True)]
    with broker.failing(INIT_PRODUCER, "", refusal):
        refused, done = deliver(broker.url, again, again, producers=books)
    assert isinstance(refused[0], Unavailable)
    assert done == [None]
    assert broker.ids == [books.opened[0], "outbox-out-dead"]
    check_ledger(seen(broker.url, "t"), range(1), keys=1)


def test_a_batch_is_seen_whole_when_its_transaction_is_committed(
    one_database: Database, tmp_path: Path, broker: TransactionalBroker
) -> None:
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 1)")
    publish(one_database, "orders.placed", range(60))
    event = threading.Event()
    with (
        broker.failing(END_TRANSACTION, event, *[""] * 1000),
        relaying(one_database.url, tmp_path, definitions(broker.url)) as process,
    ):
        wait_for(lambda: broker.asked[END_TRANSACTION], "all sent, and a commit under way")
        check_ledger(seen(broker.url, "t", "read_uncommitted"), range(60))
        assert seen(broker.url, "t") == []
        event.set()
        wait_until_settled(one_database)
        assert broker.asked[END_TRANSACTION] == 1
        assert process.stop() == 0
    check_ledger(seen(broker.url, "t"), range(60))


def test_a_batch_that_failed_in_the_middle_is_tried_again_whole(
    one_database: Database, tmp_path: Path, broker: TransactionalBroker
) -> None:
    publish(one_database, "orders.placed", range(300))
    errors = KafkaError.INVALID_REQUIRED_ACKS, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER
    faults = ["", "", "cut", "", errors[0], "", "", "lost", errors[1]]
    with broker.failing(PRODUCE, *faults):
        text = definitions(broker.url, "batch = 20", "max_attempts = 1")
        with relaying(one_database.url, tmp_path, text) as process:
            wait_until_settled(one_database)
            assert process.stop() == 0
    assert broker.aborted
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(seen(broker.url, "t"), range(300))
    assert len(seen(broker.url, "t", "read_uncommitted")) > 300


@pytest.mark.parametrize("stalls_at", [INIT_PRODUCER, PRODUCE, END_TRANSACTION])
def test_of_a_process_that_stalled_and_was_taken_for_dead_nothing_is_seen(
    one_database: Database, tmp_path: Path, broker: TransactionalBroker, stalls_at: int
) -> None:
    """Its request is on the wire, or with the broker, when another process takes over; then it goes on."""
    text, event = definitions(broker.url), threading.Event()
    publish(one_database, "orders.placed", range(30))
    (tmp_path / "b").mkdir()
    with (
        broker.failing(stalls_at, event, *[""] * 1000),
        relaying(one_database.url, tmp_path, text, "--timeout", "2") as zombie,
    ):
        wait_for(lambda: broker.asked[stalls_at], "it is in the middle")
        zombie.process.send_signal(signal.SIGSTOP)
        with relaying(one_database.url, tmp_path / "b", text, "--timeout", "2") as successor:
            successor.wait_for_line("fenced the producer")
            wait_for(lambda: seen(broker.url, "t"), "the first of its successor's")
            event.set()
            zombie.process.send_signal(signal.SIGCONT)
            zombie.wait_for_line("found dead")
            publish(one_database, "orders.placed", range(30, 60))
            wait_until_settled(one_database)
            assert successor.stop() == 0
        assert zombie.stop() == 0
    check_ledger(seen(broker.url, "t"), range(60))


def test_of_a_process_that_was_killed_in_the_middle_nothing_is_seen_and_all_of_its_successor_s(
    one_database: Database, tmp_path: Path, broker: TransactionalBroker
) -> None:
    text = definitions(broker.url, "batch = 20")
    for round in range(3):
        publish(one_database, "orders.placed", range(60 * round, 60 * round + 60))
        event, asked = threading.Event(), broker.asked[PRODUCE]
        with (
            broker.failing(PRODUCE, event),
            relaying(one_database.url, tmp_path, text, "--timeout", "1") as process,
        ):
            wait_for(lambda asked=asked: broker.asked[PRODUCE] > asked, "it is in the middle")  # type: ignore[misc]
            process.kill()
            event.set()
    with relaying(one_database.url, tmp_path, text, "--timeout", "1") as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    assert broker.aborted >= 3
    check_ledger(seen(broker.url, "t"), range(180))


#: What a broker that somebody else wrote answers: librdkafka's own cluster, which fences, but hides nothing.
ANSWERS = [
    (ADD_PARTITIONS, KafkaError.CONCURRENT_TRANSACTIONS, True),
    (ADD_PARTITIONS, KafkaError.INVALID_PRODUCER_EPOCH, False),
    (ADD_PARTITIONS, KafkaError.PRODUCER_FENCED, False),
    (END_TRANSACTION, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, True),
    (END_TRANSACTION, KafkaError.PRODUCER_FENCED, False),
    (END_TRANSACTION, KafkaError.INVALID_TXN_STATE, False),
    (PRODUCE, KafkaError.NOT_LEADER_FOR_PARTITION, True),
    (PRODUCE, KafkaError.CLUSTER_AUTHORIZATION_FAILED, False),
    (INIT_PRODUCER, KafkaError.COORDINATOR_NOT_AVAILABLE, True),
    (INIT_PRODUCER, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, False),
]


@pytest.mark.parametrize(("asked", "error", "is_mended"), ANSWERS)
def test_another_s_answers_to_a_transaction_are_understood(
    peer: MockPeer, asked: int, error: int, is_mended: bool
) -> None:
    peer.create(partitions=1)
    wanted = messages(20)
    with peer.server.answering(asked, error):
        first, again = deliver(peer.url, wanted, [] if is_mended else wanted, address=peer.name)
    assert {type(outcome) for outcome in first} == {NoneType if is_mended else Unavailable}
    assert is_mended or again == [None] * 20
    check_ledger(seen(peer.url, peer.name), range(20), keys=1, doubled=True)


@pytest.mark.parametrize("peer", ["kafka"], indirect=True)
def test_all_is_committed_in_the_order_of_its_keys_on_a_broker_of_its_own(
    one_database: Database, tmp_path: Path, peer: KafkaPeer
) -> None:
    """Tansu: it shows nothing of an open transaction, and all when it is committed."""
    peer.create()
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 3)")
    publish(one_database, "orders.placed", range(2000))
    with relaying(one_database.url, tmp_path, peer.relay("transactional = true", "batch = 200")) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    check_ledger(seen(peer.url, peer.name), range(2000))


@pytest.mark.parametrize("peer", ["kafka"], indirect=True)
def test_a_broker_that_is_absent_stalls_and_cuts_connections_gets_all(
    one_database: Database, tmp_path: Path, peer: KafkaPeer
) -> None:
    """Tansu shows what was aborted, and so some may be there twice."""
    peer.create()
    peer.kill()
    publish(one_database, "orders.placed", range(100))
    text = peer.relay("transactional = true", "batch = 50", "max_attempts = 1")
    with relaying(one_database.url, tmp_path, text) as process:
        process.wait_for_line("circuit open")
        peer.start()
        wait_until_settled(one_database)
        peer.stall()
        publish(one_database, "orders.placed", range(100, 200))
        process.wait_for_line("circuit open", times=2)
        peer.flow()
        wait_until_settled(one_database)
        peer.wire.lose_answers(1_000)
        publish(one_database, "orders.placed", range(200, 500))
        wait_until_settled(one_database)
        assert process.stop() == 0
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(seen(peer.url, peer.name), range(500), doubled=True)


def test_a_probe_goes_in_a_transaction_of_its_own(tmp_path: Path, broker: TransactionalBroker) -> None:
    """It is in no log, and so nobody takes over from whoever sends it."""
    (tmp_path / "outbox.toml").write_text(definitions(broker.url))
    sent = send_probe("", tmp_path, "out", "--payload", "7")
    assert sent.stdout.startswith("out: delivered as 0-"), sent
    assert [number for _, number in seen(broker.url, "t")] == [7]
    (id,) = broker.ids
    assert id.startswith("outbox-out-")


def test_of_unordered_messages_each_batch_is_whole_too(
    one_database: Database, tmp_path: Path, broker: TransactionalBroker
) -> None:
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 3)")
    publish(one_database, "orders.placed", range(300))
    text = definitions(broker.url, "ordered = false", "batch = 50")
    with (
        broker.failing(PRODUCE, "", "cut", "", KafkaError.INVALID_REQUIRED_ACKS),
        relaying(one_database.url, tmp_path, text) as process,
    ):
        wait_until_settled(one_database)
        assert process.stop() == 0
    found = seen(broker.url, "t")
    assert sorted(number for _, number in found) == list(range(300))
    assert len({id for id, _ in found}) == 300


def test_several_processes_share_a_transactional_relay_and_fence_nobody_who_lives(
    one_database: Database, tmp_path: Path, broker: TransactionalBroker
) -> None:
    """Though messages that are refused go from hand to hand between them."""
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 4)")
    broker.refused.add("t.k3")
    text = definitions(broker.url, "batch = 20").replace('"t"', '"t.{key}"')
    (tmp_path / "b").mkdir()
    with (
        relaying(one_database.url, tmp_path, text) as first,
        relaying(one_database.url, tmp_path / "b", text) as second,
    ):
        publish(one_database, "orders.placed", range(700))
        left = f"SELECT count(*) = 100 AND NOT {UNREAD} FROM outbox.redelivery"
        wait_for(lambda: one_database.value(left), "a hundred parked, the others delivered")
        broker.refused.clear()
        wait_until_settled(one_database)
        assert [first.stop(), second.stop()] == [0, 0]
        assert "circuit open" not in first.log + second.log
    found = [one for key in range(7) for one in seen(broker.url, f"t.k{key}")]
    check_ledger(found, range(700))
