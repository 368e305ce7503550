"""Slots are emptied while others publish and read: nobody who publishes waits for it, whoever stands in its way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.shop_floor import (
    PATIENCE,
    Database,
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

pytestmark = pytest.mark.slow

#: Who waits for a table that another has locked. (Publishers wait for each other when they make a table larger.)
WAITING = """
SELECT a.application_name, l.relation::regclass::text FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE NOT l.granted AND l.locktype = 'relation' AND a.datname = current_database()
"""


class Background(threading.Thread):
    """Does something again and again until the end of a `with`, which raises what went wrong."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self._step, self._over, self.steps, self.error = step, threading.Event(), 0, None

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self._step()
                self.steps += 1
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Background:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(PATIENCE)
        if self.error is not None:
            raise self.error


@contextmanager
def publishing(database: Database, number: int) -> Iterator[Background]:
    """A publisher that fails if it ever waits long for a lock: short waits are watched."""
    db = database.connect(autocommit=True, application_name="publisher")
    db.execute("SET lock_timeout = '10s'")
    counted = iter(range(10**9))

    def step() -> None:
        publish(db, "t", f"{number}-{(n := next(counted))}", key=f"{number}-{n % 50}")

    with Background(step) as thread:
        yield thread


@pytest.mark.parametrize("compact", [False, True])
def test_whoever_publishes_never_waits_for_a_rotation_that_somebody_stalls(
    one_database: Database, compact: bool
) -> None:
    db = one_database.connect(autocommit=True)
    db.execute("SELECT outbox.declare_topic('t', retention => 'short', compact => %s)", (compact,))
    db.execute("SELECT outbox.set_retention('short', '2 seconds')")
    subscribe(db, "s", "t")
    worker = register(db)
    waits: set[tuple[str, str]] = set()
    watching = one_database.connect(autocommit=True)
    rotating = one_database.connect(autocommit=True, application_name="rotation")
    emptied: list[str | None] = []

    def rotate() -> None:
        rows = rotating.execute("SELECT held_by FROM outbox.rotate() WHERE log = 'message'").fetchall()
        emptied.extend(held_by for (held_by,) in rows)

    with (
        publishing(one_database, 1) as one,
        publishing(one_database, 2) as two,
        Background(lambda: waits.update(watching.execute(WAITING).fetchall())),
        Background(rotate),
    ):
        taken = []

        def take_some() -> None:  # not all that there is: that has no end while they publish
            if pulled := pull(db, "s", worker, 10_000):
                settle(db, worker, pulled)
                taken.extend(payloads(pulled))

        def go_on(until: Any, what: str) -> None:
            wait_for(lambda: take_some() or until(), what)

        go_on(lambda: emptied.count(None) > 1, "slots that are emptied")
        stalling = one_database.connect(application_name="stalling")
        stalling.execute("SELECT count(*) FROM outbox.message")
        before = one.steps, two.steps
        pid = f"pid {stalling.info.backend_pid}"
        go_on(lambda: sum(pid in (held_by or "") for held_by in emptied) > 2, "rotations that give up")
        go_on(lambda: one.steps > before[0] + 50 and two.steps > before[1] + 50, "publishers that go on")
        stalling.rollback()
        emptied.clear()
        go_on(lambda: emptied.count(None) > 1, "slots that are emptied again")
    taken += drain(db, "s", worker, 10_000)
    assert sorted(taken) == sorted(f"{n}-{m}" for n, t in ((1, one), (2, two)) for m in range(t.steps))
    assert "rotation" in {name for name, _ in waits}, "it did not even try"
    assert "publisher" not in {name for name, _ in waits}
    assert value(db, "SELECT count(*) FROM outbox.lost") == 0
    if compact:
        kept = {key for (key,) in db.execute("SELECT key FROM outbox.message")}
        assert kept == {f"{n}-{m}" for n in (1, 2) for m in range(50)}
