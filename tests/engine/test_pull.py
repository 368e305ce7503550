"""Invariants 3, 4 and 5: a log whose rows commit out of order is read whole, in order, once."""

import json
import threading

import psycopg
import pytest

from tests.shop_floor import (
    Database,
    Pulled,
    drain,
    payloads,
    publish,
    pull,
    register,
    settle,
    subscribe,
    value,
    wait_for,
)


def bound(db: psycopg.Connection, **topic: int) -> int:
    """A topic `t`, a subscription `s` on it, and a worker."""
    named = "".join(f", {name} => %s" for name in topic)
    db.execute(f"SELECT outbox.declare_topic('t'{named})", tuple(topic.values()))
    subscribe(db, "s", "t")
    return register(db)


def publish_keys(db: psycopg.Connection, messages: int) -> None:
    """Each has a key of its own, so that they lie in all partitions."""
    keys = [str(n) for n in range(messages)]
    db.execute("SELECT outbox.publish_many('t', %s::json[], %s)", (["0"] * messages, keys))


def test_a_message_that_commits_after_later_offsets_is_delivered(database: Database, db) -> None:
    worker = bound(db)
    slow = database.connect()
    publish(slow, "t", "early offset, late commit")
    publish(db, "t", "later offset")
    assert drain(db, "s", worker) == ["later offset"]
    slow.commit()
    assert drain(db, "s", worker) == ["early offset, late commit"]
    assert drain(db, "s", worker) == []


def test_messages_of_many_overlapping_transactions_all_arrive_once(database: Database, db) -> None:
    worker = bound(db)
    open_ones = [database.connect() for _ in range(10)]
    for round in range(3):
        for number, publisher in enumerate(open_ones):
            publish(publisher, "t", f"{number}-{round}")
        publish(db, "t", f"now-{round}")
        assert drain(db, "s", worker, 2) == [f"now-{round}"]
    for publisher in reversed(open_ones[1:]):
        publisher.commit()
    open_ones[0].rollback()
    expected = {f"{number}-{round}" for number in range(1, 10) for round in range(3)}
    found = drain(db, "s", worker, 7)
    assert sorted(found) == sorted(expected)


def test_a_transaction_that_was_open_beyond_the_snapshots_end_is_not_lost(database: Database, db) -> None:
    """The trap of design.md: its xid is above all that have finished, so that the snapshot does not list it."""
    worker = bound(db)
    finished, slow = database.connect(), database.connect()
    value(finished, "SELECT pg_current_xact_id()")  # a lower xid, so that the slow one's is the highest of all
    publish(slow, "t", "slow")
    publish(finished, "t", "finished")
    finished.commit()
    assert drain(db, "s", worker) == ["finished"]
    slow.commit()
    assert drain(db, "s", worker) == ["slow"]


def test_an_unrelated_transaction_that_stays_open_stalls_nothing(database: Database, db) -> None:
    worker = bound(db)
    holder, reader = database.connect(), database.connect()
    value(holder, "SELECT pg_current_xact_id()")
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    value(reader, "SELECT 1")
    for n in range(20):
        publish(db, "t", str(n))
        assert drain(db, "s", worker) == [str(n)]


def test_a_prepared_transaction_is_delivered_when_it_commits(database: Database, db) -> None:
    worker = bound(db)
    publisher = database.connect(autocommit=True)
    publisher.execute("BEGIN")
    publish(publisher, "t", "prepared")
    publisher.execute("PREPARE TRANSACTION 'p1'")
    publish(db, "t", "other")
    assert drain(db, "s", worker) == ["other"]
    db.execute("COMMIT PREPARED 'p1'")
    assert drain(db, "s", worker) == ["prepared"]


def test_holes_of_rollbacks_are_passed_and_leave_no_lag(database: Database, db) -> None:
    worker = bound(db)
    publish(db, "t", "a")
    with database.connect() as publisher:
        publish(publisher, "t", *"xyz")
        publisher.rollback()
    assert drain(db, "s", worker) == ["a"]
    assert value(db, "SELECT sum(lag) FROM outbox.lag") == 0
    assert value(db, "SELECT open FROM outbox.position") == []


