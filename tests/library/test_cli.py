"""The `outbox` command: what it prints, for people and for scripts, and its exit codes."""

import json
from pathlib import Path

import pytest

from outbox import __version__
from tests.shop_floor import Database, outbox, publish, pull, register, subscribe, value


def test_help_names_every_command() -> None:
    result = outbox("", "--help")
    assert result.returncode == 0
    commands = (
        "migrate publish request route cancel edit scheduled schedules worker pause resume purge seek replay dead "
        "apply export topics subscriptions status doctor demo"
    )
    for command in commands.split():
        assert command in result.stdout
        assert outbox("", command, "--help").returncode == 0


def test_publish_prints_the_id_and_stores_the_message(one_database: Database) -> None:
    result = outbox(one_database.url, "publish", "orders", '{"id": 1}', "--key", "k", "-H", "a=b", "-H", "c=d=e")
    assert (result.stdout, result.returncode) == ("1-1\n", 0)
    piped = outbox(one_database.url, "publish", "orders", "-", "--json", input='"text"')
    assert json.loads(piped.stdout) == {"id": "1-2", "topic": "orders", "offset": 2}
    with one_database.connect() as db:
        rows = db.execute('SELECT payload, key, headers FROM outbox.message ORDER BY "offset"').fetchall()
    assert rows == [({"id": 1}, "k", {"a": "b", "c": "d=e"}), ("text", None, None)]


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["t", "no json"], "the payload is not JSON", 2),
        (["t", "1", "-H", "a"], "'a' is not a header: name=value", 2),
        (["a b", "1"], "is not a topic name", 1),
        (["t", "1", "--priority", "10"], "--priority", 2),
    ],
)
def test_a_publish_that_is_refused_says_why(one_database: Database, arguments, says: str, code: int) -> None:
    result = outbox(one_database.url, "publish", *arguments)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == code


def test_a_database_that_is_not_there_is_one_line() -> None:
    result = outbox("postgresql://nobody@127.0.0.1:1/nothing", "status")
    assert result.stderr.startswith("outbox: can't reach the database: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.returncode == 1


def test_a_user_without_privileges_is_told_in_one_line(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("DROP ROLE IF EXISTS outbox_test_nobody")
    db.execute("CREATE ROLE outbox_test_nobody LOGIN")
    url = one_database.url.replace("postgres@", "outbox_test_nobody@")
    for command in (["status"], ["publish", "t", "1"], ["worker", "workers.shop:app"]):
        result = outbox(url, *command)
        assert "permission denied for schema outbox" in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
        assert result.returncode == 1
    db.execute("DROP ROLE outbox_test_nobody")


def test_without_a_database_the_option_is_named() -> None:
    result = outbox("", "status")
    assert "--database-url" in result.stderr
    assert result.returncode == 2


def test_status_shows_topics_subscriptions_and_workers(one_database: Database) -> None:
    db = one_database.connect(autocommit=True)
    publish(db, "orders", *"abcde")
    publish(db, "unread", "x")
    subscribe(db, "mailer", "orders", guarantee="exactly-once")
    worker = value(db, "SELECT outbox.register('host:1', '{mailer}', '1 hour')")
    (message, _) = pull(db, "mailer", worker, 2, lease_size=1)
    failure = json.dumps([{"lease": message.lease, "offset": message.offset, "delay": 3600}])
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [message.lease], failure))

    found = json.loads(outbox(one_database.url, "status", "--json").stdout)
    assert found["topics"] == [
        {"name": "orders", "partitions": 1, "offsets": 5, "subscriptions": 1},
        {"name": "unread", "partitions": 1, "offsets": 1, "subscriptions": 0},
    ]
    (subscription,) = found["subscriptions"]
    assert subscription == {
        "name": "mailer",
        "guarantee": "exactly-once",
        "patterns": ["orders"],
        "lag": 3,
        "in_flight": 1,
        "retrying": 1,
        "dead": 0,
        "workers": 1,
        "paused": False,
        "lost": 0,
    }
    assert found["workers"][0]["name"] == "host:1"
    assert found["workers"][0]["alive"] is True

    text = outbox(one_database.url, "status").stdout
    for word in ("orders", "nobody reads it", "mailer", "exactly-once", "host:1", "alive"):
        assert word in text


@pytest.fixture
def graveyard(one_database: Database) -> Database:
    """Three dead letters of `mailer`."""
    db = one_database.connect(autocommit=True)
    publish(db, "orders", *"abc", key="k")
    subscribe(db, "mailer", "orders")
    worker = register(db)
    for message in pull(db, "mailer", worker, lease_size=1):
        error = {"class": "SMTPError", "text": "[red]mailbox full[/red]", "traceback": "Traceback …"}
        failure = [
            {"lease": message.lease, "offset": message.offset, "delay": None, "reason": "rejected", "error": error}
        ]
        settle = "SELECT outbox.settle(%s, %s, NULL, %s::jsonb)"
        db.execute(settle, (worker, [message.lease], json.dumps(failure)))
    return one_database


