"""Messages arrive as signed POSTs; the other side is away, slow, refuses, hangs up, or is gone for ever."""

from __future__ import annotations

import base64
import signal
import socket
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier

from outbox import Outbox
from tests.relay.receiver import Receiver
from tests.relay.running import check_ledger, publish, relaying, send_probe, wait_until_settled
from tests.servers import free_port
from tests.shop_floor import PATIENCE, Database, at_rest, outbox, wait_for

OLD, NEW = ("whsec_" + base64.b64encode(letter * 24).decode() for letter in (b"o", b"n"))
SECRETS = {"OLD_SECRET": OLD, "NEW_SECRET": NEW}


def definition(url: str, *more: str, name: str = "hook") -> str:
    fields = "\n".join(["allow_private = true", 'longest_pause = "200ms"', *more])
    return f'[relays.{name}]\nurl = "{url}"\nbindings = ["orders.*"]\n{fields}\n'


def arrived(receiver: Receiver, path: str = "/hook") -> list[tuple[str, int]]:
    with receiver.lock:
        return [(post.id, int(post.body)) for post in receiver.accepted if post.path == path]


def test_a_message_arrives_as_a_signed_cloudevent(one_database: Database, tmp_path: Path, receiver: Receiver) -> None:
    with one_database.connect() as connection:
        id = Outbox().publish(
            connection,
            "orders.placed",
            {"id": 4711, "name": "Ä"},
            key="Zoë 1%",
            headers={"traceparent": "00-a-b-01", "tenant": "eu"},
        )
    text = definition(receiver.url, 'secrets = [{ env = "NEW_SECRET" }, { env = "OLD_SECRET" }]')
    with relaying(one_database.url, tmp_path, text, more=SECRETS) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
    (post,) = receiver.accepted
    assert post.path == "/hook"
    for secret in (OLD, NEW):
        assert Verifier(secret).verify(post.body, post.headers) == {"id": 4711, "name": "Ä"}
    attributes = {name.removeprefix("ce-"): value for name, value in post.headers.items() if name.startswith("ce-")}
    assert attributes.pop("time").endswith("Z")
    assert attributes == {
        "specversion": "1.0",
        "id": str(id),
        "source": f"/outbox/{one_database.name}",
        "type": "orders.placed",
        "subject": "Zo%C3%AB%201%25",
        "partitionkey": "Zo%C3%AB%201%25",
    }
    assert post.headers["traceparent"] == "00-a-b-01"
    assert post.headers["outbox-tenant"] == "eu"
    assert post.headers["content-type"] == "application/json"
    assert post.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize("format", ["structured", "raw"])
def test_bytes_arrive_structured_or_raw(
    one_database: Database, tmp_path: Path, receiver: Receiver, format: str
) -> None:
    with one_database.connect() as connection:
        id = Outbox().publish(connection, "orders.placed", b"\x00\xff", content_type="image/png")
    with relaying(one_database.url, tmp_path, definition(receiver.url, f'format = "{format}"')):
        wait_until_settled(one_database)
    (post,) = receiver.accepted
    assert post.id == str(id)
    assert not [name for name in post.headers if name.startswith("ce-")]
    if format == "raw":
        assert (post.headers["content-type"], post.body) == ("image/png", b"\x00\xff")
    else:
        assert post.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        assert b'"data_base64":"AP8="' in post.body
        assert b'"datacontenttype":"image/png"' in post.body


def relay_status(database: Database) -> str | None:
    found = database.value("SELECT max(reason) FROM outbox.relay WHERE state <> 'closed'")
    return None if found is None else str(found)


