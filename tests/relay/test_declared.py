"""Relays and sources as they are declared: in a file, in Python, and what of it is refused."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from pathlib import Path

import pytest

from outbox import Outbox, definitions
from outbox.definitions import Definitions, Relay, Secret, Source
from outbox.definitions.definition import check
from outbox.errors import InvalidDeclaration
from outbox.relay import credentials
from outbox.relay.addresses import is_public
from outbox.relay.circuit import Circuit, Stopped
from outbox.relay.places import topic_of
from tests.relay.receiver import Receiver
from tests.relay.running import publish, relaying, wait_until_settled
from tests.shop_floor import ROOT, Database, outbox

PAGE = (ROOT / "docs" / "relays.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_s_definitions_are_in_order_and_read_back_the_same() -> None:
    text, *_ = [block for language, block in BLOCKS if language == "toml"]
    found = definitions.parse(text)
    assert found.relays["orders-to-partner"].secrets[1] == Secret(file="/run/secrets/partner-old")
    assert found.sources["payments"].protocol == "kafka"
    assert definitions.parse(definitions.text(found)) == found
    assert definitions.parse(definitions.text(found, "yaml"), "yaml") == found


def test_the_page_s_program_declares_both() -> None:
    text, *_ = [block for language, block in BLOCKS if language == "python"]
    scope: dict[str, object] = {}
    exec(text, scope)
    app = scope["app"]
    assert isinstance(app, Outbox)
    assert app.relays["orders-to-rabbitmq"].protocol == "rabbitmq"
    assert app.sources["payments"].topic == "payments.received"
    with pytest.raises(InvalidDeclaration, match="already"):
        app.relay("orders-to-rabbitmq", "x", url="amqp://h")
    with pytest.raises(InvalidDeclaration, match="there is no such field"):
        app.relay("other", "x", url="amqp://h", exchnage="shop")


def test_every_link_of_the_page_leads_somewhere_and_every_option_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    help = outbox("", "relay", "--help").stdout + outbox("", "worker", "--help").stdout
    for option in re.findall(r"`(--\w+)", PAGE):
        assert option in help


WRONG = [
    ("relays", {"url": "redis://h"}, "relays.x.url: it must be SCHEME://HOST:PORT"),
    ("relays", {"url": "amqp://u:hush@h"}, "relays.x.url: it must not hold a user or password"),
    ("relays", {"url": "amqp://h,i"}, "relays.x.url: rabbitmq has one host"),
    ("relays", {"url": "amqp://h"}, "relays.x.bindings: what does it read"),
    ("relays", {"url": "amqp://h", "bindings": ("a..b",)}, "relays.x.bindings[0]"),
    ("relays", {"url": "nats://h", "bindings": ("a",), "exchange": "e"}, "relays.x.exchange: it means nothing to nats"),
    ("relays", {"url": "nats://h", "bindings": ("a",), "transactional": True}, "it means nothing to nats"),
    ("relays", {"url": "amqp://h", "bindings": ("a",), "address": "{kee}"}, "in braces there can be topic or key"),
    ("relays", {"url": "amqp://h", "bindings": ("a",), "user": "u"}, "user and password go together"),
    ("relays", {"url": "http://h", "bindings": ("a",), "secrets": (Secret(),)}, "say where the secret is"),
    ("relays", {"url": "amqp://h", "bindings": ("a",), "ca": "x.pem"}, "certificates go with a scheme"),
    ("relays", {"url": "amqp://h", "bindings": ("a",), "batch": 0}, "relays.x.batch: expected `int` >= 1"),
    ("sources", {"url": "http://h", "address": "a", "topic": "t"}, "nothing is fetched by HTTP"),
    ("sources", {"url": "amqp://h", "topic": "t"}, "sources.x.address: what does it consume"),
    ("sources", {"url": "amqp://h", "address": "a", "topic": "t t"}, "is not a topic's name"),
]


@pytest.mark.parametrize(("section", "fields", "problem"), WRONG)
def test_what_can_t_be_so_is_refused(section: str, fields: dict[str, object], problem: str) -> None:
    kind = Relay if section == "relays" else Source
    with pytest.raises(InvalidDeclaration, match=re.escape(problem)) as caught:
        check(Definitions(**{section: {"x": kind(**fields)}}))  # type: ignore[arg-type]
    assert "hush" not in str(caught.value)


def test_a_relay_is_a_subscription_to_apply_and_is_not_pruned(one_database: Database, tmp_path: Path) -> None:
    file = tmp_path / "outbox.toml"
    file.write_text('[relays.x]\nurl = "amqp://h"\nbindings = ["orders.*"]\n')
    assert "+ subscription x" in outbox(one_database.url, "apply", str(file)).stdout
    assert outbox(one_database.url, "apply", str(file), "--check", "--prune").stdout == "nothing to change\n"
    both = file.read_text() + '[subscriptions.x]\nbindings = ["orders.*"]\n'
    file.write_text(both)
    assert "a relay is one" in outbox(one_database.url, "apply", str(file)).stderr


def test_a_relay_and_a_source_of_one_name_are_refused() -> None:
    """They would be one row of `outbox status`, and one series of metrics."""
    relay = Relay(url="amqp://h", bindings=("orders.*",))
    with pytest.raises(InvalidDeclaration, match=r"sources\.x: there is a relay of that name"):
        check(Definitions(relays={"x": relay}, sources={"x": Source(url="amqp://h", address="q", topic="t")}))


def test_secrets_come_from_environment_file_or_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "one")
    (tmp_path / "secret").write_text("two\n")
    program = (sys.executable, "-c", "print('three')")
    references = Secret(env="A_SECRET"), Secret(file=str(tmp_path / "secret")), Secret(command=program)
    assert [asyncio.run(credentials.reveal(one)) for one in references] == ["one", "two", "three"]
    failing = (sys.executable, "-c", "print('hush'); raise SystemExit(3)")
    for missing in Secret(env="NO_SECRET"), Secret(file=str(tmp_path / "none")), Secret(command=failing):
        with pytest.raises(InvalidDeclaration) as caught:
            asyncio.run(credentials.reveal(missing))
        assert "hush" not in str(caught.value)


def test_no_secret_is_in_a_log_a_status_or_a_list_of_processes(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    secret = base64.b64encode(b"hush" * 6).decode()
    publish(one_database, "orders.placed", range(3))
    receiver.script.extend([500, "cut"])
    fields = 'allow_private = true\nlongest_pause = "100ms"\nsecrets = [{ env = "HUSH" }]'
    text = f'[relays.x]\nurl = "{receiver.url}/path-hush"\nbindings = ["orders.*"]\n{fields}\n'
    with relaying(one_database.url, tmp_path, text, "--log-level", "DEBUG", more={"HUSH": secret}) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
        status = outbox(one_database.url, "status", "--json").stdout
        for said in process.log, status:
            assert secret not in said
            assert "path-hush" not in said
    assert receiver.url.removesuffix("/hook") in status


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "240.0.0.1", "::1", "::", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
     "ff02::1"],
)  # fmt: skip
def test_an_address_that_is_not_on_the_internet_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"])
def test_an_address_on_the_internet_is_known(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("template", "address", "type", "topic"),
    [
        ("in.{address}", "shop/eu.orders", None, "in.shop_eu.orders"),
        ("in.{type}", "", "com.example..Order Placed", "in.com.example.Order_Placed"),
        ("{type}", "", None, "untyped"),
        ("{address}", "..", None, "_"),
    ],
)
def test_what_no_topic_may_hold_becomes_an_underscore(
    template: str, address: str, type: str | None, topic: str
) -> None:
    assert topic_of(template, address, type) == topic


def test_while_a_circuit_is_open_one_tries_and_the_others_wait() -> None:
    async def play() -> None:
        circuit = Circuit(longest=0.02)
        ticket, late = await circuit.admit(), await circuit.admit()
        assert circuit.failed(ticket, "away")
        assert not circuit.failed(late, "away")  # what began before says nothing new
        probe = await circuit.admit()
        assert probe.is_probe
        waiting = asyncio.create_task(circuit.admit())
        await asyncio.sleep(0)
        assert not waiting.done()
        circuit.succeeded(probe)
        assert not (await waiting).is_probe
        circuit.stop()
        with pytest.raises(Stopped):
            await circuit.admit()

    asyncio.run(play())