def test_dead_letters_are_listed_newest_first(graveyard: Database) -> None:
    listed = json.loads(outbox(graveyard.url, "dead", "list", "--json").stdout)
    assert [(letter["id"], letter["payload"], letter["reason"]) for letter in listed] == [
        ("1-3", "c", "rejected"),
        ("1-2", "b", "rejected"),
        ("1-1", "a", "rejected"),
    ]
    assert [
        letter["id"] for letter in json.loads(outbox(graveyard.url, "dead", "list", "--limit", "1", "--json").stdout)
    ] == ["1-3"]
    text = outbox(graveyard.url, "dead", "list", "mailer").stdout
    assert "SMTPError: [red]mailbox full[/red]" in text, "what users wrote is no markup"
    subscribe(graveyard.connect(autocommit=True), "other", "orders")
    assert "no dead letters" in outbox(graveyard.url, "dead", "list", "other").stdout
    assert "'nobody' does not exist" in outbox(graveyard.url, "dead", "list", "nobody").stderr


def test_a_dead_letter_is_shown_with_its_history(graveyard: Database) -> None:
    (letter,) = json.loads(outbox(graveyard.url, "dead", "show", "1-2", "--json").stdout)
    assert (letter["payload"], letter["key"], letter["attempts"]) == ("b", "k", 1)
    assert letter["errors"][0]["class"] == "SMTPError"
    text = outbox(graveyard.url, "dead", "show", "1-2").stdout
    for word in ("1-2", "mailer", '"b"', "SMTPError: [red]mailbox full[/red]", "Traceback …", "attempt 1"):
        assert word in text


def test_dead_letters_are_redriven_and_purged(graveyard: Database) -> None:
    assert outbox(graveyard.url, "dead", "redrive", "mailer", "1-1").stdout == "redriven: 1\n"
    assert outbox(graveyard.url, "dead", "purge", "mailer", "1-2", "--yes").stdout == "purged: 1\n"
    assert outbox(graveyard.url, "dead", "redrive", "mailer", "--all").stdout == "redriven: 1\n"
    assert graveyard.value("SELECT count(*) FROM outbox.dead_letter") == 0
    assert graveyard.value('SELECT array_agg(payload::text ORDER BY "offset") FROM outbox.redelivery') == ['"a"', '"c"']


def test_purge_asks_first(graveyard: Database) -> None:
    result = outbox(graveyard.url, "dead", "purge", "mailer", "--all", input="n\n")
    assert "delete all dead letter(s)" in result.stdout
    assert result.returncode == 1
    assert graveyard.value("SELECT count(*) FROM outbox.dead_letter") == 3


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["show", "9-9"], "there is no dead letter 9-9", 1),
        (["show", "x"], "'x' is not a message id: it looks like 3-1042", 2),
        (["redrive", "mailer"], "name the ids, or say --all", 2),
        (["redrive", "mailer", "1-1", "--all"], "name the ids, or say --all", 2),
        (["redrive", "mailer", "1-1", "9-9"], "1 of them were not there", 1),
    ],
)
def test_wrong_use_of_dead_says_why(graveyard: Database, arguments, says: str, code: int) -> None:
    result = outbox(graveyard.url, "dead", *arguments)
    assert says in result.stderr
    assert result.returncode == code


def test_migrate_checks_adds_and_removes_the_schema(empty_database: Database) -> None:
    url = empty_database.url
    check = outbox(url, "migrate", "--check")
    assert check.stdout == "the schema outbox is missing, version 0001 is needed: run `outbox migrate`\n"
    assert check.returncode == 1
    for command in (["status"], ["dead", "list"], ["publish", "t", "1"]):
        refused = outbox(url, *command)
        assert "run `outbox migrate`" in refused.stderr
        assert refused.returncode == 1
    assert outbox(url, "migrate").stdout == "the schema outbox is at version 0001\n"
    assert outbox(url, "migrate").returncode == 0
    check = outbox(url, "migrate", "--check")
    assert (check.stdout, check.returncode) == ("the schema outbox is at version 0001: nothing is missing\n", 0)
    assert outbox(url, "migrate", "--to", "base", "--yes").stdout == "the schema outbox is gone\n"
    assert outbox(url, "migrate", "--check").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--from", "0001"], "--from goes with --sql", 2),
        (["--sql", "--check"], "one of them", 2),
        (["--to", "nonsense"], "there is no version 'nonsense'", 1),
        (["--sql", "--from", "nonsense"], "there is no version 'nonsense'", 1),
        (["-d", "banana"], "is not one of Postgres", 1),
        (["-d", "mysql://localhost/x"], "is not one of Postgres", 1),
    ],
)
def test_wrong_use_of_migrate_says_why(one_database: Database, arguments, says: str, code: int) -> None:
    result = outbox(one_database.url, "migrate", *arguments)
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == code


def test_removing_the_schema_asks_first(one_database: Database) -> None:
    assert outbox(one_database.url, "migrate", "--to", "base", input="n\n").returncode == 1
    assert one_database.value("SELECT count(*) FROM outbox.topic") == 0


def test_the_version_is_the_packages() -> None:
    assert outbox("", "--version").stdout == f"outbox {__version__}\n"


def test_the_password_is_in_no_output(tmp_path: Path) -> None:
    url = "postgresql://user:s3cret@127.0.0.1:1/nothing"
    for command in (["status"], ["migrate"], ["migrate", "--check"], ["publish", "t", "1"]):
        result = outbox(url, *command)
        assert "s3cret" not in result.stdout + result.stderr
