"""Passwords and payloads appear in no log, error or list of processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from outbox.logs import redact
from tests.library.workshop import PREAMBLE, publish, seen, wait_for_rest
from tests.shop_floor import Database, outbox, wait_for, worker


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://shop:hush@db/shop", "postgresql://shop:***@db/shop"),
        ("amqp://u:p%40ss@h:5672//", "amqp://u:***@h:5672//"),
        ("host=db password=hush user=shop", "host=db password=*** user=shop"),
        ("{'password': 'hush', 'a': 1}", "{'password': ***, 'a': 1}"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("Authorization: Token abc", "Authorization: ***"),
        ("PGPASSWORD=hush psql", "PGPASSWORD=*** psql"),
        ("access_token=hush client_secret: hush", "access_token=*** client_secret: ***"),
        ("password='two words' user=x", "password=*** user=x"),
        ("redis://u:p@ss@h/0 and more", "redis://u:***@h/0 and more"),
        ("GET https://h/x?api_key=hush&a=1", "GET https://h/x?api_key=***&a=1"),
        ("nothing here at 12:30 by shop@example.com", "nothing here at 12:30 by shop@example.com"),
    ],
)
def test_passwords_are_taken_out_of_texts(text: str, redacted: str) -> None:
    assert redact(text) == redacted


ERRORS = {
    "a database error": """for _ in range(2):
        connection.execute("INSERT INTO seen (what) VALUES (%s)", (message.payload["card"],))""",
    "a session's error": """connection.execute(text("SELECT CAST(:p AS int)"), {"p": message.payload["card"]})""",
    "a validation error": "message.decode(Order)",
    "an error with a password": "raise OSError('postgresql://shop:hush@db/shop')",
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_failure_is_logged_without_its_message(shop: Database, tmp_path: Path, kind: str) -> None:
    wanted = "Session" if kind == "a session's error" else "psycopg.Connection"
    app = f"""{PREAMBLE}
from pydantic import BaseModel

class Order(BaseModel):
    card: int

@app.subscribe("s", "t", retries=Retries(max_attempts=1))
def handle(message, connection: {wanted}):
    {ERRORS[kind]}
"""
    shop.execute("CREATE UNIQUE INDEX ON seen (what)")
    publish(shop, "t", {"card": "4111-1111"})
    with worker(shop.url, tmp_path, app, "--log-level", "DEBUG") as process:
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter"), "the dead letter")
        process.stop()
        assert "dead letter" in process.log
        assert "4111" not in process.log
        assert "hush" not in process.log
    assert "hush" not in shop.value("SELECT errors::text FROM outbox.dead_letter")


def test_the_password_of_the_database_is_nowhere_to_be_seen(shop: Database, tmp_path: Path) -> None:
    secret = "sesame-81"
    url = shop.url.replace("postgres@", f"postgres:{secret}@")
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): note(message.payload)\n"
    with worker(url, tmp_path, app, "--processes", "2", "--log-level", "DEBUG") as process:
        publish(shop, "t", 1)
        wait_for(lambda: seen(shop), "the message")
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert "outbox worker" in listed
        assert secret not in listed
        shop.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'outbox'")
        publish(shop, "t", 2)
        wait_for_rest(shop)
        process.stop()
        assert secret not in process.log
    malformed, unreachable = (
        [url.replace("postgresql:", "mysql:"), "?" + url],
        [url.replace("@127", "@0127.x"), url + "x"],
    )
    for wrong in malformed + unreachable:
        for command in (["status"], ["migrate"], ["worker", "app_under_test:app"], ["publish", "t", "1"]):
            if command[0] == "worker" and wrong in unreachable:
                continue  # it waits for the database
            result = outbox(wrong, *command, folder=tmp_path)
            assert result.returncode != 0
            assert secret not in result.stdout + result.stderr, (wrong, command)


def test_values_of_the_environment_are_no_help_text(shop: Database) -> None:
    for command in ("status", "worker", "migrate", "publish"):
        assert "hush" not in outbox("postgresql://shop:hush@db/shop", command, "--help").stdout


def test_texts_of_errors_are_logged_when_they_are_asked_for(shop: Database, tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): raise Reject('no ' + str(message.payload))\n"
    publish(shop, "t", 81)
    with worker(shop.url, tmp_path, app, "--log-errors") as process:
        process.wait_for_line("no 81")


def test_payloads_are_not_logged_even_in_debug(shop: Database, tmp_path: Path) -> None:
    app = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(message): note('x')\n"
    publish(shop, "t", {"card": "4111-1111"})
    with worker(shop.url, tmp_path, app, "--log-level", "DEBUG") as process:
        wait_for_rest(shop)
        assert "4111" not in process.log
