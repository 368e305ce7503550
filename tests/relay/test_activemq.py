"""ActiveMQ on both ends, over STOMP: what has a receipt is settled, what is committed is acknowledged."""

from __future__ import annotations

from pathlib import Path

from outbox import Outbox
from tests.relay.peers import StompPeer
from tests.relay.running import check_ledger, relaying, send_probe, wait_until_settled
from tests.shop_floor import Database

PEER = "activemq"


def test_a_message_arrives_as_a_persistent_cloudevent(one_database: Database, tmp_path: Path, peer: StompPeer) -> None:
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", {"id": 1}, key="a:b\nc", headers={"tenant": "eu"})
    with relaying(one_database.url, tmp_path, peer.relay()) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (frame,) = peer.drain()
    wanted = {"ce_id": str(id), "ce_type": "orders.placed", "ce_subject": "a:b\nc", "ce_partitionkey": "a:b\nc"}
    wanted |= {"persistent": "true", "tenant": "eu", "content-type": "application/json"}
    assert wanted.items() <= frame.headers.items()
    assert frame.body == '{"id":1}'


def test_a_message_under_which_the_connection_breaks_is_a_dead_letter_and_others_go_on(
    one_database: Database, tmp_path: Path, peer: StompPeer
) -> None:
    """ActiveMQ refuses by an error that ends the connection, whatever else is on its way."""
    with one_database.connect() as connection:
        for n in range(10):
            Outbox().publish(connection, "orders.placed", "x" * 200_000 if n == 4 else n, key=str(n))
    with relaying(one_database.url, tmp_path, peer.relay("max_attempts = 2")):
        wait_until_settled(one_database)
    check_ledger(peer.arrived(), [n for n in range(10) if n != 4], keys=1, doubled=True)
    assert one_database.connect().execute("SELECT key, attempt FROM outbox.dead_letter").fetchall() == [("4", 2)]


def test_a_probe_is_delivered(one_database: Database, tmp_path: Path, peer: StompPeer) -> None:
    (tmp_path / "outbox.toml").write_text(peer.relay())
    assert send_probe(one_database.url, tmp_path, "out").returncode == 0
    assert len(peer.drain()) == 1
