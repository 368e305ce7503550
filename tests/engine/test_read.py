"""Reading without a subscription: a position that the reader holds misses nothing, however the log's rows commit."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, publish, subscribe, value


class Reader:
    """Reads on from the position that it got last."""

    def __init__(self, db: psycopg.Connection[Any], pattern: str = "t", position: Any = None, **always: Any) -> None:
        self.db, self.pattern, self.always = db, pattern, always
        self.position: dict[str, Any] = position or {}
        self.has_more = False

    def look(self, **more: Any) -> list[Any]:
        """One call; the payloads."""
        arguments = {"after": json.dumps(self.position), **self.always, **more}
        named = "".join(f", {name} => %s" for name in arguments)
        rows = self.db.execute(
            f"SELECT payload, position, has_more FROM outbox.read(%s{named})", (self.pattern, *arguments.values())
        ).fetchall()
        *messages, (_, self.position, self.has_more) = rows
        assert all(position is None for _, position, _ in messages)
        return [payload for payload, _, _ in messages]

    def drain(self, **more: Any) -> list[Any]:
        """Until there is no more."""
        found = self.look(**more)
        while self.has_more:
            found += self.look(**more)
        return found


def read_from(db: psycopg.Connection[Any], pattern: str = "t", **more: Any) -> Any:
    named = "".join(f", {name} => %s" for name in more)
    return value(db, f"SELECT outbox.read_from(%s{named})", pattern, *more.values())


def burn(db: psycopg.Connection[Any]) -> int:
    """The next xid."""
    return int(value(db, "SELECT pg_current_xact_id()::text::bigint"))


def test_a_reader_gets_what_is_there_and_then_what_comes(db) -> None:
    publish(db, "t", "a", "b")
    reader = Reader(db)
    assert reader.drain() == ["a", "b"]
    assert reader.drain() == []
    publish(db, "t", "c")
    assert reader.drain() == ["c"]


def test_a_message_that_commits_after_later_offsets_is_read_when_it_does(database: Database, db) -> None:
    reader = Reader(db)
    slow, rolled_back = database.connect(), database.connect()
    publish(slow, "t", "early offset, late commit")
    slow.commit()
    assert reader.drain() == ["early offset, late commit"]
    publish(slow, "t", "second")
    publish(rolled_back, "t", "never")
    publish(db, "t", "third")
    assert reader.drain() == ["third"]
    slow.commit()
    rolled_back.rollback()
    assert reader.drain() == ["second"]
    assert reader.drain() == []
    assert "open" not in reader.position["1"], "it forgets the transactions that ended"


def test_messages_of_many_overlapping_transactions_are_all_read_once(database: Database, db) -> None:
    db.execute("SELECT outbox.declare_topic('t', partitions => 3)")
    reader = Reader(db)
    open_ones = [database.connect() for _ in range(10)]
    found = []
    for round in range(3):
        for number, publisher in enumerate(open_ones):
            publish(publisher, "t", f"{number}-{round}", key=f"k{number}")
        publish(db, "t", f"now-{round}", key="k0")
        found += reader.drain(max_messages=2)
    assert found == ["now-0", "now-1", "now-2"]
    for publisher in reversed(open_ones[1:]):
        publisher.commit()
    open_ones[0].rollback()
    expected = {f"{number}-{round}" for number in range(1, 10) for round in range(3)}
    found = reader.drain(max_messages=7)
    assert sorted(found) == sorted(expected)
    for number in range(1, 10):
        mine = [body for body in found if body.startswith(f"{number}-")]
        assert mine == sorted(mine), "of one transaction they come in order"


def test_a_transaction_that_was_open_beyond_the_snapshots_end_is_not_missed(database: Database, db) -> None:
    """Its xid is above all that have finished, so that the snapshot does not list it."""
    publish(db, "t", "first")
    first, second = database.connect(), database.connect()
    publish(first, "t", "the highest xid, an offset below")
    second.execute("SELECT 1")
    reader = Reader(db)
    assert reader.drain() == ["first"]
    first.commit()
    assert reader.drain() == ["the highest xid, an offset below"]


def test_a_look_that_finds_nothing_new_draws_no_xid(database: Database, db) -> None:
    publish(db, "t", "a")
    publish(database.connect(), "t", "open all the time")
    reader = Reader(db)
    reader.drain()
    reader.drain()  # the snapshot shows the open one only now
    before = burn(db)
    for _ in range(5):
        assert reader.drain() == []
    assert burn(db) == before + 1


def test_a_huge_late_transaction_comes_in_limits_and_before_what_came_after_it(database: Database, db) -> None:
    publish(db, "t", "first")
    huge = database.connect()
    publish(huge, "t", *(f"huge-{n:02}" for n in range(25)))
    reader = Reader(db)
    assert reader.drain() == ["first"]
    publish(db, "t", "x")
    assert reader.drain() == ["x"]
    huge.commit()
    publish(db, "t", "after")
    found: list[Any] = []
    while len(found) < 25:
        found += (looked := reader.look(max_messages=7))
        assert 0 < len(looked) <= 7
    assert found[:25] == [f"huge-{n:02}" for n in range(25)]
    assert found[25:] + reader.drain() == ["after"]


def test_late_messages_of_a_partition_come_before_what_came_after_them_beside_a_busy_one(
    database: Database, db
) -> None:
    """A look is shared by all partitions that have news, and so each has a limit of its own."""
    publish(db, "t", "first")
    huge = database.connect()
    publish(huge, "t", *(f"huge-{n:02}" for n in range(25)))
    publish(db, "t", "x")
    reader = Reader(db, "#")
    assert reader.drain() == ["first", "x"]
    huge.commit()
    publish(db, "t", "after")
    value(db, "SELECT outbox.publish_many('busy', array_agg(to_json(n))) FROM generate_series(1, 100) n")
    found = reader.drain(max_messages=7)
    assert [body for body in found if isinstance(body, str)] == [*(f"huge-{n:02}" for n in range(25)), "after"]
    assert [body for body in found if isinstance(body, int)] == list(range(1, 101))


def test_late_messages_of_several_transactions_within_small_limits_are_neither_missed_nor_doubled(
    database: Database, db
) -> None:
    publish(db, "t", "first")
    one, other, third = (database.connect() for _ in range(3))
    for n in range(6):
        publish(one, "t", f"one-{n}")
        publish(other, "t", f"other-{n}")
        publish(third, "t", f"third-{n}")
    reader = Reader(db)
    publish(db, "t", "between")
    assert reader.drain() == ["first", "between"]
    one.commit()
    found = reader.look(max_messages=2)
    other.commit()
    found += reader.look(max_messages=3)
    third.rollback()
    publish(db, "t", "last")
    found += reader.drain(max_messages=2)
    assert sorted(found) == sorted([f"{who}-{n}" for who in ("one", "other") for n in range(6)] + ["last"])


def test_a_look_is_bounded_in_bytes_but_for_its_last_message(db) -> None:
    publish(db, "t", *("x" * 1000 for _ in range(9)))
    reader = Reader(db)
    sizes = [len(reader.look(max_bytes=2500))]
    while reader.has_more:
        sizes.append(len(reader.look(max_bytes=2500)))
    assert sum(sizes) == 9
    assert max(sizes) == 3


def test_a_busy_partition_starves_no_other(db) -> None:
    db.execute("SELECT outbox.declare_topic('busy'), outbox.declare_topic('quiet')")
    value(db, "SELECT outbox.publish_many('busy', array_agg(to_json(n))) FROM generate_series(1, 1000) n")
    publish(db, "quiet", "here")
    assert "here" in Reader(db, "#").look(max_messages=10)


def test_hundreds_of_partitions_are_read_whole(db) -> None:
    db.execute("SELECT outbox.declare_topic('t', partitions => 130)")
    keys = [f"k{n}" for n in range(600)]
    db.execute("SELECT outbox.publish_many('t', %s::text[]::json[], %s::text[])", ([f'"{key}"' for key in keys], keys))
    reader = Reader(db)
    assert sorted(reader.drain(max_messages=50)) == sorted(keys)
    assert reader.drain() == []


def test_a_pattern_takes_in_topics_that_are_created_later(database: Database, db) -> None:
    publish(db, "orders.placed", "a")
    reader = Reader(db, "orders.*", read_from(db, "orders.*", start="next"))
    slow = database.connect()
    publish(slow, "orders.paid", "b")
    assert reader.drain() == []
    publish(db, "invoices.written", "not ours")
    slow.commit()
    assert reader.drain() == ["b"]


def test_a_generation_is_read_when_those_before_it_were(database: Database, db) -> None:
    """As altering a topic will make them: its next messages go to new partitions."""
    publish(db, "t", *(f"old-{n}" for n in range(5)), key="k")
    db.execute("SELECT outbox.create_partition(1, 0, 0, 2, 'standard')")
    db.execute("UPDATE outbox.topic SET generation = 2")
    publish(db, "t", *(f"new-{n}" for n in range(5)), key="k")
    reader = Reader(db)
    assert reader.drain(max_messages=2) == [f"{age}-{n}" for age in ("old", "new") for n in range(5)]


def test_messages_of_a_key_are_read_in_the_order_in_which_their_transactions_serialised_on_it(
    database: Database, db
) -> None:
    db.execute("CREATE TABLE account (id int PRIMARY KEY); INSERT INTO account VALUES (1)")
    publish(db, "t", "first", key="k")
    one, other = database.connect(), database.connect()
    other.execute("SELECT pg_current_xact_id()")  # an older xid than the one that gets the row first
    one.execute("SELECT FROM account FOR UPDATE")
    publish(one, "t", "second", key="k")
    reader = Reader(db)
    assert reader.drain() == ["first"]
    one.commit()
    other.execute("SELECT FROM account FOR UPDATE")
    publish(other, "t", "third", key="k")
    other.commit()
    assert reader.drain(max_messages=1) == ["second", "third"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"with_key": "k1"}, ["a", "c"]),
        ({"with_key": "none"}, []),
        ({"filter": '$ == "b"'}, ["b"]),
        ({"with_headers": '{"h": "1"}'}, ["d"]),
        ({"with_headers": '{"h": null}'}, ["d", "e"]),
        ({"with_headers": '{"h": null}', "filter": '$ == "e"'}, ["e"]),
    ],
)
def test_a_reader_may_ask_for_a_key_headers_or_a_filter(db, more: dict[str, str], expected: list[str]) -> None:
    db.execute("SELECT outbox.declare_topic('t', partitions => 4)")
    publish(db, "t", "a", key="k1")
    publish(db, "t", "b", key="k2")
    publish(db, "t", "c", key="k1")
    for body, header in ("d", "1"), ("e", "2"):
        db.execute("SELECT outbox.publish('t', %s, headers => %s)", (f'"{body}"', f'{{"h": "{header}"}}'))
    assert sorted(Reader(db, **more).drain()) == expected


def test_what_a_filter_passes_over_is_not_read_again(database: Database, db) -> None:
    value(db, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 12000) n")
    reader = Reader(db, filter="$ > 11998")
    assert reader.look() == []
    assert reader.has_more
    assert reader.position["1"]["offset"] == 10_000, "a look reads so many at most"
    assert reader.look() == [11_999, 12_000]


def test_a_filter_that_is_none_is_refused(db) -> None:
    with pytest.raises(psycopg.Error, match="is not a predicate") as error:
        Reader(db, filter="$.a >").look()
    assert error.value.sqlstate == "OB007"


def test_cancelled_messages_are_not_shown(db) -> None:
    subscribe(db, "s", "t")
    publish(db, "t", "a", "b")
    db.execute("SELECT outbox.cancel(1, 1)")
    assert Reader(db).drain() == ["b"]
    assert db.execute("SELECT payload #>> '{}' FROM outbox.history").fetchall() == [("b",)]


def test_messages_of_rotated_slots_are_gone_and_the_reader_goes_on(db) -> None:
    publish(db, "t", "a", "b", "c")
    reader = Reader(db)
    assert reader.look(max_messages=1) == ["a"]
    db.execute("TRUNCATE outbox.message")
    publish(db, "t", "d")
    assert reader.drain() == ["d"]


def test_a_reading_ends_where_the_log_ended_when_it_began(database: Database, db) -> None:
    db.execute("SELECT outbox.declare_topic('later', partitions => 2)")
    publish(db, "t", *"abcde")
    until = json.dumps(read_from(db, "#", start="next"))
    reader = Reader(db, "#", until=until)
    found = reader.look(max_messages=2)
    publish(db, "t", "f")
    publish(db, "later", "g")
    publish(db, "newest", "h")
    assert found + reader.drain() == list("abcde")


@pytest.mark.parametrize(("start", "expected"), [("first", list("abcde")), ("last", list("cde")), ("next", list("de"))])
def test_a_reader_starts_at_the_first_the_last_or_the_next_message(
    database: Database, db, start: str, expected: list[str]
) -> None:
    publish(db, "t", "a")
    slow = database.connect()
    publish(slow, "t", "d")
    publish(db, "t", "b", "c")
    reader = Reader(db, position=read_from(db, start=start))
    slow.commit()
    publish(db, "t", "e")
    found = reader.drain()
    assert sorted(found) == expected, "what was open when it began is part of what comes"
    assert reader.drain() == []


def test_a_reader_of_a_time_or_an_offset_begins_there(db) -> None:
    publish(db, "t", *"abc")
    after_c = value(db, "SELECT clock_timestamp()")
    publish(db, "t", *"de")
    assert Reader(db, position=read_from(db, at=after_c)).drain() == ["d", "e"]
    assert Reader(db, position=read_from(db, **{'"offset"': 3})).drain() == ["c", "d", "e"]
    assert Reader(db, position=read_from(db, at="-infinity")).drain() == list("abcde")
    assert Reader(db, position=read_from(db, at="infinity")).drain() == []


def test_a_time_is_found_among_holes_and_over_slots(database: Database, db) -> None:
    """Slots are written one after the other; rolled-back transactions leave holes of any size."""
    for day in range(6):
        with database.connect() as publisher:
            publish(publisher, "t", *(["never"] * (day * 7)))
            publisher.rollback()
            publish(publisher, "t", f"{day}-a", f"{day}-b")
    db.execute("""
        CREATE TEMP TABLE log AS SELECT * FROM outbox.message;
        TRUNCATE outbox.message;
        INSERT INTO outbox.message (slot, partition_id, "offset", xid, published_at, payload)
        SELECT (payload #>> '{}')::char(1)::int, partition_id, "offset", xid,
               '2026-03-01 12:00Z'::timestamptz + (payload #>> '{}')::char(1)::int * interval '1 day', payload FROM log
    """)
    for day in range(7):
        at = f"2026-03-0{1 + day} 09:00Z"
        expected = [f"{later}-{which}" for later in range(day, 6) for which in "ab"]
        assert Reader(db, position=read_from(db, at=at)).drain() == expected


@pytest.mark.parametrize(
    ("call", "state", "says"),
    [
        ("outbox.read('t', max_messages => 0)", "OB007", "1 to 100000"),
        ("outbox.read('t', max_bytes => 0)", "OB007", "at least 1"),
        ("""outbox.read('t', '{"1": {"offset": 1, "open": [7]}}')""", "OB007", "is none that"),
        ("""outbox.read('t', '{"1": {"offset": 99}}')""", "OB003", "98 beyond the end"),
        ("outbox.read_from('t', 'middle')", "OB007", "first, last or next"),
        ("outbox.read_from('nosuch')", "OB006", "not declared"),
        ("outbox.read_from('t', number => 1)", "OB007", "has no partition 1"),
        ("""outbox.read_from('t', "offset" => 3)""", "OB007", "it holds 1 to 1"),
        ("""outbox.read_from('wide', "offset" => 1)""", "OB007", "a single partition"),
    ],
)
def test_a_read_that_makes_no_sense_is_refused(db, call: str, state: str, says: str) -> None:
    publish(db, "t", "a")
    db.execute("SELECT outbox.declare_topic('wide', partitions => 2)")
    with pytest.raises(psycopg.Error, match=says) as error:
        db.execute(f"SELECT * FROM {call}")
    assert error.value.sqlstate == state


@pytest.mark.parametrize("call", ["outbox.read('t')", "outbox.read_from('t', 'next')"])
def test_a_read_refuses_a_transaction_that_wrote_before_and_other_isolation_levels(db, call: str) -> None:
    publish(db, "t", "a")
    for begin in ("BEGIN; SELECT pg_current_xact_id()", "BEGIN ISOLATION LEVEL REPEATABLE READ"):
        db.execute(begin)
        with pytest.raises(psycopg.Error) as error:
            db.execute(f"SELECT * FROM {call}")
        assert error.value.sqlstate == "OB002"
        db.execute("ROLLBACK")


def test_a_read_returns_the_message_as_it_was_published(db) -> None:
    db.execute("SELECT outbox.declare_topic('t', max_priority => 3)")
    db.execute(
        "SELECT outbox.publish('t', '{\"a\":  1}', key => 'k', headers => '{\"h\": \"v\"}', priority => 3), "
        "outbox.publish('t', NULL, body => '\\x00ff', headers => '{\"content-type\": \"x\"}', priority => 3)"
    )
    columns = 'topic, partition, priority, "offset", key, headers, payload::text, body'
    rows = db.execute(f"SELECT {columns} FROM outbox.read('t')").fetchall()
    assert rows[:-1] == db.execute(f'SELECT {columns} FROM outbox.history ORDER BY "offset"').fetchall()
    assert rows[:-1] == [
        ("t", 0, 3, 1, "k", {"h": "v"}, '{"a":  1}', None),
        ("t", 0, 3, 2, None, {"content-type": "x"}, None, b"\x00\xff"),
    ]


def test_the_history_is_joined_with_business_tables(db) -> None:
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, country text); INSERT INTO orders VALUES (1, 'DE'), (2, 'FR')")
    for id in 1, 2, 1:
        db.execute("SELECT outbox.publish('orders.paid', json_build_object('id', %s::int), key => %s)", (id, str(id)))
    rows = db.execute("""
        SELECT o.country, count(*) FROM outbox.history h JOIN orders o ON o.id = (h.payload ->> 'id')::int
        WHERE h.topic = 'orders.paid' AND h.published_at > now() - interval '1 hour' GROUP BY o.country ORDER BY 1
    """).fetchall()
    assert rows == [("DE", 2), ("FR", 1)]
    assert value(db, 'SELECT id FROM outbox.history WHERE "offset" = 2') == "1-2"


def test_a_look_touches_what_it_reads_and_not_the_log_whatever_the_statistics_say(database: Database, db) -> None:
    publish(db, "t", "first")
    db.execute("ANALYZE outbox.message")
    slow = database.connect()
    publish(slow, "t", "late")
    for _ in range(5):
        value(db, "SELECT outbox.publish_many('t', array_agg(to_json(n))) FROM generate_series(1, 4000) n")
    reader = Reader(db)
    reader.drain(max_messages=10_000)
    slow.commit()
    publish(db, "t", "fresh")

    def pages(db: psycopg.Connection[Any], call: str, *arguments: Any) -> int:
        plan = value(db, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM outbox.{call}", *arguments)
        return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])

    for analyse in "SELECT 1", "ANALYZE outbox.message":
        db.execute(analyse)
        session = database.connect(autocommit=True)
        for call, *arguments in [
            ("read('t', %s)", json.dumps(reader.position)),
            ("read('t', max_messages => 10)",),
            ("read_from('t', at => now())",),
            ("read_from('t', 'last')",),
        ]:
            pages(session, call, *arguments)  # plans
            # of a time: some fifteen look-ups, each in every slot of the class
            assert pages(session, call, *arguments) < (800 if "now()" in call else 250), (analyse, call)
    assert sorted(reader.drain()) == ["fresh", "late"]
