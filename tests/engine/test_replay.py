"""A replay: copies of what a subscription has taken go to it once more, beside all else and to nobody else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.test_dead_rows import pages
from tests.shop_floor import Database, Pulled, drain, payloads, publish, pull, register, settle, subscribe, value

NOON = datetime(2020, 2, 23, 12, tzinfo=UTC)


@pytest.fixture
def worker(db) -> int:
    return register(db)


def replay(
    db: psycopg.Connection[Any], first: int = 1, last: int = 1000, subscription: str = "s", **more: Any
) -> tuple[int, int, int]:
    """reached, replayed, skipped"""
    named = "".join(f", {name} => %s" for name in more)
    row = db.execute(
        f"SELECT * FROM outbox.replay(%s, 1, %s, %s{named})", (subscription, first, last, *more.values())
    ).fetchone()
    assert row is not None
    return row


def fail(db: psycopg.Connection[Any], worker: int, message: Pulled, delay: float | None = 0) -> None:
    failures = [{"lease": message.lease, "offset": message.offset, "delay": delay, "error": {"class": "E"}}]
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s)", (worker, [message.lease], json.dumps(failures)))


def test_what_is_replayed_comes_once_more_to_one_subscription(db, worker) -> None:
    publish(db, "t", *"abcd")
    subscribe(db, "s", "t")
    subscribe(db, "other", "t")
    drain(db, "s", worker)
    assert replay(db, 2, 3) == (3, 2, 0)
    publish(db, "t", "live")
    pulled = pull(db, "s", worker)
    assert sorted((m.payload, m.attempt, m.redelivered) for m in pulled) == [
        ("b", 1, True),
        ("c", 1, True),
        ("live", 1, False),
    ]
    settle(db, worker, pulled)
    assert drain(db, "s", worker) == []
    assert drain(db, "other", worker) == ["a", "b", "c", "d", "live"]


def test_what_is_to_come_anyway_is_not_replayed(database: Database, db, worker) -> None:
    """Beyond the cursor, or late: of a transaction that was open when its offset was passed."""
    publish(db, "t", "taken")
    slow = database.connect()
    publish(slow, "t", "late")
    publish(db, "t", "taken too", "to come")
    subscribe(db, "s", "t")
    settle(db, worker, pull(db, "s", worker, 2))
    assert replay(db, dry_run=True)[1:] == (2, 0)
    slow.commit()
    assert replay(db)[1:] == (2, 0)
    assert sorted(drain(db, "s", worker)) == ["late", "taken", "taken too", "to come"]
    assert replay(db, dry_run=True)[1:] == (4, 0)


def test_what_waits_or_is_in_hand_is_skipped(db, worker) -> None:
    publish(db, "t", *"abcd")
    subscribe(db, "s", "t")
    in_hand, waits, tried = (pull(db, "s", worker, 1)[0] for _ in range(3))
    fail(db, worker, waits, 3600)
    fail(db, worker, tried)
    again = pull(db, "s", worker, 1) or pull(db, "s", worker, 1)
    rest = pull(db, "s", worker)
    settle(db, worker, [m for m in again + rest if m.payload == "d"])
    assert replay(db, dry_run=True)[1:] == (1, 3)
    assert replay(db)[1:] == (1, 3)
    assert replay(db)[1:] == (0, 4)
    settle(db, worker, [in_hand])
    assert payloads(pull(db, "s", worker)) == ["d"]


def test_who_does_not_read_the_partition_is_told(db) -> None:
    publish(db, "t", "a")
    db.execute("SELECT outbox.subscribe('s')")
    for call in ("outbox.replay('s', 1, 1, 9)", "outbox.replay_ranges('s', 't')", "outbox.replay_ranges('x', 't')"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"SELECT {call}")
        assert caught.value.sqlstate == "OB004"
    subscribe(db, "s", "t")
    wrong = ("rate => 0", "rate => 'NaN'", "max_messages => 0", "max_messages => NULL", "filter => 'a >'")
    for argument in wrong:
        with pytest.raises(psycopg.Error) as caught:
            db.execute(f"SELECT outbox.replay('s', 1, 1, 9, {argument})")
        assert caught.value.sqlstate == "OB007", argument


def test_messages_are_chosen_by_time_key_headers_and_filter(db, worker) -> None:
    subscribe(db, "s", "t")
    for n in range(8):
        headers = json.dumps({"country": "DE" if n % 2 else "FR"})
        value(db, "SELECT outbox.publish('t', %s::json, %s, %s)", json.dumps({"n": n}), "k" if n < 6 else "l", headers)
        db.execute(
            'UPDATE outbox.message SET published_at = %s WHERE "offset" = %s', (NOON + timedelta(hours=n), n + 1)
        )
    drain(db, "s", worker)

    def chosen(**more: Any) -> list[int]:
        replay(db, **more)
        return sorted(payload["n"] for payload in drain(db, "s", worker))

    assert chosen(key="l") == [6, 7]
    assert chosen(headers='{"country": "DE"}', filter="$.n > 2") == [3, 5, 7]
    assert chosen(headers='{"country": null}', key="k", filter="$.n == 0") == [0]
    assert chosen(headers='{"city": null}') == []
    assert chosen(from_at=NOON + timedelta(hours=2), to_at=NOON + timedelta(hours=4)) == [2, 3]
    ranges = "SELECT first, last FROM outbox.replay_ranges('s', '#', %s, %s)"
    first, last = NOON + timedelta(hours=2), NOON + timedelta(hours=4)
    assert db.execute(ranges, (first, last)).fetchall() == [(3, 5)]  # 10 seconds more: it is replay that looks at each
    assert db.execute(ranges, (first, None)).fetchall() == [(3, 8)]
    assert db.execute(ranges, (None, last)).fetchall() == [(1, 5)]
    assert db.execute(ranges, (datetime.now(UTC), None)).fetchall() == []
    with pytest.raises(psycopg.Error, match="nothing is published"):
        db.execute(ranges, (last, first))


def test_only_what_its_bindings_let_pass_is_replayed(db, worker) -> None:
    db.execute("SELECT outbox.subscribe('s')")
    value(db, "SELECT outbox.bind('s', 't', filter => '$ > 2')")
    for n in range(5):
        value(db, "SELECT outbox.publish('t', %s::json)", str(n))
    assert drain(db, "s", worker) == [3, 4]
    assert replay(db)[1:] == (2, 0)
    assert sorted(drain(db, "s", worker)) == [3, 4]


def test_neither_ttl_nor_age_ends_a_replay_but_what_was_cancelled_stays_so(db, worker) -> None:
    subscribe(db, "s", "t")
    value(db, "SELECT outbox.publish('t', '\"short\"', ttl => '1 hour')")
    publish(db, "t", "old", "cancelled")
    drain(db, "s", worker)
    db.execute("UPDATE outbox.message SET published_at = '2020-01-01', expires_at = '2020-01-02' WHERE \"offset\" = 1")
    db.execute("UPDATE outbox.message SET published_at = '2020-01-01' WHERE \"offset\" = 2")
    db.execute("UPDATE outbox.message SET expires_at = '-infinity' WHERE \"offset\" = 3")
    value(db, "SELECT outbox.configure('s', '{\"ttl\": 60}')")
    assert replay(db)[1:] == (2, 0)
    first, second = pull(db, "s", worker)
    assert sorted(payloads([first, second])) == ["old", "short"]
    fail(db, worker, first)
    settle(db, worker, [second])
    assert payloads(pull(db, "s", worker)) == [first.payload]


def test_a_rate_spreads_them_over_time(db, worker) -> None:
    publish(db, "t", *"abcd")
    subscribe(db, "s", "t")
    drain(db, "s", worker)
    replay(db, 1, 2, rate=0.01)
    replay(db, 3, 4, rate=0.01, due_from=datetime.now(UTC) + timedelta(seconds=200))
    due = 'SELECT array_agg(round(extract(epoch FROM due_at - clock_timestamp()) / 100) ORDER BY "offset")'
    assert value(db, f"{due} FROM outbox.redelivery") == [0, 1, 2, 3]
    assert payloads(pull(db, "s", worker)) == ["a"]


def test_a_portion_says_how_far_it_came(db, worker) -> None:
    publish(db, "t", *"abcde")
    subscribe(db, "s", "t")
    drain(db, "s", worker)
    assert replay(db, max_messages=2) == (2, 2, 0)
    assert replay(db, 3, key="none", max_messages=2) == (4, 0, 0)
    assert replay(db, 3, 1000, max_messages=100) == (1000, 3, 0)
    assert sorted(drain(db, "s", worker)) == list("abcde")


def test_a_dry_run_writes_nothing(db, worker) -> None:
    publish(db, "t", *"ab")
    subscribe(db, "s", "t")
    drain(db, "s", worker)
    assert replay(db, dry_run=True) == (1000, 2, 0)
    assert value(db, "SELECT count(*) FROM outbox.redelivery") == 0


def test_a_seek_back_during_a_replay_leaves_the_rest_to_the_cursor(db, worker) -> None:
    publish(db, "t", *"abcd")
    subscribe(db, "s", "t")
    drain(db, "s", worker)
    ranges = db.execute("SELECT first, last FROM outbox.replay_ranges('s', 't')").fetchall()
    assert ranges == [(1, 4)]
    value(db, "SELECT outbox.seek('s', 1, 2)")
    assert replay(db, 1, 4)[1:] == (2, 0)
    assert sorted(drain(db, "s", worker)) == list("abcd")


def test_live_messages_get_half_of_each_pull(db, worker) -> None:
    publish(db, "t", *(f"old {n}" for n in range(40)))
    subscribe(db, "s", "t")
    drain(db, "s", worker)
    replay(db)
    publish(db, "t", *(f"live {n}" for n in range(40)))
    for _ in range(4):
        pulled = pull(db, "s", worker, 10)
        assert sum(m.redelivered for m in pulled) == 5
        settle(db, worker, pulled)


@pytest.mark.parametrize("on_failure", ["block", "park", "dead-letter"])
def test_a_replay_holds_up_nothing_of_an_ordered_subscription(db, worker, on_failure: str) -> None:
    subscribe(db, "s", "t", on_failure=on_failure)
    publish(db, "t", *"abc", key="k")
    drain(db, "s", worker)
    assert replay(db)[1:] == (3, 0)
    replayed = pull(db, "s", worker)
    assert payloads(replayed) == list("abc")
    fail(db, worker, replayed[0], 3600)
    publish(db, "t", "d", "e", key="k")
    live = pull(db, "s", worker)
    assert payloads(live) == ["d", "e"]
    settle(db, worker, live)
    publish(db, "t", "f", key="k")
    assert payloads(pull(db, "s", worker)) == ["f"]


def test_messages_that_wait_in_a_lane_hold_up_no_replay(db, worker) -> None:
    subscribe(db, "s", "t", on_failure="block")
    publish(db, "t", *"abc", key="k")
    settle(db, worker, pull(db, "s", worker, 1))
    b = pull(db, "s", worker, 1)
    fail(db, worker, b[0], 3600)
    assert replay(db)[1:] == (1, 1)
    assert payloads(pull(db, "s", worker)) == ["a"]
    assert pull(db, "s", worker) == []


def test_a_portion_reads_what_it_looks_at_and_not_the_log(db, worker) -> None:
    """On tables that were never analysed."""
    subscribe(db, "s", "t")
    for _ in range(5):
        value(db, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 4000) n")
    value(db, "SELECT outbox.seek('s', 1, NULL)")
    call = "outbox.replay('s', 1, 10000, 20000, key => 'none', max_messages => 100)"
    assert min(pages(db, call) for _ in range(2)) < 100  # the first one reads catalogs, too
