"""TLS on real servers: whom a relay trusts, who it says it is, and by which password; and that nobody reads that."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay.brokers import ACTIVEMQ, NATS, RABBITMQ, Tansu
from tests.relay.feeding import EXACTLY_ONCE, check_once, count
from tests.relay.peers import HookPeer, NatsPeer, Peer, RabbitPeer, StompPeer, TansuPeer
from tests.relay.running import check_ledger, publish, relaying, wait_until_settled
from tests.relay.secured import (
    PASSWORD,
    USER,
    Authority,
    SecureActiveMQ,
    SecureNats,
    SecureRabbitMQ,
    SecureReceiver,
    SecureTansu,
)
from tests.relay.wire import Wire
from tests.shop_floor import Database, outbox, wait_for, worker

LOGIN = (f'user = "{USER}"', 'password = { env = "HUSH" }')
#: Kind, server, the Debian package that it is of; and what it wants to know of who comes, beside a certificate.
KINDS: dict[str, tuple[type[Peer], Callable[[Authority], Any], Path | None, tuple[str, ...]]] = {
    "rabbitmq": (RabbitPeer, SecureRabbitMQ, RABBITMQ, LOGIN),
    "nats": (NatsPeer, SecureNats, NATS, LOGIN),
    "activemq": (StompPeer, SecureActiveMQ, ACTIVEMQ, LOGIN),
    "kafka": (TansuPeer, SecureTansu, None, ()),
    "webhooks": (HookPeer, SecureReceiver, None, ()),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(
    request: pytest.FixtureRequest, authority: Authority, name: str, wires: Callable[[int], Wire]
) -> Iterator[tuple[Peer, tuple[str, ...]]]:
    kind, server, program, login = KINDS[request.param]
    if program is not None and not program.exists():
        pytest.skip(f"needs {request.param}: apt-get install rabbitmq-server nats-server activemq")
    running = server(authority)
    try:
        yield kind(running, name, wires), login
    finally:
        running.remove()


@pytest.mark.parametrize("secure", KINDS, indirect=True)
def test_who_is_not_trusted_gets_nothing_and_says_why_and_who_is_gets_all(
    one_database: Database, tmp_path: Path, authority: Authority, secure: tuple[Peer, tuple[str, ...]]
) -> None:
    peer, login = secure
    peer.create()
    publish(one_database, "orders.placed", range(30))

    def text(ca: str) -> str:
        return peer.relay("max_attempts = 1", *login, *authority.fields(ca)).replace(peer.url, peer.server.secure_url)

    more = {"HUSH": PASSWORD}
    with relaying(one_database.url, tmp_path, text("other.pem"), "--log-level", "DEBUG", more=more) as process:
        process.wait_for_line("circuit open")
        reason = "SELECT max(reason) FROM outbox.relay WHERE state <> 'closed'"
        wait_for(lambda: "certificate" in (one_database.value(reason) or "").lower(), "a reason that helps")
        said = outbox(one_database.url, "status", "--json").stdout
        process.file.write_text(text("ca.pem"))
        process.process.send_signal(signal.SIGHUP)
        wait_until_settled(one_database)
        said += outbox(one_database.url, "status", "--json").stdout
        assert process.stop() == 0
        assert PASSWORD not in said + process.log
    assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
    check_ledger(peer.arrived(), range(30))


@pytest.mark.parametrize("secure", ["rabbitmq", "kafka"], indirect=True)
def test_handlers_on_another_log_trust_whom_relays_do(
    books: Database, tmp_path: Path, authority: Authority, secure: tuple[Peer, tuple[str, ...]]
) -> None:
    peer, login = secure
    peer.create()
    peer.send(range(30))
    app = EXACTLY_ONCE.format(more=", ordered=True, batch=5").replace("orders.*", "in.orders")

    def trusting(ca: str) -> list[str]:
        text = peer.source(*login, *authority.fields(ca)).replace(peer.url, peer.server.secure_url)
        (tmp_path / "shop.toml").write_text(text)
        return ["--from", "in", "-f", "shop.toml", "--log-level", "DEBUG"]

    more = {"HUSH": PASSWORD}
    with worker(books.url, tmp_path, app, *trusting("other.pem"), more=more) as process:
        process.wait_for_line("circuit open")
        reason = "SELECT max(reason) FROM outbox.relay WHERE state <> 'closed'"
        wait_for(lambda: "certificate" in (books.value(reason) or "").lower(), "a reason that helps")
        said = outbox(books.url, "status", "--json").stdout + process.log
        assert process.stop() == 0
    assert count(books) == 0
    with worker(books.url, tmp_path, app, *trusting("ca.pem"), more=more) as process:
        wait_for(lambda: count(books) >= 30, "all of them")
        assert process.stop() == 0
        assert PASSWORD not in said + process.log
    check_once(books, range(30))


def test_a_password_that_kafka_does_not_know_opens_the_circuit_and_is_nowhere(
    one_database: Database, tmp_path: Path, name: str, wires: Callable[[int], Wire]
) -> None:
    """By SCRAM; Tansu has no user in its memory, and none can be put there before it asks for one."""

    class Asking(Tansu):
        def command(self) -> list[str]:
            return [*super().command(), "--authentication"]

    broker = Asking()
    try:
        text = TansuPeer(broker, name, wires).relay(*LOGIN, 'sasl = "SCRAM-SHA-512"')
        publish(one_database, "orders.placed", range(10))
        with relaying(one_database.url, tmp_path, text, "--log-level", "DEBUG", more={"HUSH": PASSWORD}) as process:
            process.wait_for_line("SASL SCRAM authentication failed")
            said = outbox(one_database.url, "status", "--json").stdout
            assert process.stop() == 0
            assert PASSWORD not in said + process.log
        assert one_database.value("SELECT count(*) FROM outbox.dead_letter") == 0
        assert one_database.value("SELECT max(attempt) FROM outbox.redelivery") in (None, 0, 1)
    finally:
        broker.remove()
