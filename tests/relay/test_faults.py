"""The same faults for every protocol, each on a real server; then the ledger.

Nothing is lost, what comes twice comes under its id, each key is in order. A cell that is left out says why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.relay.conftest import KINDS
from tests.relay.peers import Peer
from tests.relay.running import came_in, check_ledger, publish, relaying, wait_until_settled
from tests.shop_floor import UNREAD, Database, wait_for

_FETCHES_NOTHING = "nothing is fetched by HTTP"
_TANSU_DOES = "it has no place in time or memory of its own: Tansu, a process, does that"
_TANSU_FORGETS = "Tansu keeps all in memory: librdkafka's own cluster stands for Kafka here"


def over_all(**left_out: str) -> pytest.MarkDecorator:
    """All kinds of peers but those that are left out, each for a reason. Kafka is two: Tansu, librdkafka's cluster."""
    assert left_out.keys() < KINDS.keys()
    return pytest.mark.parametrize("peer", [kind for kind in KINDS if kind not in left_out], indirect=True)


def uncharged(peer: Peer) -> str:
    """One attempt is all that a message has, where a fault must cost none."""
    return "" if peer.charges else "max_attempts = 1"


def check(database: Database, peer: Peer, numbers: range, doubled: bool = True) -> None:
    assert database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(peer.arrived(), numbers, doubled=doubled and not peer.knows_ids)


@over_all(librdkafka=_TANSU_DOES)
def test_a_peer_that_is_absent_at_the_start_gets_all_when_it_comes(
    one_database: Database, tmp_path: Path, peer: Peer
) -> None:
    peer.create()
    peer.kill()
    publish(one_database, "orders.placed", range(200))
    with relaying(one_database.url, tmp_path, peer.relay("max_attempts = 1")) as process:
        process.wait_for_line("circuit open")
        wait_for(lambda: one_database.value("SELECT count(reason) FROM outbox.relay WHERE state <> 'closed'"), "why")
        peer.start()
        wait_until_settled(one_database)
        process.wait_for_line("circuit closed")
        assert process.stop() == 0
    check(one_database, peer, range(200))


@over_all(kafka=_TANSU_FORGETS)
def test_a_peer_that_is_gone_in_the_middle_and_comes_back_has_all(
    one_database: Database, tmp_path: Path, peer: Peer
) -> None:
    peer.create()
    publish(one_database, "orders.placed", range(400))
    with relaying(one_database.url, tmp_path, peer.relay(uncharged(peer), "batch = 20")) as process:
        wait_for(lambda: one_database.value("SELECT sum(lag) FROM outbox.lag") < 400, "some of them")
        peer.kill()
        publish(one_database, "orders.placed", range(400, 450))
        process.wait_for_line("circuit open")
        peer.start()
        wait_until_settled(one_database)
        assert process.stop() == 0
    check(one_database, peer, range(450))


@over_all(
    librdkafka="it keeps its data: Tansu forgets it", receiver="what a receiver has done with a message is its own"
)
def test_a_peer_that_comes_back_without_its_data_gets_what_it_had_not_confirmed(
    one_database: Database, tmp_path: Path, peer: Peer
) -> None:
    """Queue and stream are gone, too: until somebody makes them anew, keys are parked."""
    peer.create()
    with relaying(one_database.url, tmp_path, peer.relay()) as process:
        publish(one_database, "orders.placed", range(50))
        wait_until_settled(one_database)
        check(one_database, peer, range(50), doubled=False)
        peer.kill()
        peer.forget()
        publish(one_database, "orders.placed", range(50, 100))
        process.wait_for_line("circuit open")
        peer.start()
        process.wait_for_line("circuit closed")
        peer.create()
        wait_until_settled(one_database)
        assert process.stop() == 0
    check(one_database, peer, range(50, 100))


@over_all(librdkafka=_TANSU_DOES)
def test_a_slow_peer_times_out_and_gets_all_when_it_answers(one_database: Database, tmp_path: Path, peer: Peer) -> None:
    peer.create()
    peer.tap()
    with relaying(one_database.url, tmp_path, peer.relay(uncharged(peer))) as process:
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        peer.stall()
        publish(one_database, "orders.placed", range(10, 50))
        process.wait_for_line("circuit open")
        peer.flow()
        wait_until_settled(one_database)
        assert process.stop() == 0
    check(one_database, peer, range(50))


@over_all(kafka="Tansu refuses nobody anything: librdkafka's own cluster does")
def test_a_key_that_is_refused_is_parked_and_others_go_on(one_database: Database, tmp_path: Path, peer: Peer) -> None:
    address = peer.refusing("k3", [f"k{n}" for n in range(7) if n != 3])
    publish(one_database, "orders.placed", range(70))
    with relaying(one_database.url, tmp_path, peer.relay(address=address)) as process:
        parked = f"SELECT count(*) = 10 AND NOT {UNREAD} FROM outbox.redelivery"
        wait_for(lambda: one_database.value(parked), "ten parked, the others delivered")
        peer.accept()
        wait_until_settled(one_database)
        assert process.stop() == 0
    check(one_database, peer, range(70))


