"""NATS JetStream on both ends: acked messages are settled, committed ones are acked; repetitions are stored once."""

from __future__ import annotations

from pathlib import Path

from outbox import Outbox
from tests.relay.peers import NatsPeer
from tests.relay.running import relaying, send_probe, wait_until_settled
from tests.shop_floor import Database, wait_for

PEER = "nats"


def test_a_message_arrives_as_a_cloudevent(one_database: Database, tmp_path: Path, peer: NatsPeer) -> None:
    peer.create()
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", {"id": 1}, key="k", headers={"note": "two\nlines"})
    with relaying(one_database.url, tmp_path, peer.relay()) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (message,) = peer.stored()
    assert (message.subject, message.data) == (f"{peer.name}.k", b'{"id":1}')
    assert message.headers["Nats-Msg-Id"] == f"/outbox/{one_database.name} {id}"
    assert message.headers["ce-id"] == str(id)
    assert message.headers["ce-type"] == "orders.placed"
    assert message.headers["note"] == "two%0Alines"


def test_a_probe_says_what_is_wrong(one_database: Database, tmp_path: Path, peer: NatsPeer) -> None:
    (tmp_path / "outbox.toml").write_text(peer.relay())
    assert "no stream holds" in send_probe(one_database.url, tmp_path, "out").stderr
    peer.create()
    assert send_probe(one_database.url, tmp_path, "out").returncode == 0


def test_a_source_whose_peer_is_back_and_has_nothing_counts_as_back(
    one_database: Database, tmp_path: Path, peer: NatsPeer
) -> None:
    peer.create()
    peer.kill()
    with relaying(one_database.url, tmp_path, peer.source()) as process:
        process.wait_for_line("circuit open")
        peer.start()
        process.wait_for_line("circuit closed")
        wait_for(lambda: one_database.value("SELECT bool_and(state = 'closed') FROM outbox.relay"), "its status")
        assert process.stop() == 0
