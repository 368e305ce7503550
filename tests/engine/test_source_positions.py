"""How far a source has read moves in the transaction that publishes, and only from where it stands."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.shop_floor import Database, Later, value

ADVANCE = "SELECT outbox.advance_source('s', 't/0', %s, %s)"
STANDS = "SELECT outbox.lock_source('s', 't/0')"


def test_a_source_moves_on_from_where_it_stands_and_keeps_one_row(db: psycopg.Connection[Any]) -> None:
    assert value(db, STANDS) is None
    for step in (None, 10), (10, 11), (11, 500):
        db.execute(ADVANCE, step)
    assert value(db, STANDS) == 500
    assert value(db, "SELECT count(*) FROM outbox.source_position") == 1


@pytest.mark.parametrize("step", [(None, 20), (9, 20), (11, 20), (10, 10), (10, 3)])
def test_who_read_from_elsewhere_or_reads_back_is_refused(
    db: psycopg.Connection[Any], step: tuple[int | None, int]
) -> None:
    db.execute(ADVANCE, (None, 10))
    with pytest.raises(psycopg.Error) as caught:
        db.execute(ADVANCE, step)
    assert caught.value.sqlstate == "OB001"
    assert value(db, STANDS) == 10


def test_of_two_that_read_the_same_one_publishes_it(database: Database) -> None:
    """Also if the other comes while it is not committed: it waits, and is refused."""
    first, second = database.connect(), database.connect()
    first.execute("SELECT outbox.publish('t', '1')")
    first.execute(ADVANCE, (None, 10))
    later = Later(second, "SELECT outbox.advance_source('s', 't/0', NULL, 10)").wait_until_it_waits(database)
    first.commit()
    assert later.join().sqlstate == "OB001"
    second.rollback()


def test_a_step_that_rolls_back_was_never_made(database: Database) -> None:
    connection = database.connect()
    connection.execute(ADVANCE, (None, 10))
    connection.rollback()
    assert value(connection, STANDS) is None
    connection.rollback()


def test_sources_and_partitions_stand_apart(db: psycopg.Connection[Any]) -> None:
    db.execute(ADVANCE, (None, 10))
    assert value(db, "SELECT outbox.lock_source('s', 't/1')") is None
    assert value(db, "SELECT outbox.lock_source('other', 't/0')") is None
