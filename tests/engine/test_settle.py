"""Invariant 6, and what becomes of messages that are done, failed, or given back."""

import json
import threading
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Pulled, drain, payloads, publish, pull, register, settle, subscribe, value


@pytest.fixture
def worker(db: psycopg.Connection[Any]) -> int:
    """A worker, with a subscription `s` of at most three attempts on a topic `t` that holds six messages."""
    publish(db, "t", *"abcdef")
    subscribe(db, "s", "t", max_attempts=3)
    return register(db)


def fail(db: psycopg.Connection[Any], worker: int, message: Pulled, delay: float | None = 0.0, **more: Any) -> None:
    failure = {"lease": message.lease, "offset": message.offset, "delay": delay, "error": {"class": "Oops"}, **more}
    db.execute(
        "SELECT outbox.settle(%s, %s, ARRAY[%s]::int8multirange[], %s::jsonb)",
        (worker, [message.lease], f"{{[{message.offset},{message.offset}]}}", json.dumps([failure])),
    )


def left(db: psycopg.Connection[Any]) -> dict[str, int]:
    return {name: value(db, f"SELECT count(*) FROM outbox.{name}") for name in ("lease", "redelivery", "dead_letter")}


def test_a_worker_that_lost_its_lease_cannot_settle_and_its_effects_roll_back(database: Database, db, worker) -> None:
    db.execute("CREATE TABLE effect (payload text)")
    pulled = pull(db, "s", worker)
    slow = database.connect()
    slow.execute("INSERT INTO effect SELECT unnest(%s::text[])", (payloads(pulled),))
    db.execute("SELECT outbox.recover(%s)", (worker,))
    with pytest.raises(psycopg.Error, match="does not hold lease") as caught:
        settle(slow, worker, pulled)
    assert caught.value.sqlstate == "OB001"
    slow.rollback()
    assert value(db, "SELECT count(*) FROM effect") == 0
    assert sorted(drain(db, "s", register(db), 1000)) == list("abcdef")


def test_a_lease_can_be_settled_by_its_owner_only_and_only_once(db, worker) -> None:
    pulled = pull(db, "s", worker)
    with pytest.raises(psycopg.Error, match="does not hold lease"):
        settle(db, register(db), pulled)
    settle(db, worker, pulled)
    with pytest.raises(psycopg.Error, match="does not hold lease"):
        settle(db, worker, pulled)


def test_one_lost_lease_among_several_settles_none_of_them(db, worker) -> None:
    pulled = pull(db, "s", worker, lease_size=2)
    lost = pulled[0].lease
    db.execute("SELECT outbox.release(%s, %s)", (worker, [lost]))
    with pytest.raises(psycopg.Error, match="does not hold lease"):
        settle(db, worker, pulled)
    assert left(db)["lease"] == 2


@pytest.mark.parametrize("offsets", ["{[1,3)}", "{[2,2]}", "{}", "{[7,9)}"])
def test_a_part_that_was_settled_or_never_was_there_cannot_be_settled(db, worker, offsets: str) -> None:
    lease = pull(db, "s", worker)[0].lease
    part = "SELECT outbox.settle(%s, %s, %s::text[]::int8multirange[])"
    db.execute(part, (worker, [lease], ["{[1,3)}"]))
    with pytest.raises(psycopg.Error, match="does not hold lease"):
        db.execute(part, (worker, [lease], [offsets]))
    assert value(db, "SELECT offsets::text FROM outbox.lease") == "{[3,7)}"


def test_parts_of_a_lease_settled_by_two_transactions_at_once_both_count(database: Database, db, worker) -> None:
    lease = pull(db, "s", worker)[0].lease
    part = "SELECT outbox.settle(%s, %s, %s::text[]::int8multirange[])"
    first, second = database.connect(), database.connect()
    first.execute(part, (worker, [lease], ["{[1,4)}"]))

    def settle_the_rest() -> None:
        second.execute(part, (worker, [lease], ["{[4,7)}"]))
        second.commit()

    waiting = threading.Thread(target=settle_the_rest)
    waiting.start()
    first.commit()
    waiting.join()
    assert left(db) == {"lease": 0, "redelivery": 0, "dead_letter": 0}