def test_a_connection_that_is_cut_after_the_request_repeats_the_message_under_its_id(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script.extend([204, "cut", 204, 204, "cut"])
    publish(one_database, "orders.placed", range(60))
    with relaying(one_database.url, tmp_path, definition(receiver.url)):
        wait_until_settled(one_database)
    with receiver.lock:
        every = [(post.id, int(post.body)) for post in receiver.posts]
    check_ledger(arrived(receiver), range(60))
    check_ledger(every, range(60), doubled=True)
    assert len(every) >= 62


def test_a_message_that_is_refused_to_the_last_attempt_is_a_dead_letter_and_its_key_goes_on(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.refuses[b"3"] = 302
    publish(one_database, "orders.placed", range(21))
    with relaying(one_database.url, tmp_path, definition(receiver.url, "max_attempts = 2")):
        wait_until_settled(one_database)
    check_ledger(arrived(receiver), [n for n in range(21) if n != 3])
    dead = one_database.connect().execute(
        "SELECT payload::text, attempt, errors -> -1 ->> 'text' FROM outbox.dead_letter"
    )
    assert dead.fetchall() == [("3", 2, "it answered 302")]


def test_a_message_that_http_can_t_carry_is_a_dead_letter_and_opens_no_circuit(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    """Its header would end a line, and begin another of whoever wrote it."""
    with one_database.connect() as connection:
        Outbox().publish(connection, "orders.placed", 99, key="k0", headers={"traceparent": "00-a\r\nx-admin: yes"})
    publish(one_database, "orders.placed", range(20))
    with relaying(one_database.url, tmp_path, definition(receiver.url)) as process:
        wait_until_settled(one_database)
        assert process.stop() == 0
        assert "circuit open" not in process.log
    check_ledger(arrived(receiver), range(20))
    assert one_database.value("SELECT errors -> -1 ->> 'text' FROM outbox.dead_letter").startswith("HTTP can't carry")


def test_a_receiver_that_asks_for_a_pause_is_left_alone_and_no_attempt_is_spent(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script.extend([(429, {"Retry-After": "1"})] * 3)
    publish(one_database, "orders.placed", range(30), keys=1)
    with relaying(one_database.url, tmp_path, definition(receiver.url, "max_attempts = 1")) as process:
        wait_until_settled(one_database)
        assert "it answered 429" in process.log
    check_ledger(arrived(receiver), range(30), keys=1)


def test_a_slow_receiver_times_out_and_gets_the_message_again(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script.append("stall")
    publish(one_database, "orders.placed", range(10), keys=1)
    with relaying(one_database.url, tmp_path, definition(receiver.url, 'timeout = "500ms"')) as process:
        wait_until_settled(one_database)
        assert "no answer within 0.5 s" in process.log
    with receiver.lock:
        check_ledger([(post.id, int(post.body)) for post in receiver.posts], range(10), keys=1, doubled=True)


def test_gone_disables_with_an_alarm_until_it_is_resumed(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script.append(410)
    publish(one_database, "orders.placed", range(20), keys=1)
    with relaying(one_database.url, tmp_path, definition(receiver.url)) as process:
        process.wait_for_line("relay disabled")
        wait_for(lambda: relay_status(one_database) == "it answered 410 Gone", "its status")
        assert "CRITICAL" in process.log
        assert receiver.bodies() == []
        assert '"paused": true' in outbox(one_database.url, "status", "--json").stdout
        assert "disabled it answered 410 Gone" in outbox(one_database.url, "status").stdout
        assert outbox(one_database.url, "resume", "hook").returncode == 0
        wait_until_settled(one_database)
        assert process.stop() == 0
    check_ledger(arrived(receiver), range(20), keys=1)


def test_a_private_address_is_refused_after_its_name_was_looked_up(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    text = definition(f"http://localhost:{receiver.port}/").replace("allow_private = true", "")
    publish(one_database, "orders.placed", range(3))
    with relaying(one_database.url, tmp_path, text) as process:
        process.wait_for_line("which is no address on the internet")
    assert receiver.posts == []
    probe = send_probe(one_database.url, tmp_path, "hook")
    assert probe.returncode == 1
    assert "which is no address on the internet" in probe.stderr


def test_a_stop_waits_for_what_is_on_its_way_and_gives_the_rest_back(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script.append("stall")
    publish(one_database, "orders.placed", range(50), keys=1)
    with relaying(one_database.url, tmp_path, definition(receiver.url, 'timeout = "20s"')) as process:
        wait_for(lambda: receiver.busy == 1, "a request under way")
        process.process.send_signal(signal.SIGTERM)
        process.wait_for_line("stopping")
        receiver.flow.set()
        assert process.process.wait(PATIENCE) == 0
    assert receiver.bodies() == [b"0"]
    charged = one_database.value("SELECT coalesce(max(attempt), 0) FROM outbox.redelivery")
    assert charged <= 1
    with relaying(one_database.url, tmp_path, definition(receiver.url)):
        wait_until_settled(one_database)
    check_ledger(arrived(receiver), range(50), keys=1)


def test_definitions_are_read_anew_and_nothing_is_lost(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    publish(one_database, "orders.placed", range(40))
    second = Receiver()
    try:
        with relaying(one_database.url, tmp_path, definition(receiver.url)) as process:
            wait_until_settled(one_database)
            process.file.write_text("[relays.hook]\nurl = 7")
            process.process.send_signal(signal.SIGHUP)
            process.wait_for_line("all goes on as it was")
            process.file.write_text(definition(second.url) + definition(f"{second.url}/other", name="other"))
            publish(one_database, "orders.placed", range(40, 400))
            process.process.send_signal(signal.SIGHUP)
            process.wait_for_line("worker started", 2)
            publish(one_database, "orders.placed", range(400, 440))
            wait_for(lambda: at_rest(one_database) and len(second.bodies() + receiver.bodies()) == 880, "both")
            assert process.stop() == 0
        check_ledger(arrived(receiver) + arrived(second), range(440))
        check_ledger(arrived(second, "/hook/other"), range(440))
    finally:
        second.close()


def test_several_processes_share_a_relay(one_database: Database, tmp_path: Path, receiver: Receiver) -> None:
    one_database.execute("SELECT outbox.declare_topic('orders.placed', 4)")
    publish(one_database, "orders.placed", range(300), keys=20)
    text = definition(receiver.url, "concurrency = 1", "batch = 20")
    with relaying(one_database.url, tmp_path, text, "--processes", "2") as process:
        wait_until_settled(one_database)
        process.process.send_signal(signal.SIGHUP)  # reaches them all
        process.wait_for_line("worker started", 4)
        publish(one_database, "orders.placed", range(300, 400), keys=20)
        wait_until_settled(one_database)
        assert process.stop() == 0
    check_ledger(arrived(receiver), range(400), keys=20)


def test_a_killed_process_is_replaced_and_nothing_is_lost(
    one_database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    publish(one_database, "orders.placed", range(200))
    receiver.script.extend([204] * 30 + ["stall"])
    text = definition(receiver.url)
    with relaying(one_database.url, tmp_path, text, "--timeout", "2") as process:
        wait_for(lambda: len(receiver.bodies()) >= 30, "some of them")
        process.kill()
    receiver.flow.set()
    with relaying(one_database.url, tmp_path, text, "--timeout", "2"):
        wait_until_settled(one_database)
    check_ledger(arrived(receiver), range(200), doubled=True)


def test_a_probe_is_delivered_and_is_in_no_log(one_database: Database, tmp_path: Path, receiver: Receiver) -> None:
    (tmp_path / "outbox.toml").write_text(definition(receiver.url))
    probe = send_probe(one_database.url, tmp_path, "hook")
    assert probe.returncode == 0, probe.stderr
    assert probe.stdout.startswith("hook: delivered as 0-")
    assert receiver.accepted[0].headers["ce-type"] == "orders.probe"
    receiver.script.append(500)
    assert "it answered 500" in send_probe(one_database.url, tmp_path, "hook").stderr
    assert send_probe(one_database.url, tmp_path, "nothing").returncode == 2


def test_metrics_say_what_was_delivered(one_database: Database, tmp_path: Path, receiver: Receiver) -> None:
    publish(one_database, "orders.placed", range(10))
    listen = f"127.0.0.1:{free_port()}"
    with relaying(one_database.url, tmp_path, definition(receiver.url), "--metrics", listen):
        wait_until_settled(one_database)
        delivered = 'outbox_relay_delivered_total{outcome="delivered",relay="hook"} 10.0'
        found = wait_for(lambda: delivered in (page := scrape(listen)) and page, "the metrics")  # a moment later
    assert 'outbox_relay_circuit_open{relay="hook"} 0.0' in found
    assert 'outbox_relay_delivery_seconds_bucket{le="+Inf",relay="hook"}' in found


def scrape(listen: str) -> str:
    host, port = listen.split(":")
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer.decode()
