"""Later and again and again: from Python, in workers that are killed, from the command line, with each role."""

import asyncio
import itertools
import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from outbox import InvalidDeclaration, InvalidMessage, Outbox, scheduled, schedules
from outbox import connection as connections
from tests.library.test_publish import ASYNC, SYNC
from tests.library.test_roles import Users, refused, users  # noqa: F401  # a fixture
from tests.library.workshop import PREAMBLE, seen
from tests.shop_floor import Database, WorkerProcess, outbox, value, wait_for, worker

NOTHING = f"{PREAMBLE}\n@app.subscribe('s', 't')\ndef handle(m): note(m.payload)\n"
HOUR = timedelta(hours=1)


def run(operation: Any, database: Database) -> Any:
    with database.connect(autocommit=True) as db:
        return connections.run(operation, db)


@pytest.mark.parametrize("kind", SYNC)
def test_publish_later_stores_what_publish_would_on_any_connection(one_database: Database, kind: str) -> None:
    app, at = Outbox(), datetime(2031, 5, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    with SYNC[kind](one_database.url) as connection:
        first = app.publish_later(connection, "t", {"a": 1}, at=at, key="k", headers={"h": "v"}, idempotency_key="i")
        second = app.publish_later(connection, "t", b"raw", delay=HOUR, content_type="text/x")
        connection.commit()
        app.publish_later(connection, "t", "rolled back", delay=HOUR)
        connection.rollback()
        assert app.cancel_scheduled(connection, second)
        connection.rollback()
    one, two = run(scheduled.next_ones("t", 10), one_database)[::-1]
    assert (one.id, one.due_at, one.key, one.headers, one.idempotency_key, one.payload) == (
        first, at, "k", {"h": "v"}, "i", {"a": 1}
    )  # fmt: skip
    assert (two.id, two.headers, two.payload) == (second, {"content-type": "text/x"}, "raw")
    assert timedelta(minutes=59) < two.due_at - datetime.now(UTC) <= HOUR


@pytest.mark.parametrize("kind", ASYNC)
def test_publish_later_is_awaited_on_any_async_connection(one_database: Database, kind: str) -> None:
    async def later() -> None:
        app = Outbox()
        async with ASYNC[kind](one_database.url) as connection:
            id = await app.publish_later(connection, "t", 1, at=datetime.now(UTC) + HOUR)
            await app.publish_later(connection, "t", 2, delay=HOUR)
            assert await app.cancel_scheduled(connection, id)
            await connection.commit()

    asyncio.run(later())
    assert [one.payload for one in run(scheduled.next_ones(None, 10), one_database)] == [2]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"delay": HOUR, "at": datetime.now(UTC)},
        {"delay": -HOUR},
        {"delay": 5},
        {"delay": timedelta(days=36500)},
        {"at": datetime(2031, 1, 1)},
        {"at": "2031-01-01"},
        {"delay": HOUR, "key": 5},
        {"delay": HOUR, "idempotency_key": " "},
    ],
)
def test_a_time_that_is_none_is_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        Outbox().publish_later(object(), "t", 1, **options)


def test_a_priority_and_an_undeclared_topic_are_refused_at_once(one_database: Database) -> None:
    with one_database.connect() as db, pytest.raises(InvalidDeclaration, match="priority 10"):
        Outbox().publish_later(db, "t", 1, delay=HOUR, priority=10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("a b", "* * * * *", "t"), "not a schedule name"),
        (("s", "* * *", "t"), "not a cron expression"),
        (("s", 5, "t"), "cron expression or a timedelta"),
        (("s", timedelta(0), "t"), "too often"),
        (("s", "0 0 30 2 *", "t"), "cron"),
    ],
)
def test_a_schedule_that_is_none_is_refused_where_it_is_declared(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InvalidDeclaration, match=says):
        Outbox().schedule(*arguments)


def test_other_mistakes_in_a_schedule_are_refused_too() -> None:
    app = Outbox()
    app.schedule("s", "0 0 * * *", "t")
    for more in ({"name": "s"}, {"timezone": "Mars/Olympus"}, {"missed": "sometimes"}):
        with pytest.raises(InvalidDeclaration):
            app.schedule(**{"name": "x", "when": "* * * * *", "topic": "t", **more})  # type: ignore[arg-type]
    with pytest.raises(InvalidMessage):
        app.schedule("y", HOUR, "not a topic")