def test_a_failed_message_comes_again_when_it_is_due_and_not_before(db, worker) -> None:
    message = pull(db, "s", worker, 1)[0]
    fail(db, worker, message, delay=3600)
    assert drain(db, "s", worker) == list("bcdef")
    db.execute("UPDATE outbox.redelivery SET due_at = now()")
    (again,) = pull(db, "s", worker)
    assert (again.payload, again.attempt) == ("a", 2)
    settle(db, worker, [again])
    assert left(db) == {"lease": 0, "redelivery": 0, "dead_letter": 0}


def test_a_dead_letter_keeps_the_message_and_the_history_of_its_errors(db, worker) -> None:
    for attempt in (1, 2):
        message = next(m for m in pull(db, "s", worker) if m.payload == "a")
        assert message.attempt == attempt
        fail(db, worker, message, error={"class": f"Error{attempt}"})
        db.execute("SELECT outbox.recover(%s)", (worker,))
        worker = register(db)
        others = [m for m in pull(db, "s", worker, 1000) if m.payload != "a"]
        settle(db, worker, others) if others else None
        db.execute("SELECT outbox.release(%s, ARRAY(SELECT id FROM outbox.lease))", (worker,))
    message = next(m for m in pull(db, "s", worker) if m.payload == "a")
    fail(db, worker, message, delay=None, reason="attempts exhausted", error={"class": "Error3"})
    row = db.execute("SELECT attempt, reason, payload, errors FROM outbox.dead_letter").fetchone()
    assert row is not None
    assert row[:3] == (3, "attempts exhausted", "a")
    assert [error["class"] for error in row[3]] == ["Error1", "Error2", "Error3"]
    assert [error["attempt"] for error in row[3]] == [1, 2, 3]


def test_the_history_is_bounded_and_keeps_the_first_error(db) -> None:
    errors = value(
        db,
        "WITH RECURSIVE h AS (SELECT 0 AS n, '[]'::jsonb AS errors UNION ALL "
        "SELECT n + 1, outbox.add_error(errors, to_jsonb(n)) FROM h WHERE n < 50) SELECT errors FROM h WHERE n = 50",
    )
    assert errors == [0, *range(41, 50)]


def test_a_failure_of_a_message_that_is_not_in_the_lease_is_refused(db, worker) -> None:
    message = pull(db, "s", worker, 1)[0]
    failure = [{"lease": message.lease, "offset": 99, "delay": 0}]
    with pytest.raises(psycopg.Error, match="only 0 are of messages that are being settled"):
        db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [message.lease], json.dumps(failure)))
    assert left(db)["lease"] == 1


def test_a_redelivery_outlives_the_log_it_came_from(db, worker) -> None:
    """It holds a copy, so that it never pins the log."""
    for message in pull(db, "s", worker):
        fail(db, worker, message)
    db.execute("TRUNCATE outbox.message")
    again = pull(db, "s", worker)
    assert sorted(payloads(again)) == list("abcdef")
    for message in again:
        fail(db, worker, message)
    assert sorted(drain(db, "s", worker, 1000)) == list("abcdef")


def test_release_gives_messages_back_in_order_without_spending_an_attempt(db, worker) -> None:
    pulled = pull(db, "s", worker)
    assert value(db, "SELECT outbox.release(%s, %s)", worker, [pulled[0].lease]) == 6
    again = pull(db, "s", worker, 1000)
    assert payloads(again) == list("abcdef")
    assert {message.attempt for message in again} == {1}


def test_redrive_gives_dead_letters_another_life_with_their_history(db, worker) -> None:
    for message in pull(db, "s", worker):
        fail(db, worker, message, delay=None, reason="rejected")
    assert value(db, "SELECT outbox.redrive('s', '{1}', '{2}')") == 1
    assert payloads(pull(db, "s", worker)) == ["b"]
    assert value(db, "SELECT outbox.redrive('s')") == 5
    again = pull(db, "s", worker, 1000)
    assert sorted(payloads(again)) == list("acdef")
    assert {message.attempt for message in again} == {1}
    assert value(db, "SELECT min(jsonb_array_length(errors)) FROM outbox.redelivery") == 1