@over_all(librdkafka="it advertises its brokers itself, past any wire: Tansu is behind one")
def test_a_connection_that_is_cut_before_the_answer_repeats_under_the_same_id(
    one_database: Database, tmp_path: Path, peer: Peer
) -> None:
    peer.create()
    wire = peer.wire
    with relaying(one_database.url, tmp_path, peer.relay("batch = 50")) as process:
        publish(one_database, "orders.placed", range(10))
        wait_until_settled(one_database)
        lost = wire.lost
        wire.lose_answers(1_000, 5_000)
        publish(one_database, "orders.placed", range(10, 400))
        wait_until_settled(one_database)
        assert process.stop() == 0
    assert wire.lost == lost + 2
    check(one_database, peer, range(400))


@over_all(kafka=_TANSU_FORGETS, receiver=_FETCHES_NOTHING)
def test_a_source_whose_peer_is_absent_and_restarts_publishes_once(
    one_database: Database, tmp_path: Path, peer: Peer
) -> None:
    peer.create()
    peer.send(range(100))
    peer.kill()
    with relaying(one_database.url, tmp_path, peer.source("batch = 20")) as process:
        process.wait_for_line("circuit open")
        peer.start()
        wait_for(lambda: len(came_in(one_database)) == 100, "the first")
        process.wait_for_line("circuit closed")
        peer.send(range(100, 400))
        wait_for(lambda: len(came_in(one_database)) > 100, "more of them")
        peer.kill()
        peer.start()
        wait_for(lambda: len(came_in(one_database)) >= 400, "all of them")
        assert process.stop() == 0
    assert sorted(n for _, n in came_in(one_database)) == list(range(400))


@over_all(kafka="Tansu says nothing to who reads beyond its end: librdkafka's cluster does", receiver=_FETCHES_NOTHING)
def test_a_source_whose_peer_comes_back_without_its_data_takes_what_is_new(
    one_database: Database, tmp_path: Path, peer: Peer
) -> None:
    peer.create()
    peer.send(range(50))
    with relaying(one_database.url, tmp_path, peer.source()) as process:
        wait_for(lambda: len(came_in(one_database)) == 50, "the first")
        peer.kill()
        peer.forget()
        process.wait_for_line("circuit open")
        peer.start()
        peer.create()
        peer.send(range(50, 80))
        if peer.scheme == "kafka":  # offsets have begun anew, and nobody is to guess what that means
            process.wait_for_line("does not have the offset that comes next")
            one_database.execute("DELETE FROM outbox.source_position")
        wait_for(lambda: len(came_in(one_database)) == 80, "what came then")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(80))


@over_all(kafka="a group's members wait for it as they do for librdkafka's cluster", receiver=_FETCHES_NOTHING)
def test_a_source_whose_peer_stalls_goes_on_when_it_answers(one_database: Database, tmp_path: Path, peer: Peer) -> None:
    peer.create()
    peer.tap()
    with relaying(one_database.url, tmp_path, peer.source()) as process:
        peer.send(range(20))
        wait_for(lambda: len(came_in(one_database)) == 20, "the first")
        peer.stall()
        peer.send(range(20, 60))
        peer.flow()
        wait_for(lambda: len(came_in(one_database)) == 60, "all of them")
        assert process.stop() == 0
    check_ledger(came_in(one_database), range(60))


@over_all(kafka=_TANSU_FORGETS, receiver=_FETCHES_NOTHING)
def test_a_source_that_is_cut_off_and_killed_publishes_once(one_database: Database, tmp_path: Path, peer: Peer) -> None:
    peer.create()
    peer.tap()
    peer.send(range(300))
    with relaying(one_database.url, tmp_path, peer.source("batch = 10")) as process:
        wait_for(lambda: len(came_in(one_database)) >= 20, "some of them")
        peer.cut()
        wait_for(lambda: len(came_in(one_database)) >= 60, "more of them")
        process.kill()
    # what the killed one had taken from NATS comes again when its consumer's ack_wait is over: 30 s
    with relaying(one_database.url, tmp_path, peer.source("batch = 10", *peer.follower)) as process:
        peer.send(range(300, 350))
        wait_for(lambda: len(came_in(one_database)) >= 350, "all of them")
        assert process.stop() == 0
    assert sorted(n for _, n in came_in(one_database)) == list(range(350))
    row = one_database.connect().execute("SELECT key, headers FROM outbox.message WHERE payload::text = '8'").fetchone()
    assert row == ("k1", {"tenant": "eu"})