def test_an_idle_pull_writes_nothing(database: Database, db) -> None:
    worker = bound(db)
    publish(db, "t", "a")
    drain(db, "s", worker)
    idle = database.connect()
    assert pull(idle, "s", worker) == []
    assert value(idle, "SELECT pg_current_xact_id_if_assigned()") is None


def test_a_huge_late_transaction_comes_in_order_and_in_limits_before_what_came_after_it(database: Database, db) -> None:
    worker = bound(db)
    huge = database.connect()
    huge.execute("SELECT outbox.publish_many('t', %b::text[]::json[])", ([json.dumps(f"h{n}") for n in range(100)],))
    publish(db, "t", "before")
    assert drain(db, "s", worker) == ["before"]
    huge.commit()
    publish(db, "t", "after")
    batches = []
    while pulled := pull(db, "s", worker, 7):
        settle(db, worker, pulled)
        batches.append(payloads(pulled))
        assert len(batches) < 50, "no end of messages"
    assert max(map(len, batches)) == 7
    assert [payload for batch in batches for payload in batch] == [*(f"h{n}" for n in range(100)), "after"]


def test_late_messages_of_several_transactions_within_small_limits_are_neither_lost_nor_doubled(
    database: Database, db
) -> None:
    """A floor that was raised for one transaction must not sink when another one's rows lie lower."""
    worker = bound(db)
    low, high = database.connect(), database.connect()
    publish(low, "t", "l0")
    publish(high, "t", *(f"h{n}" for n in range(10)))
    publish(low, "t", "l1")
    publish(db, "t", "now")
    assert drain(db, "s", worker) == ["now"]
    high.commit()
    found = payloads(pull(db, "s", worker, 4))
    low.commit()
    while pulled := pull(db, "s", worker, 1):
        found += payloads(pulled)
    assert sorted(found) == sorted(["l0", "l1", *(f"h{n}" for n in range(10))])


def test_a_late_message_comes_once_though_its_cursor_moved_while_the_pull_looked_for_news(
    database: Database, db
) -> None:
    """The pull read the end of log `a`, and waits for the sequence of `b`; the cursor of `a` goes beyond that end."""
    publish(db, "a", "seen")
    publish(db, "b", "other")
    subscribe(db, "s", "a", "b")
    worker = register(db)
    late, blocker, puller = database.connect(), database.connect(), database.connect(autocommit=True)
    publish(late, "a", "late")
    (a, _), (_, sequence) = db.execute("SELECT id, sequence::text FROM outbox.partition ORDER BY id").fetchall()
    blocker.execute(f"ALTER SEQUENCE {sequence} CACHE 1")
    found: list[Pulled] = []
    pulling = threading.Thread(target=lambda: found.extend(pull(puller, "s", worker)))
    pulling.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%outbox.pull%%'"
    wait_for(lambda: value(db, waiting), "the pull waiting")
    publish(db, "a", "passed")
    db.execute("SELECT outbox.seek('s', %s, NULL)", (a,))
    late.commit()
    blocker.rollback()
    pulling.join()
    assert sorted(payloads(found)) == ["late", "other"]
    assert pull(db, "s", worker) == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize(
    "call",
    ["outbox.pull('s', 1)", "outbox.bind('s', 't')", "outbox.seek('s', (SELECT min(id) FROM outbox.partition), 0)"],
)
def test_pull_bind_and_seek_refuse_other_isolation_levels(database: Database, db, call: str, level: str) -> None:
    bound(db)
    other = database.connect()
    other.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    with pytest.raises(psycopg.Error, match=f"needs a READ COMMITTED transaction, this one is {level}") as caught:
        other.execute(f"SELECT {call}")
    assert caught.value.sqlstate == "OB002"