def test_messages_of_a_worker_without_a_heartbeat_go_to_others(db, worker) -> None:
    dying = register(db, timeout="0 seconds")
    assert len(pull(db, "s", dying)) == 6
    assert value(db, "SELECT outbox.recover()") == 6
    assert value(db, "SELECT outbox.heartbeat(%s)", dying) is False
    with pytest.raises(psycopg.Error, match="was found dead") as caught:
        pull(db, "s", dying)
    assert caught.value.sqlstate == "OB005"
    assert sorted(drain(db, "s", worker)) == list("abcdef")


def test_a_live_worker_keeps_what_it_holds(db, worker) -> None:
    pull(db, "s", worker)
    assert value(db, "SELECT outbox.recover()") == 0
    assert value(db, "SELECT outbox.heartbeat(%s)", worker) is True
    assert left(db)["lease"] == 1


def test_a_lease_that_is_being_settled_is_not_recovered(database: Database, db, worker) -> None:
    pulled = pull(db, "s", worker)
    settling = database.connect()
    settle(settling, worker, pulled)
    assert value(db, "SELECT outbox.recover(%s)", worker) == 0
    settling.commit()
    assert drain(db, "s", register(db)) == []


def test_a_settlement_that_rolls_back_after_its_worker_was_found_dead_leaves_nothing_stuck(
    database: Database, db, worker
) -> None:
    pulled = pull(db, "s", worker)
    settling = database.connect()
    settle(settling, worker, pulled)
    assert value(db, "SELECT outbox.recover(%s)", worker) == 0
    settling.rollback()
    assert value(db, "SELECT outbox.recover()") == 6
    assert sorted(drain(db, "s", register(db))) == list("abcdef")


def test_the_message_that_kills_its_workers_is_found_and_its_neighbours_are_not_charged(db, worker) -> None:
    """The first crash makes suspects of a batch; they come one by one, and only who kills again is charged."""
    pull(db, "s", worker)
    survivors = []
    for _ in range(20):
        db.execute("SELECT outbox.recover(%s)", (worker,))
        worker = register(db)
        while pulled := pull(db, "s", worker):
            assert len(pulled) == 1
            if pulled[0].payload == "c":
                break  # the worker dies with it
            assert pulled[0].attempt == 1
            survivors += payloads(pulled)
            settle(db, worker, pulled)
    assert sorted(survivors) == list("abdef")
    row = db.execute("SELECT payload, reason, attempt, errors FROM outbox.dead_letter").fetchone()
    assert row is not None
    assert row[:3] == ("c", "worker died", 3)
    assert [error["class"] for error in row[3]] == ["WorkerDied"] * 3


def test_a_dead_worker_is_forgotten_after_a_while(db, worker) -> None:
    db.execute("SELECT outbox.recover(%s)", (worker,))
    assert value(db, "SELECT count(*) FROM outbox.worker") == 1
    later = "UPDATE outbox.worker SET retired_at = retired_at - interval '2 minutes', alive_until = now()"
    db.execute(later)
    db.execute("SELECT outbox.recover()")
    assert value(db, "SELECT count(*) FROM outbox.worker") == 0


def test_redeliveries_that_are_due_get_their_share_of_a_pull_under_a_backlog(db, worker) -> None:
    for message in pull(db, "s", worker, 2):
        fail(db, worker, message)
    publish(db, "t", *(str(n) for n in range(100)))
    pulled = pull(db, "s", worker, 4)
    assert [message.attempt for message in pulled] == [1, 1, 2, 2]


def test_old_redeliveries_are_looked_for_only_when_asked(db, worker) -> None:
    for message in pull(db, "s", worker, lease_size=1):
        fail(db, worker, message, delay=-3600) if message.payload == "a" else settle(db, worker, [message])
    assert pull(db, "s", worker, overdue=False) == []
    assert len(pull(db, "s", worker)) == 1


