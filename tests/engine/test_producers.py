"""Transactional ids of relays: noted before they are used, and to be fenced when their worker lives no more."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.shop_floor import Database, Later, value


def register(db: psycopg.Connection[Any]) -> int:
    return int(value(db, "SELECT outbox.register('w', '{out}')"))


def opened(db: psycopg.Connection[Any], id: str, worker: int) -> bool:
    return bool(value(db, "SELECT outbox.open_producer(%s, 'out', %s)", id, worker))


def dead(db: psycopg.Connection[Any], relay: str = "out") -> list[str]:
    return [id for (id,) in db.execute("SELECT outbox.dead_producers(%s)", [relay]).fetchall()]


def test_the_ids_of_the_dead_are_to_be_fenced_and_those_of_the_living_are_not(db: psycopg.Connection[Any]) -> None:
    first, second = register(db), register(db)
    assert opened(db, "a", first)
    assert opened(db, "a", first)  # its connection may have broken after the commit
    assert opened(db, "b", second)
    assert dead(db) == []
    db.execute("SELECT outbox.recover(%s)", [first])
    assert dead(db) == ["a"]
    assert dead(db, "another") == []
    db.execute("DELETE FROM outbox.worker WHERE id = %s", [first])  # forgotten, as recover does after a while
    assert dead(db) == ["a"]
    db.execute("SELECT outbox.close_producer('a')")
    assert dead(db) == []


def test_a_worker_that_ended_or_was_found_dead_notes_none(db: psycopg.Connection[Any]) -> None:
    ended, found = register(db), register(db)
    db.execute("SELECT outbox.retire(%s), outbox.recover(%s)", [ended, found])
    assert not opened(db, "a", ended)
    assert not opened(db, "b", found)
    assert not opened(db, "c", 4711)
    assert dead(db) == []


def test_whoever_finds_a_worker_dead_sees_the_id_that_it_was_just_noting(one_database: Database) -> None:
    noting, finding = one_database.connect(), one_database.connect(autocommit=True)
    worker = register(noting)
    noting.commit()
    assert opened(noting, "a", worker)
    ending = Later(finding, "SELECT outbox.retire(%s)", worker)
    ending.wait_until_it_waits(one_database)
    noting.commit()
    ending.join()
    assert dead(finding) == ["a"]