@pytest.mark.parametrize(
    "call",
    ["outbox.pull('s', 1)", "outbox.bind('s', 't')", "outbox.seek('s', (SELECT min(id) FROM outbox.partition), 0)"],
)
def test_pull_bind_and_seek_refuse_a_transaction_that_wrote_before(database: Database, db, call: str) -> None:
    bound(db)
    other = database.connect()
    publish(other, "t", "a")
    with pytest.raises(psycopg.Error, match="must run in a transaction of its own") as caught:
        other.execute(f"SELECT {call}")
    assert caught.value.sqlstate == "OB002"


def test_messages_of_a_key_come_in_the_order_in_which_their_transactions_serialised_on_it(
    database: Database, db
) -> None:
    """Invariant 4: the second publisher draws its xid first, then waits for the key's row."""
    worker = bound(db)
    db.execute("CREATE TABLE account (id int PRIMARY KEY, n int)")
    db.execute("INSERT INTO account VALUES (1, 0)")
    first, second = database.connect(), database.connect()
    value(second, "SELECT pg_current_xact_id()")
    first.execute("UPDATE account SET n = n + 1 WHERE id = 1")

    def wait_then_publish() -> None:
        second.execute("UPDATE account SET n = n + 1 WHERE id = 1")
        publish(second, "t", "second", key="1")
        second.commit()

    waiting = threading.Thread(target=wait_then_publish)
    waiting.start()
    publish(first, "t", "first", key="1")
    first.commit()
    waiting.join()
    assert drain(db, "s", worker) == ["first", "second"]


def test_a_settled_message_is_not_delivered_again(database: Database, db) -> None:
    """Invariant 5, over every path that hands messages on: recovery, release, retirement."""
    worker = bound(db)
    publish(db, "t", *"abcdef")
    pulled = pull(db, "s", worker)
    db.execute("SELECT outbox.settle(%s, %s, ARRAY['{[1,4)}']::int8multirange[])", (worker, [pulled[0].lease]))
    db.execute("SELECT outbox.release(%s, %s)", (worker, [pulled[0].lease]))
    again = pull(db, "s", worker)
    assert payloads(again) == ["d", "e", "f"]
    settle(db, worker, again[:1])
    db.execute("SELECT outbox.recover(%s)", (worker,))
    worker = register(db)
    assert sorted(drain(db, "s", worker)) == ["e", "f"]
    db.execute("SELECT outbox.retire(%s)", (worker,))
    assert drain(db, "s", register(db)) == []


def test_each_subscription_gets_every_message(database: Database, db) -> None:
    publish(db, "t", "a", "b")
    worker = register(db)
    for name in ("one", "two"):
        subscribe(db, name, "t")
    assert drain(db, "one", worker) == ["a", "b"]
    assert drain(db, "two", worker) == ["a", "b"]


def test_workers_of_a_subscription_share_its_messages(database: Database, db) -> None:
    worker = bound(db)
    publish(db, "t", *(str(n) for n in range(10)))
    other = register(db)
    one, two = pull(db, "s", worker, 5), pull(db, "s", other, 5)
    assert payloads(one) + payloads(two) == [str(n) for n in range(10)]


def test_a_partition_that_another_pull_is_reading_is_skipped_without_waiting(database: Database, db) -> None:
    worker = bound(db, partitions=2)
    publish(db, "t", *(str(n) for n in range(50)))
    one, two = database.connect(), database.connect(options="-c lock_timeout=10s")
    first = pull(one, "s", worker, 1)
    second = pull(two, "s", worker, 100)
    assert first[0].partition_id not in {message.partition_id for message in second}
    assert second
    one.commit(), two.commit()
    assert len(first) + len(second) + len(drain(db, "s", worker)) == 50


def test_a_turn_is_of_one_subscription_and_one_partition(db) -> None:
    turns = "FROM generate_series(1, 50) AS s, generate_series(1, 50) AS p"
    assert value(db, f"SELECT count(DISTINCT outbox.turn_lock(s, p)) {turns}") == 2500