def declared(database: Database, when: str | timedelta = HOUR, **more: Any) -> bool:
    app = Outbox()
    app.schedule("s", when, "t", more.pop("payload", {"a": 1}), **more)
    return bool(run(schedules.declare(app.schedules["s"]), database))


def test_declaring_a_schedule_is_idempotent_and_a_change_takes_effect(one_database: Database) -> None:
    assert declared(one_database, key="k", headers={"h": "v"}, priority=0)
    assert not declared(one_database, key="k", headers={"h": "v"}, priority=0)
    assert declared(one_database, "0 3 * * *", timezone="Europe/Berlin", missed="skip")
    status = run(schedules.find("s"), one_database)
    assert (status.cron, status.every, status.timezone, status.missed, status.payload) == (
        "0 3 * * *", None, "Europe/Berlin", "skip", {"a": 1}
    )  # fmt: skip
    assert status.next_at.astimezone(ZoneInfo("Europe/Berlin")).strftime("%H:%M") == "03:00"
    assert run(schedules.pause("s"), one_database)
    assert declared(one_database, "0 4 * * *")
    assert run(schedules.find("s"), one_database).paused_at is not None
    assert run(schedules.resume("s"), one_database)
    assert run(schedules.find("s"), one_database).next_at.strftime("%H:%M") == "04:00"


def test_a_worker_publishes_what_is_due_though_its_application_declares_nothing(shop: Database, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, NOTHING) as process:
        with shop.connect() as db:
            for number in range(20):
                Outbox().publish_later(db, "t", number, delay=timedelta(milliseconds=50 * number))
        wait_for(lambda: len(seen(shop)) == 20, "what was published later")
        assert process.stop() == 0
    assert seen(shop) == [str(number) for number in range(20)], "in the order in which they were due"
    assert shop.value("SELECT count(*) FROM outbox.scheduled") == 0


def test_a_worker_declares_the_schedules_of_its_application(shop: Database, tmp_path: Path) -> None:
    app = f"{NOTHING}\napp.schedule('every-second', '* * * * * *', 't', 'tick', headers={{'h': 'v'}})\n"
    with worker(shop.url, tmp_path, app) as process:
        wait_for(lambda: len(seen(shop)) >= 2, "two ticks")
        assert outbox(shop.url, "schedules", "pause", "every-second").returncode == 0
        assert process.stop() == 0
    with worker(shop.url, tmp_path, app) as process:
        assert shop.value("SELECT paused_at IS NOT NULL FROM outbox.schedule"), "paused by hand, it stays so"
        assert process.stop() == 0


def test_a_worker_outlives_a_restart_of_the_database_and_goes_on_publishing(
    own_postgres: Database, tmp_path: Path
) -> None:
    own_postgres.execute("CREATE TABLE seen (id serial, what text, at timestamptz DEFAULT now())")
    app = f"{NOTHING}\napp.schedule('every-second', '* * * * * *', 't', 'tick')\n"
    with worker(own_postgres.url, tmp_path, app) as process:
        wait_for(lambda: seen(own_postgres), "a tick")
        own_postgres.postgres.stop("immediate")
        own_postgres.postgres.start()
        before = len(seen(own_postgres))
        wait_for(lambda: len(seen(own_postgres)) > before + 1, "ticks after the restart")
        assert process.stop() == 0
    assert_each_tick_once(own_postgres)


