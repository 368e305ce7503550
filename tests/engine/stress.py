"""The engine under everything at once, straight in SQL: a ledger says what was lost, doubled, made up or reordered.

Publishers roll back, use savepoints, dawdle, publish in bulk and lock their keys; one transaction is huge, one holds an
xid open and writes nothing, one is prepared. The topic gets other numbers of partitions. Pullers roll back, nack,
release, and die with leases in their hands. Each effect is written in the transaction that settles its message. Routed,
one subscription takes half of the messages by their headers, and an alternate what that one does not take: together
all, each once.

    python -m tests.engine.stress [seconds] [seed]
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import psycopg
import sqlalchemy

from outbox import schema
from outbox.database import sqlalchemy_url
from tests.servers import Postgres, embedded_binaries

TABLES = """
CREATE TABLE IF NOT EXISTS account (key text PRIMARY KEY, turn int NOT NULL);
INSERT INTO account SELECT 'k' || n, 0 FROM generate_series(1, 20) n ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS held (x int);
CREATE TABLE IF NOT EXISTS effect (body text);
"""


@dataclass
class Ledger:
    """What was committed, what was effected, and in which order each key came."""

    published: list[str] = field(default_factory=list)
    effects: Counter[str] = field(default_factory=Counter)
    #: subscription and key → turn → (lease, place in the batch) of its first delivery
    turns: dict[str, dict[int, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))
    left: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> list[str]:
        return [body for body in self.published if self.effects[body] == 0]

    @property
    def doubled(self) -> list[str]:
        return [body for body, times in self.effects.items() if times > 1]

    @property
    def made_up(self) -> set[str]:
        return set(self.effects) - set(self.published)

    @property
    def inversions(self) -> int:
        by_key = (sorted(seen, key=seen.__getitem__) for seen in self.turns.values())
        return sum(a > b for turns in by_key for a, b in itertools.pairwise(turns))

    def __str__(self) -> str:
        return (
            f"published {len(self.published)}, lost {len(self.lost)}, doubled {len(self.doubled)}, "
            f"made up {len(self.made_up)}, inversions per key {self.inversions}, left {self.left}"
        )


class Stress:
    def __init__(
        self, url: str, seconds: float, seed: int, publishers: int = 6, pullers: int = 3, routed: bool = False
    ) -> None:
        self.url, self.seconds, self.seed = url, seconds, seed
        self.publishers, self.pullers = publishers, pullers
        self.subscriptions = ["s", "rest"] if routed else ["s"]
        self.ledger = Ledger()
        self.lock = threading.Lock()
        self.published_all = threading.Event()
        self.failures: list[BaseException] = []

    def run(self) -> Ledger:
        self.prepare()
        self.until = time.monotonic() + self.seconds
        parts = [(self.publish, n) for n in range(self.publishers)]
        parts += [(self.publish_hugely, 0), (self.hold_an_xid, 0), (self.prepare_a_transaction, 0), (self.alter, 0)]
        publishing = [self.thread(what, n) for what, n in parts]
        pulling = [self.thread(self.pull, n) for n in range(self.pullers)]
        for thread in publishing:
            thread.join()
        self.published_all.set()
        for thread in pulling:
            thread.join()
        if self.failures:
            raise self.failures[0]
        self.count()
        return self.ledger

    def thread(self, what, number: int) -> threading.Thread:
        def run() -> None:
            try:
                what(number, random.Random(self.seed * 1000 + number))
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=run, name=f"{what.__name__}-{number}")
        thread.start()
        return thread

    def prepare(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(TABLES)
            db.execute("SELECT outbox.declare_topic('t', partitions => 2, max_priority => 1)")
            for name in self.subscriptions:
                db.execute("SELECT outbox.subscribe(%s, max_attempts => 1000)", (name,))
            if self.subscriptions == ["s"]:
                db.execute("SELECT outbox.bind('s', 't')")
            else:
                db.execute("""SELECT outbox.bind('s', 't', headers => '{"side": "left"}')""")
                db.execute("SELECT outbox.bind('rest', '#', alternate => true)")

    def publish(self, number: int, chance: random.Random) -> None:
        count = 0
        with psycopg.connect(self.url) as db:
            while time.monotonic() < self.until:
                mine: list[str] = []
                key = f"k{chance.randint(1, 20)}"
                turn = None
                if chance.random() < 0.5:
                    lock = "UPDATE account SET turn = turn + 1 WHERE key = %s RETURNING turn"
                    turn = db.execute(lock, (key,)).fetchone()[0]
                for n in range(chance.choice([1, 5, 50, 400]) if chance.random() < 0.05 else 1):
                    body = f"{number}-{count}" + (f"|{key}|{turn}" if turn and n == 0 else "")
                    count += 1
                    if chance.random() < 0.1:
                        db.execute("SAVEPOINT s")
                        self.publish_one(db, body + "x", key, 0)
                        db.execute("ROLLBACK TO s")
                    self.publish_one(db, body, key, 0 if turn else chance.randint(0, 1))
                    mine.append(body)
                if chance.random() < 0.05:
                    time.sleep(chance.random() * 0.2)
                if chance.random() < 0.2:
                    db.rollback()
                    continue
                db.commit()
                with self.lock:
                    self.ledger.published.extend(mine)

    def publish_one(self, db: psycopg.Connection, body: str, key: str, priority: int) -> None:
        db.execute(
            "SELECT outbox.publish('t', %s, key => %s, headers => %s, priority => %s)",
            (json.dumps(body), key, _headers(body), priority),
        )

    def publish_hugely(self, number: int, chance: random.Random) -> None:
        bodies = [f"huge-{n}" for n in range(5000)]
        with psycopg.connect(self.url) as db:
            many = "SELECT outbox.publish_many('t', %b::text[]::json[], %b::text[], %b::text[]::jsonb[])"
            keys = [f"k{n % 20}" for n in range(5000)]
            db.execute(many, ([json.dumps(b) for b in bodies], keys, [_headers(b) for b in bodies]))
            time.sleep(self.seconds / 2)
        self.ledger.published.extend(bodies)

    def hold_an_xid(self, number: int, chance: random.Random) -> None:
        with psycopg.connect(self.url) as db:
            db.execute("INSERT INTO held VALUES (1)")
            time.sleep(self.seconds * 0.8)

    def prepare_a_transaction(self, number: int, chance: random.Random) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            if db.execute("SHOW max_prepared_transactions").fetchone()[0] == "0":
                return
            db.execute("SET outbox.notify = off")
            db.execute("BEGIN")
            self.publish_one(db, "prepared", "k1", 0)
            db.execute(f"PREPARE TRANSACTION 'stress-{self.seed}'")
            time.sleep(self.seconds / 2)
            db.execute(f"COMMIT PREPARED 'stress-{self.seed}'")
            with self.lock:
                self.ledger.published.append("prepared")

    def alter(self, number: int, chance: random.Random) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            for _ in range(3):
                time.sleep(self.seconds * chance.uniform(0.1, 0.3))
                db.execute("SELECT outbox.alter_topic('t', %s)", (chance.randint(1, 5),))

    def pull(self, number: int, chance: random.Random) -> None:
        with psycopg.connect(self.url) as db:
            worker = self.register(db)
            idle = 0
            while idle < 100:
                if chance.random() < 0.01:
                    db.execute("SELECT outbox.recover(%s)", (worker,))
                    db.commit()
                    worker = self.register(db)
                take = 'SELECT lease_id, partition_id, "offset", attempt, payload FROM outbox.pull(%s, %s, %s, %s)'
                name = chance.choice(self.subscriptions)
                size = chance.choice([1, 3, 10, 100, 500])
                rows = db.execute(take, (name, worker, size, chance.choice([None, 1, 7]))).fetchall()
                if chance.random() < 0.1:
                    db.rollback()
                    continue
                db.commit()
                idle = idle + 1 if self.published_all.is_set() and not rows else 0
                if not rows:
                    time.sleep(0.003)
                    continue
                self.note_turns(name, rows)
                if chance.random() > 0.03:  # else: it dies with them, sooner or later
                    self.settle(db, worker, rows, chance)

    def register(self, db: psycopg.Connection) -> int:
        worker = db.execute("SELECT outbox.register('stress', '{s}', '1 hour')").fetchone()[0]
        db.commit()
        return int(worker)

    def note_turns(self, subscription: str, rows: list[tuple]) -> None:
        with self.lock:
            for place, (lease, _, _, _, body) in enumerate(rows):
                if "|" in body:
                    _, key, turn = body.split("|")
                    seen = self.ledger.turns[f"{subscription} {key}"]
                    seen[int(turn)] = min(seen.get(int(turn), (lease, place)), (lease, place))

    def settle(self, db: psycopg.Connection, worker: int, rows: list[tuple], chance: random.Random) -> None:
        leases: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for lease, _, offset, _, body in rows:
            leases[lease].append((offset, body))
        if chance.random() < 0.05:
            db.execute("SELECT outbox.release(%s, %s)", (worker, list(leases)))
            db.commit()
            return
        if chance.random() < 0.8:
            self.write(db, [body for held in leases.values() for _, body in held])
            db.execute("SELECT outbox.settle(%s, %s)", (worker, list(leases)))
        else:
            for lease, held in leases.items():
                self.settle_in_parts(db, worker, lease, held, chance)
        if chance.random() < 0.05:
            db.rollback()
            db.execute("SELECT outbox.release(%s, %s)", (worker, list(leases)))
        db.commit()

    def settle_in_parts(self, db, worker: int, lease: int, held: list[tuple[int, str]], chance: random.Random) -> None:
        nacked = [offset for offset, _ in held if chance.random() < 0.2]
        half = len(held) // 2
        for part in (held[:half], held[half:]):
            if not part:
                continue
            offsets = "{" + ",".join(f"[{o},{o}]" for o, _ in part) + "}"
            failures = [
                {"lease": lease, "offset": o, "delay": 0.01, "error": {"class": "Nack"}} for o, _ in part if o in nacked
            ]
            self.write(db, [body for offset, body in part if offset not in nacked])
            settle = "SELECT outbox.settle(%s, %s, %s::text[]::int8multirange[], %s::jsonb)"
            db.execute(settle, (worker, [lease], [offsets], json.dumps(failures) if failures else None))

    def write(self, db: psycopg.Connection, bodies: list[str]) -> None:
        db.execute("INSERT INTO effect SELECT unnest(%s::text[])", (bodies,))

    def count(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as db:
            # pullers that "died" at the end left their leases: hand them to one last puller
            self.published_all.set()
            db.execute("SELECT outbox.recover(id) FROM outbox.worker")
            worker = self.register(db)
            take = "SELECT lease_id, payload FROM outbox.pull(%s, %s, 1000)"
            quiet = 0
            for name in itertools.islice(itertools.cycle(self.subscriptions), 100_000):  # suspects come one by one
                rows = db.execute(take, (name, worker)).fetchall()
                quiet = 0 if rows else quiet + 1
                if quiet > 2 * len(self.subscriptions):
                    break
                self.write(db, [body for _, body in rows])
                db.execute("SELECT outbox.settle(%s, %s)", (worker, sorted({lease for lease, _ in rows})))
            self.ledger.effects.update(body for (body,) in db.execute("SELECT body FROM effect"))
            for table in ("lease", "redelivery", "dead_letter"):
                self.ledger.left[table] = db.execute(f"SELECT count(*) FROM outbox.{table}").fetchone()[0]
            self.ledger.left["lag"] = db.execute("SELECT sum(lag)::int FROM outbox.lag").fetchone()[0]


def _headers(body: str) -> str:
    return json.dumps({"side": "left" if sum(body.encode()) % 2 else "right"})


def main(seconds: float = 60, seed: int | None = None) -> int:
    """Run once on a fresh embedded Postgres; returns 1 if anything was lost, doubled, made up or reordered."""
    cluster = Postgres(embedded_binaries())
    try:
        with sqlalchemy.create_engine(sqlalchemy_url(cluster.url())).connect() as connection:
            schema.migrate(connection)
        seed = random.randrange(1_000_000) if seed is None else seed
        ledger = Stress(cluster.url(), seconds, seed, routed=seed % 2 == 1).run()
        print(f"seed {seed}: {ledger}")
        return 1 if ledger.lost or ledger.doubled or ledger.made_up or ledger.inversions else 0
    finally:
        cluster.remove()


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*map(float, given[:1]), *map(int, given[1:2])))
