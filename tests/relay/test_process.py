"""The process that runs relays and sources: definitions that are no good, and being asked to stop or reload again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.relay.peers import MockPeer
from tests.relay.receiver import Receiver
from tests.relay.running import came_in, check_ledger, publish, relaying, wait_until_settled
from tests.relay.test_webhooks import arrived, definition
from tests.shop_floor import PATIENCE, Database, wait_for

PEER = "librdkafka"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[relays.other]\nurl = "stomp://127.0.0.1:1"\nbindings = ["orders.*"]\n', "pip install 'outbox-pg[activemq]'"),
        ('[sources.in]\nurl = "stomp://127.0.0.1:1"\naddress = "/queue/q"\ntopic = "t"\n', "outbox-pg[activemq]"),
        ("[relays.other", "TOML"),
    ],
)
def test_new_definitions_that_could_not_be_run_change_nothing(
    one_database: Database, tmp_path: Path, receiver: Receiver, more: str, said: str
) -> None:
    (tmp_path / "stomp.py").write_text("raise ModuleNotFoundError('there is none', name='stomp')")
    with relaying(one_database.url, tmp_path, definition(receiver.url)) as process:
        process.file.write_text(definition(f"{receiver.url}/new") + more)
        process.process.send_signal(signal.SIGHUP)
        process.wait_for_line("all goes on as it was")
        assert said in process.log
        publish(one_database, "orders.placed", range(20))
        wait_until_settled(one_database)
        assert process.stop() == 0
        assert process.log.count("worker started") == 1
    check_ledger(arrived(receiver), range(20))


@pytest.mark.parametrize("then", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_after_a_reload_does_not_abandon_what_is_on_its_way(
    one_database: Database, tmp_path: Path, receiver: Receiver, then: signal.Signals
) -> None:
    receiver.script.append("stall")
    publish(one_database, "orders.placed", range(1))
    with relaying(one_database.url, tmp_path, definition(receiver.url, 'timeout = "60s"')) as process:
        wait_for(lambda: receiver.busy == 1, "a delivery")
        process.process.send_signal(signal.SIGHUP)
        process.wait_for_line("definitions read anew")
        process.process.send_signal(then)
        if then == signal.SIGHUP:
            process.wait_for_line("definitions read anew", 2)
            receiver.flow.set()
            process.wait_for_line("worker started", 2)
            assert process.stop() == 0
        else:
            with pytest.raises(AssertionError, match="in vain"):
                wait_for(lambda: process.process.poll() is not None, "its end", 1)
            receiver.flow.set()
            assert process.process.wait(PATIENCE) == 0
    assert [n for _, n in arrived(receiver)] == [0]
    assert len(receiver.posts) == 1


def test_a_source_that_can_t_publish_does_not_outlast_the_grace_time(
    one_database: Database,
    tmp_path: Path,
    peer: MockPeer,
) -> None:
    """Somebody holds its partition's place in our database: as another process of it would that hangs."""
    peer.send(range(10))
    connection = one_database.connect()
    text = peer.source()
    with relaying(one_database.url, tmp_path, text, "--grace", "1") as process:
        wait_for(lambda: len(came_in(one_database)) == 10, "all of them")
        connection.execute("SELECT outbox.lock_source('in', partition) FROM outbox.source_position")
        peer.send(range(10, 20))
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory' "
            "AND datname = current_database()"
        )
        wait_for(lambda: one_database.value(waits) == 1, "it waits")
        assert process.stop() == 0
    connection.rollback()
    with relaying(one_database.url, tmp_path, peer.source(*peer.follower)):
        wait_for(lambda: len(came_in(one_database)) == 20, "the rest")
    check_ledger(came_in(one_database), range(20))