def test_each_tick_is_published_once_though_workers_are_killed_one_after_the_other(
    shop: Database, tmp_path: Path
) -> None:
    app = f"{NOTHING}\napp.schedule('every-second', timedelta(seconds=1), 't', 'tick', missed='all')\n"
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    workers = [WorkerProcess(shop.url, folder, app) for folder in folders]
    try:
        for process in workers:
            process.wait_for_line("worker started")
        for turn, (number, folder) in enumerate(itertools.islice(itertools.cycle(enumerate(folders)), 6)):
            published = count(shop)
            wait_for(lambda published=published: count(shop) > published, "a tick")  # type: ignore[misc]
            workers[number].stop(signal.SIGKILL)
            with shop.connect() as db:
                Outbox().publish_later(db, "later", turn, delay=timedelta(milliseconds=300))
            workers[number] = WorkerProcess(shop.url, folder, app)
        for process in workers:
            process.stop(signal.SIGKILL)
        wait_for(lambda: shop.value("SELECT next_at < now() - interval '2 s' FROM outbox.tick"), "missed ticks")
        workers = [WorkerProcess(shop.url, folder, app) for folder in folders]
        wait_for(lambda: shop.value("SELECT next_at > now() FROM outbox.tick"), "all made up for")
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.scheduled") == 0, "all published")
    finally:
        for process in workers:
            process.kill()
    assert_each_tick_once(shop)
    later = (
        "SELECT array_agg(m.payload::text::int ORDER BY m.payload::text::int) FROM outbox.message m "
        "JOIN outbox.partition p ON p.id = m.partition_id JOIN outbox.topic t ON t.id = p.topic_id "
        "WHERE t.name = 'later'"
    )
    assert shop.value(later) == list(range(6))


def count(database: Database) -> int:
    return int(database.value("SELECT count(*) FROM outbox.message WHERE headers ? 'scheduled-for'"))


def assert_each_tick_once(database: Database) -> None:
    """The ledger: each second from the first tick to the last, no more and no less."""
    with database.connect() as db:
        rows = db.execute(
            "SELECT headers ->> 'scheduled-for' FROM outbox.message WHERE headers ->> 'schedule' IS NOT NULL"
        )
        found = sorted(datetime.fromisoformat(at) for (at,) in rows)
    assert found, "no ticks"
    assert found == [found[0] + timedelta(seconds=n) for n in range(len(found))]


def test_a_schedule_that_this_machine_can_not_compute_says_so_and_stops_no_other(
    shop: Database, tmp_path: Path
) -> None:
    shop.execute(
        "SELECT outbox.declare_schedule('bad', 't', '1', cron => '* * * * * *', timezone => 'Mars/Olympus', "
        "next_at => now())"
    )
    app = f"{NOTHING}\napp.schedule('good', timedelta(seconds=1), 't', 'tick')\n"
    with worker(shop.url, tmp_path, app) as process:
        wait_for(lambda: seen(shop), "a tick of the other")
        process.wait_for_line("a schedule can't tick")
        assert process.stop() == 0
    assert "Mars/Olympus" in run(schedules.find("bad"), shop).error


def test_schedules_from_the_command_line(one_database: Database) -> None:
    url = one_database.url
    assert "no schedules" in outbox(url, "schedules", "list").stdout
    declared(one_database, "30 2 * * *", timezone="Europe/Berlin", payload={"secret": 1})
    listed = outbox(url, "schedules", "list").stdout
    assert "30 2 * * *, Europe/Berlin" in listed
    assert json.loads(outbox(url, "schedules", "list", "--json").stdout)[0]["name"] == "s"
    assert '{"secret":1}' in outbox(url, "schedules", "show", "s").stdout
    ticks = json.loads(outbox(url, "schedules", "preview", "s", "-n", "3", "--json").stdout)
    assert len(ticks) == 3
    assert all(datetime.fromisoformat(tick).utcoffset() for tick in ticks), "in its own zone"
    assert len(outbox(url, "schedules", "preview", "s").stdout.splitlines()) == 5
    assert outbox(url, "schedules", "run-now", "s").stdout == "published\n"
    assert one_database.value("SELECT headers ->> 'schedule' FROM outbox.message") == "s"
    assert outbox(url, "schedules", "pause", "s").stdout == "paused\n"
    assert "paused" in outbox(url, "schedules", "list").stdout
    assert outbox(url, "schedules", "resume", "s").stdout == "resumed\n"
    assert outbox(url, "schedules", "delete", "s", "--yes").stdout == "deleted\n"
    for command in ("show", "pause", "resume", "preview", "run-now"):
        result = outbox(url, "schedules", command, "s")
        assert result.returncode == 1
        assert "there is no schedule 's'" in result.stderr


