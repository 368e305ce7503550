"""Conditions, settings and commands of subscriptions, with workers as users run them."""

from __future__ import annotations

import json
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from outbox import BacklogFull, Binding, InvalidDeclaration, InvalidMessage, NewMessage, Outbox
from tests.library.workshop import PREAMBLE, publish, seen
from tests.shop_floor import Database, at_rest, outbox, value, wait_for, worker

IN_TRANSACTION = """def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (str(message.payload),))
"""


def app_of(settings: str, handler: str = IN_TRANSACTION) -> str:
    return f"{PREAMBLE}\nfrom outbox import Binding\n@app.subscribe('s', {settings})\n{handler}"


def test_a_binding_chooses_by_headers_and_content(shop: Database, tmp_path: Path) -> None:
    app = Outbox()
    with psycopg.connect(shop.url) as db:
        for total in (5, 500):
            for country in ("DE", "FR"):
                app.publish(db, "orders.placed", {"t": total, "c": country}, headers={"country": country})
    binding = "Binding('orders.*', headers={'country': 'DE'}, filter='$.t > 100')"
    with worker(shop.url, tmp_path, app_of(f"{binding}, guarantee='exactly-once'")) as process:
        wait_for(lambda: at_rest(shop) and seen(shop), "it is at rest")
        assert process.stop() == 0
    assert seen(shop) == [str({"t": 500, "c": "DE"})]


def test_a_worker_reads_on_where_thousands_are_passed_over(shop: Database, tmp_path: Path) -> None:
    with psycopg.connect(shop.url) as db:
        Outbox().publish_many(db, "t", ({"n": n} for n in range(20_000)))
    binding = "Binding('t', filter='$.n == 7 || $.n == 19999'), prefetch=1"
    with worker(shop.url, tmp_path, app_of(binding)):
        wait_for(lambda: len(seen(shop)) == 2, "the two that fit")


def test_a_declaration_that_cannot_be_is_refused(shop: Database, tmp_path: Path) -> None:
    app = Outbox()
    for settings in ({"rate": "10"}, {"ttl": 5}, {"exclusive": 1}, {"speed": 1}):
        with pytest.raises(InvalidDeclaration, match="subscription 's'"):
            app.subscribe("s", "t", **settings)(lambda message: None)
    with pytest.raises(InvalidDeclaration, match="headers are names and values"):
        Binding("t", headers={"a": 1})  # type: ignore[dict-item]
    with pytest.raises(InvalidDeclaration, match="match is"):
        Binding("t", match="some")  # type: ignore[arg-type]
    (tmp_path / "app_under_test.py").write_text(app_of("Binding('t', filter='total > 5')"))
    refused = outbox(shop.url, "worker", "app_under_test:app", folder=tmp_path)
    assert refused.returncode == 1
    assert "is not a predicate in SQL/JSON path" in refused.stderr


#: Notes when each lease was made, and for how many messages.
HANDED_OUT = """
CREATE TABLE handed_out (at timestamptz, messages bigint);
CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.handed_out
    SELECT new.leased_at, sum(upper(r) - lower(r)) FROM unnest(new.offsets) AS r;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON outbox.lease FOR EACH ROW EXECUTE FUNCTION note_lease()
"""


def test_a_rate_holds_for_all_processes_together(shop: Database, tmp_path: Path) -> None:
    publish(shop, "t", *range(60))
    shop.execute(HANDED_OUT)  # its effects may come late, and all at once
    with worker(shop.url, tmp_path, app_of("'t', rate=20.0, burst=5"), "--processes", "3"):
        wait_for(lambda: len(seen(shop)) == 60, "all messages")
    with shop.connect() as db:
        span = value(db, "SELECT extract(epoch FROM max(at) - min(at)) FROM handed_out")
        busiest = value(
            db,
            "SELECT max(n) FROM (SELECT sum(messages) OVER "
            "(ORDER BY at RANGE BETWEEN CURRENT ROW AND interval '1 s' FOLLOWING) AS n FROM handed_out) AS t",
        )
    assert span >= 55 / 20 * 0.8
    assert busiest <= 2 * (5 + 20)


