"""A crash of the server empties what is not in the write-ahead log; all else goes on."""

from __future__ import annotations

import itertools
import json
from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Pulled, drain, publish, pull, register, settle, subscribe, value

pytestmark = pytest.mark.slow


def crash(database: Database) -> psycopg.Connection[Any]:
    """Stop the server at once and start it again."""
    database.execute("CHECKPOINT")  # pulls and settlements don't wait for the disk
    database.postgres.stop("immediate")
    database.postgres.start()
    return database.connect(autocommit=True)


def nack(db: psycopg.Connection[Any], worker: int, lease: list[Pulled], delay: float | None) -> None:
    failures = json.dumps([{"lease": one.lease, "offset": one.offset, "delay": delay} for one in lease])
    db.execute("SELECT outbox.settle(%s, %s, NULL, %s::jsonb)", (worker, [lease[0].lease], failures))


def end(db: psycopg.Connection[Any], worker: int, lease: list[Pulled], how: str) -> None:
    if how == "settled":
        settle(db, worker, lease)
    elif how == "tried-again":
        nack(db, worker, lease, 0)
    elif how == "dead":
        nack(db, worker, lease, None)
    elif how == "released":
        db.execute("SELECT outbox.release(%s, %s)", (worker, [lease[0].lease]))
    else:
        db.execute("UPDATE outbox.worker SET alive_until = '-infinity' WHERE id = %s", (worker,))
        db.execute("SELECT outbox.recover()")


ENDS = ["settled", "tried-again", "dead", "released", "recovered"]


def test_leases_whose_messages_a_crash_took_end_like_others(own_postgres: Database) -> None:
    db = own_postgres.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('gone', retention => 'transient'), outbox.declare_topic('stays')")
    subscribe(db, "all", "gone", "stays")
    leases = []
    for how, on_failure in itertools.product(ENDS, [None, "park", "block"]):
        name, worker = f"{how}-{on_failure or 'unordered'}", register(db)
        subscribe(db, name, "gone", on_failure=on_failure)
        leases.append((name, how, worker))
    publish(db, "gone", *"abcdef", key="k")
    publish(db, "stays", "stays")
    held = [(name, how, worker, pull(db, name, worker, 3)) for name, how, worker in leases]
    db = crash(own_postgres)
    assert value(db, "SELECT count(*) FROM outbox.message") == 1
    for name, how, worker, lease in held:
        assert len(lease) == 3
        end(db, worker, lease, how)
        assert drain(db, name, register(db)) == [], name
    assert value(db, "SELECT count(*) FROM outbox.lease") == 0
    assert value(db, "SELECT count(*) FROM outbox.dead_letter") == 0, "there was nothing left to keep"
    publish(db, "gone", "g", key="k")
    for name, *_ in leases:
        assert drain(db, name, register(db)) == ["g"], name
    assert sorted(drain(db, "all", register(db))) == ["g", "stays"]


def test_what_was_to_be_tried_again_has_a_copy_that_a_crash_does_not_take(own_postgres: Database) -> None:
    db = own_postgres.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('gone', retention => 'transient')")
    subscribe(db, "s", "gone")
    publish(db, "gone", *"ab")
    worker = register(db)
    nack(db, worker, pull(db, "s", worker, 1), 0)
    db = crash(own_postgres)
    assert drain(db, "s", worker) == ["a"]


def test_a_compacted_topic_of_the_class_starts_anew(own_postgres: Database) -> None:
    db = own_postgres.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('gone', retention => 'transient', compact => true)")
    publish(db, "gone", "old", key="a")
    db = crash(own_postgres)
    publish(db, "gone", "new", key="b")
    db.execute("SELECT outbox.rotate_as_of(clock_timestamp() + interval '90 minutes')")
    subscribe(db, "s", "gone")
    assert drain(db, "s", register(db)) == ["new"]
