"""What can strike the shop. A fault returns when it has struck and is over; it fails if it struck nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import psycopg

from outbox import Outbox
from tests.crash.proxy import Proxy
from tests.crash.publisher import place, take_turns
from tests.crash.shop import NAME, TIMEOUT, Shop
from tests.servers import Postgres
from tests.shop_floor import wait_for

Strike = Callable[[Shop, random.Random], None]


@dataclass(frozen=True)
class Fault:
    strike: Strike
    #: How often it is chosen, beside the others.
    weight: int

    @property
    def name(self) -> str:
        return self.strike.__name__


FAULTS: list[Fault] = []


def fault(weight: int = 2) -> Callable[[Strike], Strike]:
    """Add a fault to the registry."""

    def register(strike: Strike) -> Strike:
        FAULTS.append(Fault(strike, weight))
        return strike

    return register


@fault(weight=3)
def kill_workers(shop: Shop, chance: random.Random) -> None:
    """SIGKILL of worker processes, of those under a supervisor and of the supervisor."""
    for _ in range(3):
        shop.wait_for_effects(50)
        _flood(shop)
        _moment(chance)
        victim = chance.choice(chance.choice([shop.worker_pids(), shop.parent_pids()]))
        shop.note(f"SIGKILL of worker process {victim}")
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        shop.reap(victim)
        _replace_workers(shop, chance)


@fault(weight=3)
def kill_publishers(shop: Shop, chance: random.Random) -> None:
    """SIGKILL in the middle of their transactions; others take their place."""
    for _ in range(3):
        shop.wait_for_effects(50)
        _moment(chance)
        victim = chance.choice(wait_for(lambda: shop.running(shop.publishers), "publishers"))
        victim.process.kill()
        victim.process.wait()
        shop.start_publisher(victim.messages)


@fault()
def freeze_worker(shop: Shop, chance: random.Random) -> None:
    """SIGSTOP beyond the timeout: others take over, and the sleeper wakes with leases that are not its own any more."""
    shop.wait_for_effects(50)
    with shop.freeze_lock:
        workers = wait_for(lambda: len(pids := shop.registered_pids()) > 1 and pids, "two workers")
        victim = chance.choice(workers)
        _flood(shop)
        _moment(chance)
        with suppress(ProcessLookupError), _frozen(victim):
            shop.note(f"SIGSTOP of worker process {victim}")
            found_dead = f"SELECT count(*) FROM outbox.worker WHERE retired_at > to_timestamp({time.time()})"
            wait_for(lambda: shop.value(found_dead), "the sleeper found dead")
            shop.wait_for_effects(5)
            _moment(chance)


@fault(weight=3)
def terminate_backends(shop: Shop, chance: random.Random) -> None:
    """pg_terminate_backend of some or all connections."""
    struck = 0
    while struck < 4:
        shop.wait_for_effects(50)
        _moment(chance)
        share = chance.choice([0.3, 1])
        ended = shop.value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < {share}"
        )
        struck += bool(ended)
        shop.note(f"{ended} backends terminated")


@fault()
def crash_database(shop: Shop, chance: random.Random) -> None:
    """An immediate shutdown in full work, and a restart."""
    shop.wait_for_effects(20)
    with shop.cluster_lock:
        _moment(chance)
        shop.cluster.stop("immediate")
        _moment(chance)
        shop.cluster.start()
    shop.wait_for_effects(5)
    assert any("database away" in worker.log for worker in shop.workers), "no worker noticed"


@fault()
def lose_commits_of_publishers(shop: Shop, chance: random.Random) -> None:
    """Cut connections when a COMMIT was sent and before its answer came: its outcome is unknown to the publisher."""
    known = len(shop.unknown_outcomes())
    with _losing(shop.to_publishers, 0.3):
        wait_for(lambda: len(shop.unknown_outcomes()) >= known + 5, "publishers that don't know what they did")


@fault()
def lose_commits_of_workers(shop: Shop, chance: random.Random) -> None:
    """The same for workers: COMMITs of handlers, pulls and settlements that may have happened or not."""
    before = shop.to_workers.strikes["answer lost"]
    with _losing(shop.to_workers, 0.03):
        wait_for(
            lambda: shop.to_workers.strikes["answer lost"] >= before + 10, "workers that don't know what they did", 60
        )
    shop.wait_for_effects(5)


@fault()
def cut_network(shop: Shop, chance: random.Random) -> None:
    """Reset all connections at once, again and again."""
    for proxy in chance.choices([shop.to_publishers, shop.to_workers], k=4):
        shop.wait_for_effects(50)
        _moment(chance)
        before = proxy.strikes["cut"]
        proxy.cut()
        shop.note(f"{proxy.strikes['cut'] - before} connections cut")


@fault()
def stall_network(shop: Shop, chance: random.Random) -> None:
    """Nothing passes, of publishers or of workers, for longer than a worker may be silent."""
    proxy = chance.choice([shop.to_publishers, shop.to_workers])
    before = proxy.strikes["held up"]
    proxy.stall()
    try:
        with suppress(AssertionError):  # another fault may have left nobody to notice it
            wait_for(lambda: proxy.strikes["held up"] > before, "somebody to notice the stall", 10)
        time.sleep(TIMEOUT + chance.uniform(0.2, 1.5))  # the fault itself
    finally:
        proxy.flow()
    shop.wait_for_effects(5)


@fault(weight=1)
def hold_snapshot(shop: Shop, chance: random.Random) -> None:
    """A reader holds its snapshot: nothing can be vacuumed meanwhile."""
    _hold(shop, NAME, "SELECT 1", chance)


@fault(weight=1)
def hold_xid(shop: Shop, chance: random.Random) -> None:
    """A transaction that wrote stays open: cursors wait for what it may still publish."""
    _hold(shop, NAME, "SELECT pg_current_xact_id()", chance)


@fault(weight=1)
def hold_snapshot_elsewhere(shop: Shop, chance: random.Random) -> None:
    """A reader in another database of the cluster."""
    _hold(shop, "postgres", "SELECT 1", chance)


@fault(weight=1)
def hold_xid_elsewhere(shop: Shop, chance: random.Random) -> None:
    """A transaction that wrote in another database of the cluster."""
    _hold(shop, "postgres", "SELECT pg_current_xact_id()", chance)


@fault()
def prepare_transactions(shop: Shop, chance: random.Random) -> None:
    """Transactions that published are prepared, and much later committed or rolled back."""
    names = [f"prepared-{chance.randrange(10**9)}" for _ in range(3)]
    try:
        with shop.cluster_lock:
            for name in names:
                _prepare(shop, name)
        shop.wait_for_effects(50)
    finally:  # whatever strikes us: nobody else would end them
        for name in names:
            what = chance.choice(["COMMIT", "ROLLBACK"])
            wait_for(partial(_end_prepared, shop, name, what), f"{what} PREPARED {name}")
            shop.note(f"{what} PREPARED {name}")


@fault(weight=1)
def publish_hugely(shop: Shop, chance: random.Random) -> None:
    """Very many messages in one transaction."""
    publisher = shop.start_publisher(shop.hugely)
    shop.hugely = min(shop.hugely, 2_000)  # once is enough
    wait_for(lambda: publisher.process.poll() is not None, "the huge transaction", 120)
    assert publisher.process.returncode in (0, -signal.SIGKILL), publisher.log


@fault(weight=1)
def alter_topic(shop: Shop, chance: random.Random) -> None:
    """The topic gets other numbers of partitions, in full work."""
    for _ in range(3):
        shop.wait_for_effects(50)
        _moment(chance)
        partitions = chance.randint(1, 12)
        statement = f"SELECT CASE WHEN outbox.alter_topic('orders', {partitions}) THEN 1 ELSE 2 END"
        wait_for(partial(shop.value, statement), f"{partitions} partitions")
        shop.note(f"{partitions} partitions")


@fault(weight=1)
def restore_elsewhere(shop: Shop, chance: random.Random) -> None:
    """With a backlog: dump, restore into a fresh cluster, and go on there."""
    with shop.cluster_lock:
        shop.to_workers.shut()
        wait_for(lambda: (shop.value("SELECT sum(lag) FROM outbox.lag") or 0) > 50, "a backlog")
        shop.to_publishers.shut()
        shop.move(_restored(shop))
        shop.to_publishers.open()
        shop.to_workers.open()
    shop.wait_for_effects(50)


def _moment(chance: random.Random) -> None:
    """A random moment to strike, not a wait for something."""
    time.sleep(chance.random() * 0.1)


def _replace_workers(shop: Shop, chance: random.Random) -> None:
    """Two must run, some of them with two processes."""
    missing = 2 - len(shop.running(shop.workers))
    for _ in range(missing):
        shop.start_worker(*chance.choice([(), ("--processes", "2")]))


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _losing(proxy: Proxy, share: float) -> Iterator[None]:
    proxy.losing += share  # another may be at it, too
    try:
        yield
    finally:
        proxy.losing -= share


def _hold(shop: Shop, database: str, statement: str, chance: random.Random) -> None:
    """Hold a transaction open while others publish and handle."""
    with psycopg.connect(shop.cluster.url(database)) as db:
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        db.execute(statement)
        shop.wait_for_effects(chance.randint(50, 300))


def _flood(shop: Shop) -> None:
    """Give every worker something to hold."""
    with shop.connect() as db, db.transaction():
        name = f"flood-{time.monotonic_ns()}"
        last = take_turns(db, name, 300)
        orders = [{"id": f"{name}-{turn}", "turn": turn} for turn in range(last - 299, last + 1)]
        place(db, Outbox(), name, orders)


def _end_prepared(shop: Shop, name: str, what: str) -> bool:
    """False: we were struck ourselves."""
    try:
        with shop.cluster_lock, shop.connect() as db, suppress(psycopg.errors.UndefinedObject):  # moved without them
            db.execute(f"{what} PREPARED '{name}'")
    except psycopg.OperationalError:
        return False
    return True


def _prepare(shop: Shop, name: str) -> None:
    """On a key of its own, which stays locked."""
    with psycopg.connect(shop.url) as db:
        db.execute("SET outbox.notify = off")  # such a transaction can't hold a NOTIFY
        turn = take_turns(db, name, 1)
        place(db, Outbox(), name, [{"id": name, "turn": turn}])
        db.execute(f"PREPARE TRANSACTION '{name}'")


def _restored(shop: Shop) -> Postgres:
    """A new cluster with all that the old one holds, when nobody is at work there."""
    wait_for(lambda: shop.value(_END_OTHERS) == 0, "an end of all sessions")
    dump = shop.cluster.folder / "dump"
    shop.cluster.run("pg_dump", "--format=custom", "--file", dump, "--dbname", shop.url)
    fresh = Postgres(shop.binaries)
    fresh.execute(f"CREATE DATABASE {NAME}")
    fresh.run("pg_restore", "--dbname", fresh.url(NAME), "--exit-on-error", dump)
    return fresh


#: Sessions of others that could still write, each of which is ended; PgBouncer's idle ones can't write.
_END_OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'
"""