def test_a_subscription_is_paused_and_resumed_while_its_worker_runs(shop: Database, tmp_path: Path) -> None:
    with worker(shop.url, tmp_path, app_of("'t'")):
        publish(shop, "t", 1)
        wait_for(lambda: seen(shop) == ["1"], "the first")
        assert outbox(shop.url, "pause", "s").stdout == "paused: s\n"
        publish(shop, "t", 2)
        other = shop.connect(autocommit=True)
        wait_for(lambda: value(other, "SELECT sum(lag) FROM outbox.lag") == 1, "it waits")
        time.sleep(0.5)
        assert seen(shop) == ["1"]
        assert outbox(shop.url, "resume", "s").stdout == "resumed: s\n"
        wait_for(lambda: seen(shop) == ["1", "2"], "the second")


def test_when_the_owner_of_an_exclusive_subscription_is_killed_another_goes_on(shop: Database, tmp_path: Path) -> None:
    handler = """def handle(message, connection: psycopg.Connection):
    connection.execute("INSERT INTO seen (what) VALUES (%s)", (f"{os.getpid()} {message.payload}",))
    time.sleep(0.005)
"""
    app = app_of("'t', exclusive=True, guarantee='exactly-once'", handler)
    publish(shop, "t", *range(300))
    with (
        worker(shop.url, tmp_path, app, "--timeout", "10") as one,
        worker(shop.url, tmp_path, app, "--timeout", "10") as two,
    ):
        wait_for(lambda: len(seen(shop)) > 20, "some")
        owners = {line.split()[0] for line in seen(shop)}
        assert len(owners) == 1
        owner = next(p for p in (one, two) if str(p.process.pid) in owners)
        owner.kill()
        wait_for(lambda: len(seen(shop)) >= 300, "all")
    handled = [line.split() for line in seen(shop)]
    assert sorted(int(number) for _, number in handled) == list(range(300))
    assert [pid for pid, _ in handled] == sorted((pid for pid, _ in handled), key=lambda pid: pid not in owners)


def test_the_owner_that_stops_hands_over_at_once(shop: Database, tmp_path: Path) -> None:
    app, patient = app_of("'t', exclusive=True"), ("--timeout", "600")
    with worker(shop.url, tmp_path, app, *patient) as one, worker(shop.url, tmp_path, app, *patient):
        owner = lambda: shop.value("SELECT worker_id FROM outbox.owner")  # noqa: E731
        publish(shop, "t", 1)
        wait_for(lambda: seen(shop) == ["1"], "the first")
        first = owner()
        assert one.stop(signal.SIGTERM) == 0
        publish(shop, "t", 2)
        wait_for(lambda: seen(shop) == ["1", "2"], "the second")
        ended = shop.value("SELECT retired_at IS NOT NULL FROM outbox.worker WHERE id = %s", first)
        assert (owner() != first) == ended


def test_a_full_backlog_is_an_error_of_its_own(shop: Database) -> None:
    app = Outbox()
    shop.execute("SELECT outbox.declare_topic('t')")
    shop.execute("SELECT outbox.subscribe('s')")
    shop.execute("SELECT outbox.bind('s', 't')")
    shop.value("SELECT outbox.configure('s', %s)", json.dumps({"max_backlog": 2, "overflow": "reject-publish"}))
    with psycopg.connect(shop.url) as db:
        app.publish_many(db, "t", [1, 2])
        with pytest.raises(BacklogFull, match="raise max_backlog"):
            app.publish(db, "t", 3)
        db.rollback()
        assert app.pause(db, "s") is True
        assert app.resume(db, "s") is True
        assert app.resume(db, "s") is False