def test_higher_priority_comes_first(database: Database, db) -> None:
    worker = bound(db, max_priority=2)
    for priority in (0, 2, 1, 0, 2):
        publish(db, "t", str(priority), priority=priority)
    assert payloads(pull(db, "s", worker, 3)) == ["2", "2", "1"]


def test_several_partitions_fill_one_pull_and_a_busy_one_starves_no_other(database: Database, db) -> None:
    worker = bound(db, partitions=4)
    publish(db, "t", *(str(n) for n in range(100)))
    pulled = pull(db, "s", worker, 100)
    assert len(pulled) == 100
    assert len({message.lease for message in pulled}) == 4
    settle(db, worker, pulled)
    publish(db, "t", *(str(n) for n in range(400)))
    turns = {pull(db, "s", worker, 1)[0].partition for _ in range(40)}
    assert turns == {0, 1, 2, 3}


def test_of_many_partitions_with_something_new_a_pull_looks_at_a_few(database: Database, db) -> None:
    worker = bound(db, partitions=300)
    publish_keys(db, 20_000)
    reads = "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relid = 'outbox.position'::regclass"
    with database.connect() as one:
        first = pull(one, "s", worker, 100)
        looked = value(one, reads)
        assert looked < 100
        others = [pull(db, "s", worker, 100) for _ in range(20)]
        assert {len(first), *map(len, others)} == {100}
    rest = drain(db, "s", worker, 1_000)
    assert len(first) + sum(map(len, others)) + len(rest) == 20_000


def test_of_many_partitions_with_little_each_a_pull_takes_from_all(database: Database, db) -> None:
    worker = bound(db, partitions=100)
    publish(db, "t", *(str(n) for n in range(500)))
    waiting = value(db, "SELECT count(DISTINCT partition_id) FROM outbox.message")
    assert waiting > 64
    assert len({message.partition_id for message in pull(db, "s", worker, 500)}) == waiting


def test_a_single_high_priority_comes_first_among_many_partitions(database: Database, db) -> None:
    worker = bound(db, partitions=300, max_priority=1)
    publish_keys(db, 20_000)
    for _ in range(10):
        publish(db, "t", "high", priority=1)
        assert payloads(pull(db, "s", worker, 1)) == ["high"]


def test_who_finds_all_it_looked_at_taken_looks_again(database: Database, db) -> None:
    worker = bound(db, partitions=100)
    publish_keys(db, 10_000)
    with database.connect() as other:
        for partition in value(db, "SELECT array_agg(id) FROM outbox.partition"):
            value(
                other,
                "SELECT pg_advisory_xact_lock(outbox.turn_lock((SELECT id FROM outbox.subscription), %s))",
                partition,
            )
        rows = db.execute("SELECT topic, again_in FROM outbox.pull_batches('s', %s, 10)", (worker,)).fetchall()
    assert rows == [("", 0.05)]


def test_a_lease_holds_no_more_than_it_is_asked_to(database: Database, db) -> None:
    worker = bound(db)
    publish(db, "t", *(str(n) for n in range(10)))
    pulled = pull(db, "s", worker, 10, lease_size=4)
    assert payloads(pulled) == [str(n) for n in range(10)]
    leases = [message.lease for message in pulled]
    assert sorted(leases) == leases
    assert [leases.count(lease) for lease in sorted(set(leases))] == [4, 4, 2]


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_pull_takes_no_more_bytes_than_it_is_asked_to_but_for_the_last_message(
    database: Database, db, partitions: int
) -> None:
    worker = bound(db, partitions=partitions)
    contents = [str(n) * 1_000 for n in range(1, 10)]
    publish(db, "t", *contents)
    pulls = []
    while pulled := pull(db, "s", worker, 100, max_bytes=2_500):
        pulls.append(payloads(pulled))
        settle(db, worker, pulled)
    assert [len(pulled) for pulled in pulls] == [3, 3, 3]
    assert sorted(payload for pulled in pulls for payload in pulled) == contents
    publish(db, "t", "9" * 5_000, "8")
    assert len(pull(db, "s", worker, 100, max_bytes=1)) == 1


