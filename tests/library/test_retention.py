"""Retention by command line, from Python and in definitions; and how it is told that somebody lost something."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from outbox import Outbox, definitions
from outbox.cli import app as cli
from outbox.definitions import Definitions, Subscription, Topic
from outbox.errors import InvalidDeclaration
from tests import shop_floor
from tests.shop_floor import Database, publish, subscribe, value, worker

app = Outbox()


@pytest.fixture
def db(one_database: Database) -> psycopg.Connection[Any]:
    return one_database.connect(autocommit=True)


def outbox(database: Database, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [*arguments, "-d", database.url], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def classes(database: Database) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(outbox(database, "retention", "list", "--json"))}


def lose(db: psycopg.Connection[Any], messages: int) -> None:
    """Messages of `t` that `s` has not taken when their retention ends."""
    subscribe(db, "s", "t")
    db.execute("""SELECT outbox.configure('s', '{"backlog": "expire"}')""")
    publish(db, "t", *map(str, range(messages)))
    db.execute("SELECT outbox.rotate_as_of(clock_timestamp() + interval '7 days')")


def findings(database: Database, check: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, ["doctor", "--json", "-d", database.url])
    return [one for one in json.loads(result.stdout) if one["check"] == check and one["severity"] != "ok"]


def test_a_class_is_changed_and_shown(one_database: Database) -> None:
    assert list(classes(one_database)) == ["standard", "short", "transient", "long"]
    assert "changed" in outbox(one_database, "retention", "set", "short", "--keep", "12h", "--max-size", "1.5GB")
    assert "nothing to change" in outbox(one_database, "retention", "set", "short", "--keep", "12h")
    short = classes(one_database)["short"]
    assert (short["keep"], short["max_bytes"], short["slots"]) == ("PT43200S", 3 * 2**29, 4)
    table = outbox(one_database, "retention", "list")
    assert "12h" in table
    assert "1536 MB" in table
    outbox(one_database, "retention", "set", "short", "--max-size", "none")
    assert classes(one_database)["short"]["max_bytes"] is None
    assert classes(one_database)["transient"]["unlogged"]


@pytest.mark.parametrize(
    "wrong", [["gold", "--keep", "1d"], ["short"], ["short", "--max-size", "lots"], ["short", "--keep", "soon"]]
)
def test_what_can_not_be_set_is_refused(one_database: Database, wrong: list[str]) -> None:
    result = shop_floor.outbox(one_database.url, "retention", "set", *wrong)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr


def test_python_declares_and_changes(one_database: Database) -> None:
    with one_database.connect() as connection:
        app.declare_topic(connection, "t", retention="long", compact=True)
        app.declare_topic(connection, "t", retention="long")
        assert app.set_retention(connection, "long", keep=timedelta(days=30))
        assert not app.set_retention(connection, "long", keep=timedelta(days=30))
        with pytest.raises(InvalidDeclaration, match="timedelta"):
            app.set_retention(connection, "long", keep=30)  # type: ignore[arg-type]
    assert one_database.value("SELECT retention || compact FROM outbox.topic") == "longtrue"
    assert one_database.value("SELECT keep FROM outbox.kept WHERE name = 'long'") == timedelta(days=30)


def test_definitions_say_what_is_compacted_and_whose_backlog_expires(one_database: Database) -> None:
    def apply(compact: bool, backlog: Any) -> str:
        wanted = Definitions(
            topics={"t": Topic(compact=compact)}, subscriptions={"s": Subscription(bindings=("t",), backlog=backlog)}
        )
        with one_database.connect() as connection:
            return str(definitions.apply(connection, wanted))

    apply(True, "expire")
    apply(True, "expire")
    row = "SELECT t.compact || ' ' || s.backlog FROM outbox.topic t, outbox.subscription s"
    assert one_database.value(row) == "true expire"
    apply(False, "hold")
    assert one_database.value(row) == "false hold"
    with pytest.raises(InvalidDeclaration, match="reject-publish"):
        definitions.plan(
            one_database.connect(),
            Definitions(subscriptions={"s": Subscription(max_backlog=1, overflow="reject-publish", backlog="expire")}),
        )


def test_who_holds_a_slot_is_shown_with_its_class(one_database: Database, db) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a")
    slots = "UPDATE outbox.message SET slot = mod(slot + 1, 8), published_at = now() - interval '7 days'"
    db.execute(slots)
    (held_by,) = classes(one_database)["standard"]["held_by"]
    assert "subscription s stands at offset 0 of partition 1" in held_by
    assert "subscription s stands" in outbox(one_database, "retention", "list")


def test_what_was_lost_is_shown_until_it_is_acknowledged(one_database: Database, db) -> None:
    assert "nothing was lost" in outbox(one_database, "retention", "lost")
    lose(db, 3)
    (loss,) = json.loads(outbox(one_database, "retention", "lost", "--json", code=1))
    assert (loss["subscription"], loss["first_offset"], loss["last_offset"], loss["messages"]) == ("s", 1, 3, 3)
    assert "1 to 3" in outbox(one_database, "retention", "lost", code=1)
    assert json.loads(outbox(one_database, "status", "--json"))["subscriptions"][0]["lost"] == 3
    assert "lost 3" in outbox(one_database, "status")
    (finding,) = findings(one_database, "messages-lost")
    assert (finding["severity"], finding["fields"]["subscription"], finding["fields"]["messages"]) == (
        "warning",
        "s",
        3,
    )
    assert "outbox retention acknowledge s" in finding["mend"]
    assert "acknowledged: 3" in outbox(one_database, "retention", "acknowledge", "s")
    assert findings(one_database, "messages-lost") == []
    outbox(one_database, "retention", "lost")
    assert json.loads(outbox(one_database, "status", "--json"))["subscriptions"][0]["lost"] == 0
    assert value(db, "SELECT messages FROM outbox.loss WHERE acknowledged_at IS NOT NULL") == 3


def test_a_class_that_is_too_large_and_has_nothing_to_empty_is_found(one_database: Database, db) -> None:
    publish(db, "t", "a")
    db.execute("SELECT outbox.set_retention('standard', max_bytes => 1)")
    (finding,) = findings(one_database, "class-too-large")
    assert finding["fields"]["class"] == "standard"
    assert findings(one_database, "slot-due") == []


def test_a_slot_that_is_due_by_size_is_found_if_nobody_rotates(one_database: Database, db) -> None:
    publish(db, "t", "a")
    db.execute("UPDATE outbox.message SET slot = mod(slot + 6, 8), published_at = now() - interval '2 days'")
    db.execute("SELECT outbox.set_retention('standard', max_bytes => 1)")
    (finding,) = findings(one_database, "slot-due")
    assert finding["fields"]["early"]
    assert "(standard, which is larger than its limit) is due, nobody holds it, and nobody rotates" in finding["what"]
    assert findings(one_database, "class-too-large") == []
    register = "SELECT outbox.register('w', '{}', '1 hour')"
    db.execute(register)
    assert findings(one_database, "slot-due") == [], "a worker will see to it"
    db.execute("SELECT outbox.rotate()")
    assert value(db, "SELECT count(*) FROM outbox.message") == 0


APP = """
from outbox import Outbox, housekeeping
housekeeping._HOUSEKEEPING = 0.1
app = Outbox()

@app.subscribe("other", "others")
def handle(message): pass
"""


def test_a_worker_says_what_was_lost_once(one_database: Database, db, tmp_path: Path) -> None:
    lose(db, 3)
    with worker(one_database.url, tmp_path, APP) as process:
        process.wait_for_line("messages were lost")
        assert "subscription=s topic=t messages=3 partition_id=1 first_offset=1 last_offset=3" in process.log
        publish(db, "t", "d")
        db.execute("SELECT outbox.rotate_as_of(clock_timestamp() + interval '7 days')")
        process.wait_for_line("first_offset=4")
        assert process.log.count("messages were lost") == 2