def test_a_time_to_live_is_a_timedelta(shop: Database) -> None:
    app = Outbox()
    with psycopg.connect(shop.url) as db:
        app.publish(db, "t", 1, ttl=timedelta(minutes=5))
        app.publish_many(db, "t", [NewMessage(2, ttl=timedelta(seconds=1.5)), 3])
        for wrong in (5, timedelta(0), timedelta(seconds=-1)):
            with pytest.raises(InvalidMessage, match="ttl"):
                app.publish(db, "t", 1, ttl=wrong)  # type: ignore[arg-type]
    lives = 'SELECT extract(epoch FROM expires_at - published_at)::float8 FROM outbox.message ORDER BY "offset"'
    with shop.connect() as db:
        assert [row[0] and round(row[0], 1) for row in db.execute(lives)] == [300, 1.5, None]


def test_route_cancel_edit_and_purge_from_the_command_line(one_database: Database) -> None:
    url = one_database.url
    one_database.execute("SELECT outbox.subscribe('big')")
    one_database.execute("SELECT outbox.bind('big', 'orders.*', filter => '$.total > 100')")
    one_database.execute("SELECT outbox.subscribe('all')")
    one_database.execute("SELECT outbox.bind('all', '#')")
    routed = outbox(url, "route", "orders.placed", "--payload", '{"total": 5}')
    why_not = "    orders.*: $.total > 100 is not true for the payload"
    assert routed.stdout.splitlines() == ["✓ all", "    #: the topic matches", "· big", why_not]
    verdicts = json.loads(outbox(url, "route", "orders.placed", "--payload", '{"total": 500}', "--json").stdout)
    assert {one["subscription"] for one in verdicts if one["takes"]} == {"all", "big"}
    for payload in ("1", "2", "3"):
        assert outbox(url, "publish", "t", payload, "--ttl", "1h").returncode == 0
    assert outbox(url, "publish", "t", "4", "--ttl", "soon").returncode == 2
    assert outbox(url, "cancel", "1-1").stdout == "cancelled for: all\n"
    assert outbox(url, "edit", "1-2", '"two"').stdout == "changed for: all\n"
    assert one_database.value("SELECT payload #>> '{}' FROM outbox.message WHERE \"offset\" = 2") == "two"
    assert outbox(url, "purge", "all", "--yes").stdout == "purged: 3\n"
    refused = outbox(url, "cancel", "1-3")
    assert (refused.returncode, "no subscription waits" in refused.stderr) == (1, True)
    assert outbox(url, "pause", "nobody").returncode == 1


def test_a_worker_whose_handler_becomes_slow_gives_back_what_is_too_much(shop: Database, tmp_path: Path) -> None:
    handler = """def handle(message):
    print(message.payload, file=done)
    time.sleep(0.2 if os.path.exists("slow") else 0.001)

done = open("done", "a", buffering=1)
"""
    publish(shop, "t", *range(5000))
    in_hand = "SELECT coalesce(sum(messages), 0) FROM outbox.in_flight"
    with worker(shop.url, tmp_path, app_of("'t'", handler)):
        wait_for(lambda: shop.value(in_hand) > 50, "it has many in hand")
        (tmp_path / "slow").touch()
        wait_for(lambda: shop.value(in_hand) < 20, "it gave them back")
        (tmp_path / "slow").unlink()
        wait_for(lambda: at_rest(shop), "all is handled")
    assert sorted(map(int, (tmp_path / "done").read_text().split())) == list(range(5000))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rate": 0}, "more than nothing"),
        ({"ttl": timedelta(seconds=-1)}, "more than nothing"),
        ({"overflow": "drop-head"}, "one of drop-oldest, reject-publish"),
        ({"dead_letter_topic": "a b"}, "not a topic's name"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_where_it_is_declared(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidDeclaration, match=says):
        Outbox().subscribe("s", "t", **settings)(lambda message: None)