def test_messages_to_come_from_the_command_line(one_database: Database) -> None:
    url = one_database.url
    assert "nothing is to come" in outbox(url, "scheduled", "list").stdout
    assert outbox(url, "publish", "t", '{"a": 1}', "--delay", "1h30m", "--key", "k").stdout == "1\n"
    at = outbox(url, "publish", "t", "2", "--at", "2031-12-24T18:00+01:00", "--json")
    assert json.loads(at.stdout) == {"id": 2, "topic": "t"}
    first, second = json.loads(outbox(url, "scheduled", "list", "t", "--json").stdout)
    assert (first["key"], first["payload"], second["payload"]) == ("k", {"a": 1}, 2)
    assert datetime.fromisoformat(second["due_at"]) == datetime(2031, 12, 24, 17, tzinfo=UTC)
    assert outbox(url, "scheduled", "edit", "2", "--at", "2032-01-01T00:00Z", "--payload", "3").returncode == 0
    assert json.loads(outbox(url, "scheduled", "show", "2", "--json").stdout)["payload"] == 3
    assert '{"a":1}' in outbox(url, "scheduled", "show", "1").stdout
    assert "2032-01-01" in outbox(url, "scheduled", "list").stdout
    assert outbox(url, "scheduled", "cancel", "1").returncode == 0
    for arguments in (["cancel", "1"], ["show", "1"], ["edit", "1", "--key", "k"]):
        result = outbox(url, "scheduled", *arguments)
        assert result.returncode == 1
        assert "there is no message 1 to come" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["publish", "t", "1", "--delay", "soon"], "is not a duration"),
        (["publish", "t", "1", "--at", "soon"], "is not a time"),
        (["publish", "t", "1", "--at", "2031-01-01", "--delay", "1s"], "not both"),
        (["scheduled", "edit", "1"], "say what to change"),
        (["scheduled", "edit", "1", "--payload", "{"], "the payload is not JSON"),
    ],
)
def test_a_command_that_is_used_wrongly_says_why(arguments: list[str], says: str) -> None:
    result = outbox("postgresql://nobody@127.0.0.1:1/nothing", *arguments)
    assert says in result.stderr
    assert result.returncode == 2


def test_each_role_can_do_its_part_and_no_more(shop: Database, users: Users, tmp_path: Path) -> None:  # noqa: F811
    with users.connect("outbox_publisher") as db:
        Outbox().publish_later(db, "t", "secret", delay=timedelta(0))
        id = Outbox().publish_later(db, "t", "secret", delay=HOUR)
    refused(
        users.url("outbox_publisher"),
        "SELECT * FROM outbox.scheduled",
        "SELECT * FROM outbox.publish_due()",
        f"SELECT outbox.cancel_scheduled({id})",
        "SELECT outbox.declare_schedule('s', 't', '1', every => '1 hour')",
        "SELECT outbox.publish_scheduled('{1}')",
    )
    shop.execute(f"GRANT INSERT ON seen TO {users.name('outbox_worker')}; GRANT USAGE ON seen_id_seq TO PUBLIC")
    app = f"{NOTHING}\napp.schedule('s', '* * * * * *', 't', 'tick')\n"
    with worker(users.url("outbox_worker"), tmp_path, app) as process:
        wait_for(lambda: {"secret", "tick"} <= set(seen(shop)), "both kinds")
        assert process.stop() == 0
    refused(
        users.url("outbox_worker"),
        "SELECT payload FROM outbox.scheduled",
        "SELECT payload FROM outbox.schedule",
        "SELECT outbox.pause_schedule('s')",
        "SELECT outbox.delete_schedule('s')",
    )
    with users.connect("outbox_monitor") as db:
        assert value(db, "SELECT count(*) FROM outbox.scheduled WHERE due_at > now()") == 1
        assert value(db, "SELECT count(next_at) FROM outbox.schedule s JOIN outbox.tick t ON t.schedule_id = s.id") == 1
    refused(
        users.url("outbox_monitor"),
        *(f"SELECT {column} FROM outbox.scheduled" for column in ("payload", "body", "headers", "key", "error")),
        *(f"SELECT {column} FROM outbox.schedule" for column in ("payload", "body", "headers", "key")),
        "SELECT * FROM outbox.publish_due()",
        "SELECT outbox.run_schedule('s')",
    )
    admin = users.url("outbox_admin")
    assert outbox(admin, "schedules", "run-now", "s").returncode == 0
    assert outbox(admin, "schedules", "delete", "s", "--yes").returncode == 0
    assert outbox(admin, "scheduled", "cancel", str(id)).returncode == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege), users.connect("outbox_admin") as db:
        db.execute("DELETE FROM outbox.schedule")