def test_one_message_in_two_leases_after_a_seek_back_can_be_recovered_failed_and_released(db, worker) -> None:
    one = pull(db, "s", worker)
    db.execute("SELECT outbox.seek('s', 1, 0)")
    two = pull(db, "s", worker)
    leases = [one[0].lease, two[0].lease]
    failures = json.dumps([{"lease": lease, "offset": 1, "delay": 0} for lease in leases])
    db.execute(
        'SELECT outbox.settle(%s, %s, \'{"{[1,1]}","{[1,1]}"}\'::int8multirange[], %s::jsonb)',
        (worker, leases, failures),
    )
    db.execute("SELECT outbox.release(%s, %s)", (worker, leases))
    again = pull(db, "s", worker, 1000)
    assert sorted(payloads(again)) == list("abcdef")
    db.execute("SELECT outbox.seek('s', 1, 0)")
    pull(db, "s", worker)
    assert value(db, "SELECT outbox.recover(%s)", worker) == 6
    assert left(db)["lease"] == 0
    assert sorted(set(drain(db, "s", register(db)))) == list("abcdef")


def test_a_redelivery_in_other_hands_is_not_taken_away_by_a_failure_of_its_double(db, worker) -> None:
    for message in pull(db, "s", worker, lease_size=1):
        fail(db, worker, message) if message.payload == "a" else settle(db, worker, [message])
    (held,) = pull(db, "s", worker)
    db.execute("SELECT outbox.seek('s', 1, 0)")
    double = pull(db, "s", worker, 1)[0]
    assert double.payload == held.payload == "a"
    fail(db, worker, double)
    fail(db, worker, held)
    assert left(db) == {"lease": 0, "redelivery": 1, "dead_letter": 0}


def test_a_pull_that_commits_after_its_worker_was_retired_hides_no_lease(database: Database, db, worker) -> None:
    pulling = database.connect()
    assert len(pull(pulling, "s", worker)) == 6
    assert value(db, "SELECT outbox.retire(%s)", worker) == 0
    later = "UPDATE outbox.worker SET retired_at = retired_at - interval '2 minutes', alive_until = now()"
    db.execute(later)
    assert value(db, "SELECT outbox.recover()") == 0
    pulling.commit()
    db.execute(later)
    assert value(db, "SELECT outbox.recover()") == 6
    assert sorted(drain(db, "s", register(db))) == list("abcdef")


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ("NULL", "OB001"),
        ("'{L,L}'", "OB001"),
        ("'{L,L}', '{\"{[1,1]}\",\"{[2,2]}\"}'", "OB001"),
        ("'{L}', '{\"{[1,1]}\",\"{[2,2]}\"}'", "OB007"),
        ("'{NULL}'", "OB001"),
        ("""'{L}', '{"{[1,1]}"}', '[{"lease": L, "offset": 3, "delay": 0}]'""", "OB007"),
        ("""'{L}', NULL, '[{"lease": L, "offset": 3, "delay": 0}, {"lease": L, "offset": 3}]'""", "OB007"),
        ("""'{L}', NULL, '[{"lease": 2, "offset": 3, "delay": 0}]'""", "OB007"),
    ],
)
def test_a_settlement_that_contradicts_itself_is_refused_whole(db, worker, arguments: str, state: str) -> None:
    (lease,) = {message.lease for message in pull(db, "s", worker)}
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"SELECT outbox.settle(%s, {arguments.replace('NULL', 'null').replace('L', str(lease))})", (worker,))
    assert caught.value.sqlstate == state
    assert left(db) == {"lease": 1, "redelivery": 0, "dead_letter": 0}


@pytest.mark.parametrize("arguments", ["'s', NULL, '{1}'", "'s', '{1}'", "'nobody'"])
def test_a_redrive_that_makes_no_sense_is_refused(db, worker, arguments: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        db.execute(f"SELECT outbox.redrive({arguments})")
    assert caught.value.sqlstate in ("OB004", "OB007")


def test_a_sequence_that_may_not_be_seen_is_an_error_and_not_an_empty_log(database: Database, db, worker) -> None:
    role = f"outbox_{database.name}_owner"
    db.execute(f"CREATE ROLE {role}")
    db.execute("SELECT outbox.declare_topic('later')")
    subscribe(db, "s", "later")
    try:
        db.execute(f"GRANT CREATE, USAGE ON SCHEMA outbox TO {role}")
        db.execute(f"ALTER FUNCTION outbox.log_end OWNER TO {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for sequence"):
            pull(db, "s", worker)
    finally:
        db.execute(f"REASSIGN OWNED BY {role} TO postgres")
        db.execute(f"DROP OWNED BY {role}")
        db.execute(f"DROP ROLE {role}")
