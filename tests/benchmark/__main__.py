"""Measure on a fresh embedded Postgres with durable settings, competitors in turns.

    python -m tests.benchmark [--rounds N] [--database-url URL]

The database of the URL is emptied of outbox's schema. Each line is a ratio to hand-written SQL of the same run:
read the ratios, since the numbers are those of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy

from outbox import Outbox, schema
from outbox.database import sqlalchemy_url
from outbox.worker import Worker
from workers.demo import embedded_postgres

ORDER = {"id": 4711, "customer": "customer-7", "total": "129.90", "lines": [{"sku": "A-1", "n": 2}], "note": "x" * 95}
MESSAGES = 50_000


class Bench:
    def __init__(self, url: str) -> None:
        self.url = url
        engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            schema.migrate(connection, "base")
            schema.migrate(connection)
        self.app = Outbox()
        self.db = psycopg.connect(url, autocommit=True)
        self.db.execute("DROP TABLE IF EXISTS orders, plain")
        self.db.execute("CREATE TABLE orders (id bigserial PRIMARY KEY, body json)")
        self.db.execute(
            "CREATE TABLE plain (id bigserial PRIMARY KEY, key text, headers jsonb, payload json, "
            "at timestamptz DEFAULT now())"
        )
        self.payload = json.dumps(ORDER)

    def publish_in_a_transaction(self, transactions: int = 500) -> dict[str, float]:
        """Seconds of a transaction that inserts an order, and an order and a message."""
        outbox = psycopg.connect(self.url)

        def with_publish() -> None:
            outbox.execute("INSERT INTO orders (body) VALUES (%s)", (self.payload,))
            self.app.publish(outbox, "bench", ORDER, key="7")
            outbox.commit()

        def with_a_key() -> None:
            outbox.execute("INSERT INTO orders (body) VALUES (%s)", (self.payload,))
            key = str(time.monotonic_ns())
            self.app.publish(outbox, "bench", ORDER, key="7", idempotency_key=key)
            outbox.commit()

        def with_insert() -> None:
            outbox.execute("INSERT INTO orders (body) VALUES (%s)", (self.payload,))
            outbox.execute("INSERT INTO plain (key, payload) VALUES (%s, %s)", ("7", json.dumps(ORDER)))
            outbox.commit()

        def order_only() -> None:
            outbox.execute("INSERT INTO orders (body) VALUES (%s)", (self.payload,))
            outbox.commit()

        kinds = {
            "publish": with_publish,
            "publish, idempotent": with_a_key,
            "a plain INSERT": with_insert,
            "nothing more": order_only,
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(transactions):
            for name, call in kinds.items():
                times[name].append(timed(call))
        outbox.close()
        return {name: statistics.median(found) for name, found in times.items()}

    def publish_in_bulk(self) -> dict[str, float]:
        """Seconds for 50,000 messages, 1,000 a transaction."""
        with psycopg.connect(self.url) as connection:

            def many() -> None:
                for _ in range(MESSAGES // 1000):
                    self.app.publish_many(connection, "bench", [ORDER] * 1000)
                    connection.commit()

            def copy() -> None:
                for _ in range(MESSAGES // 1000):
                    with connection.cursor() as cursor, cursor.copy("COPY plain (payload) FROM STDIN") as rows:
                        for _ in range(1000):
                            rows.write_row((json.dumps(ORDER),))
                    connection.commit()

            return {"publish_many": timed(many), "COPY into a plain table": timed(copy)}

    def drain(self) -> dict[str, float]:
        """Seconds to hand 50,000 messages to a handler that reads the payload and does nothing."""
        self.db.execute("TRUNCATE plain")
        topic = f"drain-{time.monotonic_ns()}"
        with psycopg.connect(self.url) as connection:
            for _ in range(MESSAGES // 1000):
                self.app.publish_many(connection, topic, [ORDER] * 1000)
            connection.execute(
                "INSERT INTO plain (payload) SELECT %s::json FROM generate_series(1, %s)", (self.payload, MESSAGES)
            )
        found = {"outbox worker": self._drain_with_worker(topic, MESSAGES), "keyset scan": timed(self._keyset_scan)}
        found["DELETE … SKIP LOCKED"] = timed(self._skip_locked)
        return found

    def _drain_with_worker(self, topic: str, messages: int) -> float:
        """From the first message to the last settlement, in a worker of its own process's making."""
        app, began = Outbox(), [0.0]
        seen = 0

        @app.subscribe(f"{topic}-{time.monotonic_ns()}", topic)
        def handle(message: Any) -> None:
            nonlocal seen
            began[0] = began[0] or time.perf_counter()
            assert message.payload["id"] == 4711
            seen += 1
            if seen == messages:
                os.kill(os.getpid(), signal.SIGTERM)

        worker = Worker(app, self.url)
        asyncio.run(worker.run())
        assert self._one("SELECT sum(lag) FROM outbox.lag WHERE topic = %s", topic) == 0
        assert self._one("SELECT count(*) FROM outbox.lease") == 0
        return time.perf_counter() - began[0]

    def effects(self, messages: int = 5_000) -> dict[str, float]:
        """Seconds for 5,000 effects, a row each, in the transactions that settle their messages."""
        self.db.execute("DROP TABLE IF EXISTS effect; CREATE TABLE effect (id int); TRUNCATE plain")
        kinds: dict[str, dict[str, Any]] = {
            "exactly-once, one a transaction": {},
            "exactly-once, batch=100": {"batch": 100},
            "ordered, one a transaction": {"ordered": True},
            "ordered, batch=100": {"ordered": True, "batch": 100},
        }
        found = {name: self._effects_of_worker(messages, settings) for name, settings in kinds.items()}
        self.db.execute(
            "INSERT INTO plain (payload) SELECT %s::json FROM generate_series(1, %s)", (self.payload, messages)
        )
        for size in (1, 100):
            found[f"hand-written cursor, {size} a transaction"] = timed(lambda size=size: self._hand_written(size))
            assert self._one("SELECT count(*) FROM effect") == messages
            self.db.execute("TRUNCATE effect")
        return found

    def _effects_of_worker(self, messages: int, settings: dict[str, Any]) -> float:
        topic, app, began, seen = f"effects-{time.monotonic_ns()}", Outbox(), [0.0], [0]
        with psycopg.connect(self.url) as connection:
            self.app.publish_many(connection, topic, [ORDER] * messages)

        @app.subscribe(topic, topic, guarantee="exactly-once", **settings)
        def handle(message: Any, connection: psycopg.Connection[Any]) -> None:
            began[0] = began[0] or time.perf_counter()
            connection.execute("INSERT INTO effect VALUES (%s)", (message.payload["id"],))
            seen[0] += 1
            if seen[0] == messages:
                os.kill(os.getpid(), signal.SIGTERM)

        asyncio.run(Worker(app, self.url).run())
        assert self._one("SELECT count(*) FROM effect") == messages
        self.db.execute("TRUNCATE effect")
        return time.perf_counter() - began[0]

    def _hand_written(self, size: int) -> None:
        """A cursor in a table of one row: one reader, no retries, and whatever commits late is lost."""
        self.db.execute("DROP TABLE IF EXISTS place; CREATE TABLE place AS SELECT 0::bigint AS id")
        with psycopg.connect(self.url) as connection:
            while True:
                scan = "SELECT id, payload::text FROM plain WHERE id > (SELECT id FROM place) ORDER BY id LIMIT %s"
                rows = connection.execute(scan, (size,)).fetchall()
                if not rows:
                    return
                for _, text in rows:
                    connection.execute("INSERT INTO effect VALUES (%s)", (json.loads(text)["id"],))
                connection.execute("UPDATE place SET id = %s", (rows[-1][0],))
                connection.commit()

    def _keyset_scan(self) -> None:
        """No settlement at all: the limit of what reading can be."""
        last = 0
        scan = "SELECT id, payload::text FROM plain WHERE id > %s ORDER BY id LIMIT 1000"
        while rows := self.db.execute(scan, (last,)).fetchall():
            for _, text in rows:
                assert json.loads(text)["id"] == 4711
            last = rows[-1][0]

    def _skip_locked(self) -> None:
        delete = (
            "DELETE FROM plain WHERE id = ANY (ARRAY("
            "SELECT id FROM plain ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED)) RETURNING payload::text"
        )
        while rows := self.db.execute(delete).fetchall():
            for (text,) in rows:
                assert json.loads(text)["id"] == 4711

    def latency(self, messages: int = 300) -> dict[str, float]:
        """Milliseconds from the return of COMMIT to the handler, one message every 20 ms; and of a loop that polls.

        The first twenty are left out: the first pull on a connection plans its statements, which takes some 5 ms.
        """
        found = {}
        for name, measure in (
            ("outbox worker", self._worker_latency),
            ("a loop that polls every 2 ms", self._loop_latency),
        ):
            times = sorted(1000 * seconds for seconds in measure(messages)[20:])
            found[f"{name}, p50"] = statistics.median(times)
            found[f"{name}, p99"] = times[int(len(times) * 0.99)]
        return found

    def _worker_latency(self, messages: int) -> list[float]:
        app, committed, times = Outbox(), {}, []

        @app.subscribe(f"latency-{time.monotonic_ns()}", "latency", start="next")
        def handle(message: Any) -> None:
            times.append((message.payload, time.perf_counter()))
            if len(times) == messages:
                os.kill(os.getpid(), signal.SIGTERM)

        def publish() -> None:
            time.sleep(1)  # the worker starts and falls asleep
            with psycopg.connect(self.url) as connection:
                for number in range(messages):
                    self.app.publish(connection, "latency", number)
                    connection.commit()
                    committed[number] = time.perf_counter()
                    time.sleep(0.02)

        with psycopg.connect(self.url) as connection:
            self.app.declare_topic(connection, "latency")
        worker = Worker(app, self.url, grace=timedelta(seconds=5))
        publisher = threading.Thread(target=publish)
        publisher.start()
        asyncio.run(worker.run())
        publisher.join()
        return [max(0.0, at - committed[number]) for number, at in times]

    def _loop_latency(self, messages: int) -> list[float]:
        self.db.execute("TRUNCATE plain")
        committed: dict[int, float] = {}
        times: list[float] = []

        def publish() -> None:
            with psycopg.connect(self.url) as connection:
                for number in range(messages):
                    connection.execute("INSERT INTO plain (payload) VALUES (%s)", (str(number),))
                    connection.commit()
                    committed[number] = time.perf_counter()
                    time.sleep(0.02)

        publisher = threading.Thread(target=publish)
        publisher.start()
        last = 0
        scan = "SELECT id, payload::text::int FROM plain WHERE id > %s ORDER BY id LIMIT 100"
        while len(times) < messages:
            for id, number in self.db.execute(scan, (last,)).fetchall():
                at, last = time.perf_counter(), id
                times.append(max(0.0, at - committed.get(number, at)))
            time.sleep(0.002)
        publisher.join()
        return times

    def _one(self, statement: str, *arguments: Any) -> Any:
        row = self.db.execute(statement, arguments).fetchone()
        assert row is not None
        return row[0]


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def report(title: str, unit: str, rounds: list[dict[str, float]], against: str | None) -> None:
    """Each competitor's median and spread, and its ratio to the hand-written one, round by round."""
    print(f"\n{title}")
    for name in rounds[0]:
        values = sorted(found[name] for found in rounds)
        line = f"  {name:<34}{statistics.median(values):>12,.2f} {unit:<6} ({values[0]:,.2f} to {values[-1]:,.2f})"
        if against and name != against:
            ratios = sorted(found[name] / found[against] for found in rounds)
            line += f"   {statistics.median(ratios):.2f} x {against} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(line, flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.benchmark")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--database-url")
    chosen = arguments.parse_args()
    with ExitStack() as stack:
        url = chosen.database_url
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            url = stack.enter_context(embedded_postgres(Path(folder)))
        bench = Bench(url)
        rounds = range(chosen.rounds)
        version = bench._one("SHOW server_version")
        python = sys.version.split()[0]
        print(f"{chosen.rounds} rounds: medians (lowest to highest); Python {python}, PostgreSQL {version}")
        micro = [{name: 1e6 * value for name, value in bench.publish_in_a_transaction().items()} for _ in rounds]
        report("One transaction: an order, and …", "µs", micro, "a plain INSERT")
        rate = [{name: MESSAGES / value for name, value in bench.publish_in_bulk().items()} for _ in rounds]
        report("Bulk publish, 1,000 a transaction", "/s", rate, "COPY into a plain table")
        rate = [{name: MESSAGES / value for name, value in bench.drain().items()} for _ in rounds]
        report("Drain 50,000, one process, no-op handler", "/s", rate, "keyset scan")
        rate = [{name: 5_000 / value for name, value in bench.effects().items()} for _ in rounds]
        report("5,000 effects with their settlement, one process", "/s", rate, "hand-written cursor, 1 a transaction")
        latencies = [bench.latency() for _ in rounds]
        report("Commit to handler at rest, a message every 20 ms", "ms", latencies, None)


if __name__ == "__main__":
    main()
