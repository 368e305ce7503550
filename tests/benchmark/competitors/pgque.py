"""PgQue: PgQ's log in rotated tables, cut into batches by ticks, as plain SQL; run as a module, this is its ticker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.benchmark.competitors.competitor import Publisher, Work
from tests.benchmark.competitors.peer import INSERT_EFFECT, Peer, SqlPublisher, set_at_sigterm

#: The path of PgQue's `sql/pgque.sql`.
_SQL = "OUTBOX_BENCH_PGQUE_SQL"
_QUEUE, _CONSUMER = "bench", "consumer"
#: Seconds between ticks, and between turns of the maintenance.
_TICK, _MAINTENANCE = 0.1, 30.0
#: More than any batch has: `ack` ends a batch as a whole.
_ALL = 2_147_483_647

_CONFIGURE = "SELECT pgque.set_queue_config(%s, %s, %s)"
_SEND = f"SELECT pgque.send('{_QUEUE}', %s::text)"
_SEND_BATCH = f"SELECT pgque.send_batch('{_QUEUE}', 'default', %b::text[])"
_RECEIVE = f"SELECT batch_id, payload FROM pgque.receive_coop('{_QUEUE}', '{_CONSUMER}', %s, {_ALL})"

#: Published and in no batch yet, batches that are not acknowledged, and what waits to be tried again.
_UNSETTLED = f"""
WITH place AS (
    SELECT t.tick_snapshot AS seen
    FROM pgque.subscription s
    JOIN pgque.consumer c ON c.co_id = s.sub_consumer AND c.co_name = '{_CONSUMER}'
    JOIN pgque.tick t ON t.tick_queue = s.sub_queue AND t.tick_id = s.sub_last_tick
)
SELECT (SELECT count(*) FROM place, pgque.event_1
        WHERE ev_txid >= pg_snapshot_xmin(seen) AND NOT pg_visible_in_snapshot(ev_txid, seen))
     + (SELECT count(*) FROM pgque.subscription WHERE sub_batch IS NOT NULL)
     + (SELECT count(*) FROM pgque.retry_queue)
"""


class PgQue(Peer):
    """Cooperating consumers; each batch of a tick is acknowledged as a whole, in the transaction of its effects.

    With kind "effect" the rows have a transaction each, and the batch is acknowledged after them: it can't acknowledge
    one message. With "effects" a transaction is as large as what was published between two ticks, whatever
    `Work.batch` says. Its own `Consumer` takes one batch a tick and waits, so that a backlog takes long: the calls of
    its documentation are made instead.
    """

    name = "PgQue"
    packages = ()
    unsettled = _UNSETTLED

    def __init__(self) -> None:
        super().__init__()
        self._ticker: subprocess.Popen[bytes] | None = None

    def missing(self) -> str | None:
        if Path(os.environ.get(_SQL, "")).is_file():
            return None
        return f"{_SQL}=the path of sql/pgque.sql, from https://github.com/NikolayS/pgque, tag v0.2.0"

    def install(self, url: str) -> None:
        with psycopg.connect(url) as db:
            db.execute(Path(os.environ[_SQL]).read_bytes())
            db.execute("SELECT pgque.create_queue(%s)", (_QUEUE,))
            db.execute(_CONFIGURE, (_QUEUE, "ticker_max_lag", f"{_TICK} seconds"))
            db.execute(_CONFIGURE, (_QUEUE, "ticker_idle_period", "1 second"))
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("SELECT pgque.ticker()")
            # Its place in the log begins here; it has to keep a member, and this one never receives.
            db.execute("SELECT pgque.subscribe_subconsumer(%s, %s, 'nobody')", (_QUEUE, _CONSUMER))
        self._ticker = subprocess.Popen([sys.executable, "-m", __name__, url])

    def remove(self, url: str) -> None:
        super().remove(url)
        if self._ticker is not None:
            self._ticker.terminate()
            self._ticker.wait()

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        with psycopg.connect(url) as connection:
            yield SqlPublisher(connection, _SEND, _SEND_BATCH)

    def consume(self, url: str, work: Work) -> None:
        stopped = set_at_sigterm()
        subconsumer = f"worker-{os.getpid()}"
        settle = _settle_each if work.kind == "effect" else _settle_all
        work.wait_for_start()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"LISTEN pgque_{_QUEUE}")
            while not stopped.is_set():
                if messages := connection.execute(_RECEIVE, (subconsumer,)).fetchall():
                    settle(connection, messages, work)
                else:
                    list(connection.notifies(timeout=_TICK, stop_after=1))
            connection.execute("SELECT pgque.unsubscribe_subconsumer(%s, %s, %s, 1)", (_QUEUE, _CONSUMER, subconsumer))


def _settle_each(connection: psycopg.Connection[Any], messages: Sequence[tuple[int, str]], work: Work) -> None:
    for _, text in messages:
        payload = json.loads(text)
        connection.execute(INSERT_EFFECT, (payload["id"],))
        work.handle(payload)
    _acknowledge(connection, messages)


def _settle_all(connection: psycopg.Connection[Any], messages: Sequence[tuple[int, str]], work: Work) -> None:
    payloads = [json.loads(text) for _, text in messages]
    with connection.pipeline(), connection.transaction():
        if work.kind == "effects":
            connection.cursor().executemany(INSERT_EFFECT, [(payload["id"],) for payload in payloads])
        _acknowledge(connection, messages)
    for payload in payloads:
        work.handle(payload)


def _acknowledge(connection: psycopg.Connection[Any], messages: Sequence[tuple[int, str]]) -> None:
    batch, _ = messages[0]
    connection.execute("SELECT pgque.ack(%s)", (batch,))


def tick(url: str) -> None:
    """Tick and maintain, as pg_cron would, until SIGTERM."""
    maintained = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            connection.execute("SELECT pgque.ticker()")
            if time.monotonic() > maintained + _MAINTENANCE:
                maintained = time.monotonic()
                connection.execute("SELECT pgque.maint_retry_events()")
                connection.execute("SELECT pgque.maint()")
                connection.execute("SELECT pgque.maint_rotate_tables_step2()")
            time.sleep(_TICK)


if __name__ == "__main__":
    tick(sys.argv[1])