def test_redeliveries_are_bounded_in_bytes_too(database: Database, db) -> None:
    worker = bound(db)
    contents = [str(n) * 1_000 for n in range(1, 7)]
    publish(db, "t", *contents)
    leases = {message.lease for message in pull(db, "s", worker)}
    db.execute("SELECT outbox.release(%s, %s)", (worker, list(leases)))
    pulls = []
    while pulled := pull(db, "s", worker, 100, max_bytes=1_500):
        assert all(message.redelivered for message in pulled)
        pulls.append(payloads(pulled))
        settle(db, worker, pulled)
    assert [len(pulled) for pulled in pulls] == [2, 2, 2]
    assert [payload for pulled in pulls for payload in pulled] == contents


def test_at_most_once_leaves_no_lease_and_a_pull_that_rolls_back_takes_nothing(database: Database, db) -> None:
    db.execute("SELECT outbox.declare_topic('t')")
    subscribe(db, "s", "t", guarantee="at-most-once")
    worker = register(db)
    publish(db, "t", "a")
    with database.connect() as other:
        assert payloads(pull(other, "s", worker)) == ["a"]
        other.rollback()
    assert [message.lease for message in pull(db, "s", worker)] == [None]
    assert pull(db, "s", worker) == []


def test_a_cursor_whose_sequence_went_backwards_is_a_loud_error(database: Database, db) -> None:
    worker = bound(db)
    publish(db, "t", *"abc")
    drain(db, "s", worker)
    db.execute("SELECT setval(sequence, 1) FROM outbox.partition")
    with pytest.raises(psycopg.Error, match="its sequence went backwards") as caught:
        pull(db, "s", worker)
    assert caught.value.sqlstate == "OB003"


@pytest.mark.parametrize(
    ("call", "state", "says"),
    [
        ("outbox.pull('nobody', %s)", "OB004", 'subscription "nobody" does not exist'),
        ("outbox.pull('s', -%s)", "OB005", "is not registered"),
        ("outbox.pull('s', %s, 0)", "OB007", "at least 1"),
        ("outbox.pull('s', %s, lease_size => 0)", "OB007", "at least 1"),
    ],
)
def test_a_pull_that_makes_no_sense_is_refused(db, call: str, state: str, says: str) -> None:
    worker = bound(db)
    with pytest.raises(psycopg.Error, match=says) as caught:
        db.execute(f"SELECT {call}", (worker,))
    assert caught.value.sqlstate == state


def test_thousands_of_open_subtransactions_do_not_hide_a_message(database: Database, db) -> None:
    worker = bound(db)
    db.execute("CREATE TABLE noise (x int)")
    nested = database.connect()
    nested.execute(
        "DO $$ BEGIN FOR n IN 1..5000 LOOP BEGIN INSERT INTO noise VALUES (n); EXCEPTION WHEN others THEN NULL; END; "
        "END LOOP; END $$"
    )
    publish(nested, "t", "nested")
    publish(db, "t", "other")
    assert drain(db, "s", worker) == ["other"]
    nested.commit()
    assert drain(db, "s", worker) == ["nested"]


def test_positions_do_not_pile_up(database: Database, db) -> None:
    worker = bound(db)
    for n in range(50):
        publish(db, "t", str(n))
        drain(db, "s", worker)
    assert value(db, "SELECT count(*) FROM outbox.position") == 1
    assert value(db, "SELECT count(*) FROM outbox.lease") == 0


def test_a_pull_returns_the_message_as_it_was_published(db) -> None:
    worker = bound(db)
    db.execute("SELECT outbox.publish('t', '{\"a\": [1, null, \"é\"]}', key => 'k')")
    (message,) = pull(db, "s", worker)
    assert isinstance(message, Pulled)
    assert (message.topic, message.partition, message.priority, message.attempt) == ("t", 0, 0, 1)
    assert (message.key, message.payload, message.offset) == ("k", {"a": [1, None, "é"]}, 1)
