"""pgmq: SQL functions on a table per queue; a message is hidden when it is read, and deleted when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from tests.benchmark.competitors.competitor import Publisher, Work
from tests.benchmark.competitors.peer import INSERT_EFFECT, Peer, SqlPublisher, set_at_sigterm

_QUEUE = "bench"
_BATCH = 1_000
#: Seconds for which what is read is hidden from others: longer than a batch takes.
_HIDDEN = 60

_SEND = f"SELECT pgmq.send('{_QUEUE}', %s::jsonb)"
_SEND_BATCH = f"SELECT pgmq.send_batch('{_QUEUE}', %b::text[]::jsonb[])"
#: Waits for a message for a second at most, and looks every 10 ms.
_READ = f"SELECT msg_id, message FROM pgmq.read_with_poll('{_QUEUE}', {_HIDDEN}, %s, 1, 10)"
_DELETE = f"SELECT pgmq.delete('{_QUEUE}', %s::bigint)"
_DELETE_BATCH = f"SELECT pgmq.delete('{_QUEUE}', %b::bigint[])"

_Message = tuple[int, dict[str, Any]]


class Pgmq(Peer):
    """Reads up to 1,000 messages; deletes each, or all, in the transaction of their effects.

    The SQL comes with pgmq's Python client. Its functions are called as its documentation calls them, without the
    client, which is slower.
    """

    name = "pgmq"
    packages = ("pgmq",)
    unsettled = f"SELECT count(*) FROM (SELECT FROM pgmq.q_{_QUEUE} LIMIT 1) AS one"

    def install(self, url: str) -> None:
        from pgmq.install import install_pgmq_from_sql

        install_pgmq_from_sql(dsn=url)
        with psycopg.connect(url) as connection:
            connection.execute("SELECT pgmq.create(%s)", (_QUEUE,))

    @contextmanager
    def publisher(self, url: str) -> Iterator[Publisher]:
        with psycopg.connect(url) as connection:
            yield SqlPublisher(connection, _SEND, _SEND_BATCH)

    def consume(self, url: str, work: Work) -> None:
        stopped = set_at_sigterm()
        size = work.batch if work.kind == "effects" else _BATCH
        settle = _settle_each if work.kind == "effect" else _settle_all
        work.wait_for_start()
        with psycopg.connect(url, autocommit=True) as connection:
            while not stopped.is_set():
                if messages := connection.execute(_READ, (size,)).fetchall():
                    settle(connection, messages, work)


def _settle_each(connection: psycopg.Connection[Any], messages: Sequence[_Message], work: Work) -> None:
    for id, payload in messages:
        with connection.pipeline(), connection.transaction():
            connection.execute(INSERT_EFFECT, (payload["id"],))
            connection.execute(_DELETE, (id,))
        work.handle(payload)


def _settle_all(connection: psycopg.Connection[Any], messages: Sequence[_Message], work: Work) -> None:
    with connection.pipeline(), connection.transaction():
        for _, payload in messages:
            work.handle(payload)
        if work.kind == "effects":
            connection.cursor().executemany(INSERT_EFFECT, [(payload["id"],) for _, payload in messages])
        connection.execute(_DELETE_BATCH, ([id for id, _ in messages],))
