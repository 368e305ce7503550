"""The engine against a model of it, through several connections, in any interleaving of their steps.

One thread drives them all: no step may wait for another, and one that does runs into `lock_timeout` and fails. What can
go wrong *within* a call is for `stress.py`.

    OUTBOX_HYPOTHESIS_EXAMPLES=2000 pytest tests/engine/test_state_machine.py
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count, pairwise
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.engine.model import Effect, Place, Subscription, Transaction, Verdict
from tests.shop_floor import Database, Pulled, publish, pull, register, settle, value

PUBLISHERS = WORKERS = 3

#: To make a failure smaller takes minutes; whoever only wants to know whether there is one can do without.
SHRINK = [Phase.shrink] if os.environ.get("OUTBOX_HYPOTHESIS_SHRINK", "1") == "1" else []

SETTINGS = settings(
    max_examples=int(os.environ.get("OUTBOX_HYPOTHESIS_EXAMPLES", 150)),
    stateful_step_count=50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *SHRINK],  # to explain a failure takes minutes here
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],  # fifty steps on a real Postgres
)

LEASES = """
SELECT subscription_id, id, worker_id, redelivered, partition_id, held
FROM outbox.lease
CROSS JOIN LATERAL unnest(offsets) AS part
CROSS JOIN LATERAL generate_series(lower(part), upper(part) - 1) AS held
"""
REDELIVERIES = 'SELECT subscription_id, partition_id, "offset", attempt, suspect, lease_id FROM outbox.redelivery'
DEAD_LETTERS = 'SELECT subscription_id, partition_id, "offset", attempt FROM outbox.dead_letter'

LAG = "SELECT sum(lag) FROM outbox.lag WHERE subscription = %s"

#: What a position means: all that is visible beyond its offset, and what its open transactions wrote above the floors.
TO_COME = """
SELECT c.subscription_id, m.partition_id, m."offset"
FROM outbox.topic t
JOIN outbox.partition p ON p.topic_id = t.id
JOIN outbox.cursor c ON c.partition_id = p.id
JOIN outbox.message m ON m.partition_id = p.id
CROSS JOIN LATERAL (
    SELECT * FROM outbox.position at
    WHERE at.subscription_id = c.subscription_id AND at.partition_id = p.id ORDER BY at."offset" DESC LIMIT 1
) AS at
WHERE t.name = %s
  AND (m."offset" > at."offset"
       OR EXISTS (SELECT FROM unnest(at.open, at.floor) AS o (xid, floor) WHERE o.xid = m.xid AND m."offset" > o.floor))
"""


class Connections:
    """Opened once: a new connection plans all functions anew."""

    def __init__(self, database: Database) -> None:
        limits = "-c lock_timeout=20s -c statement_timeout=60s"
        self.publishers = [database.connect(options=limits) for _ in range(PUBLISHERS)]
        self.pullers = [database.connect(options=limits) for _ in range(WORKERS)]
        self.holders = [database.connect(options=limits) for _ in range(2)]
        self.db = database.connect(autocommit=True, options=limits)
        self.examples = count(1)

    def clear(self) -> None:
        """End what an example left behind; random() will do the same in each."""
        for connection in (*self.publishers, *self.pullers, *self.holders):
            connection.rollback()
        for table in ("worker", "lease", "redelivery", "dead_letter"):
            self.db.execute(f"DELETE FROM outbox.{table}")
        for connection in (*self.publishers, *self.pullers, self.db):
            connection.execute("SELECT setseed(0.5)")
            connection.commit()


class Pull(NamedTuple):
    """A pull that has yet to commit."""

    subscription: Subscription
    transaction: Transaction


class Engine(RuleBasedStateMachine):
    """Publishers, workers and an operator, whose transactions stay open as long as they like."""

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self.to = connections
        self.db = connections.db
        self.numbers = count(1)
        self.committed: dict[Place, tuple[str, str | None]] = {}
        #: what is gone from the log: no seek brings it back
        self.rotated: set[Place] = set()
        self.publishing: dict[int, Transaction] = {}
        self.repeatable: set[int] = set()
        self.holding: set[int] = set()
        self.pulling: dict[int, Pull] = {}
        self.subscriptions: list[Subscription] = []
        self.workers: list[int] = []
        self.lost: list[int] = []  # workers that were retired, or found dead
        self.left: set[int] = set()  # those of them that had leases which could not be handed back then

    @initialize(shape=st.sampled_from([(1, 0), (2, 0), (2, 1)]))
    def declare(self, shape: tuple[int, int]) -> None:
        self.to.clear()
        for table in ("subscription", "lease"):  # what an example left behind that was broken off would hold the slot
            self.db.execute(f"DELETE FROM outbox.{table}")
        example = next(self.to.examples)
        self.topic = f"t{example}"
        self.db.execute("SELECT outbox.declare_topic(%s, %s, %s)", (self.topic, *shape))
        self.subscriptions = [self.subscribe(f"{name}{example}", attempts) for name, attempts in (("a", 2), ("b", 3))]
        self.bind(self.subscriptions[0], "first")
        self.workers = [register(self.db) for _ in range(WORKERS)]

    def subscribe(self, name: str, max_attempts: int) -> Subscription:
        id = value(self.db, "SELECT outbox.subscribe(%s, max_attempts => %s)", name, max_attempts)
        return Subscription(name, id, max_attempts)

    def bind(self, subscription: Subscription, start: str) -> None:
        assert value(self.db, "SELECT outbox.bind(%s, %s, %s)", subscription.name, self.topic, start) > 0
        subscription.bound = True
        subscription.fresh = set(self.committed) - self.rotated if start == "first" else set()

    @property
    def bound(self) -> list[Subscription]:
        return [subscription for subscription in self.subscriptions if subscription.bound]

    @property
    def locks(self) -> set[object]:
        """What open transactions keep from others."""
        pulls = (pull.transaction for pull in self.pulling.values())
        return set().union(*(transaction.locks for transaction in (*self.publishing.values(), *pulls)))

    def some_subscription(self, data: st.DataObject) -> Subscription:
        """One that has something to take, if there is any."""
        return data.draw(st.sampled_from([s for s in self.bound if s.fresh or s.due] or self.bound))

    # Publishers

    def transaction(self, publisher: int) -> Transaction:
        return self.publishing.setdefault(publisher, Transaction())

    @precondition(lambda self: len(self.publishing) < PUBLISHERS)
    @rule(data=st.data(), repeatable=st.booleans())
    def begin(self, data: st.DataObject, repeatable: bool) -> None:
        """Either a snapshot and no xid, or an xid and no snapshot."""
        publisher = data.draw(st.sampled_from([p for p in range(PUBLISHERS) if p not in self.publishing]))
        self.transaction(publisher)
        if repeatable:
            self.repeatable.add(publisher)
            self.to.publishers[publisher].execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        value(self.to.publishers[publisher], "SELECT 1" if repeatable else "SELECT pg_current_xact_id()")

    @rule(
        publisher=st.integers(0, PUBLISHERS - 1),
        keys=st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=5),
        priority=st.integers(0, 1),
        many=st.booleans(),
        commit=st.booleans(),
    )
    def publish(self, publisher: int, keys: list[str | None], priority: int, many: bool, commit: bool) -> None:
        payloads = [str(next(self.numbers)) for _ in keys]
        (self.publish_many if many else self.publish_one_by_one)(publisher, payloads, keys, priority)
        self.note_published(publisher, dict(zip(payloads, keys, strict=True)))
        if commit:
            self.finish_publishing(publisher, commit=True)

    def publish_one_by_one(self, publisher: int, payloads: list[str], keys: list[str | None], priority: int) -> None:
        for payload, key in zip(payloads, keys, strict=True):
            publish(self.to.publishers[publisher], self.topic, payload, key=key, priority=priority)

    def publish_many(self, publisher: int, payloads: list[str], keys: list[str | None], priority: int) -> None:
        self.to.publishers[publisher].execute(
            "SELECT outbox.publish_many(%s, %s::text[]::json[], %s::text[], priority => %s)",
            (self.topic, [json.dumps(payload) for payload in payloads], keys if any(keys) else None, priority),
        )

    def note_published(self, publisher: int, keys: dict[str, str | None]) -> None:
        lying = 'SELECT partition_id, "offset", payload FROM outbox.message WHERE xid = pg_current_xact_id()'
        for partition_id, offset, payload in self.to.publishers[publisher].execute(lying).fetchall():
            if payload in keys:
                appear = partial(self.appear, Place(partition_id, offset), (payload, keys.pop(payload)))
                self.transaction(publisher).effects.append(Effect(appear))
        assert not keys

    def appear(self, place: Place, content: tuple[str, str | None]) -> None:
        self.committed[place] = content
        for subscription in self.bound:
            subscription.fresh.add(place)

    @precondition(lambda self: self.publishing)
    @rule(data=st.data(), step=st.sampled_from(["commit", "commit", "savepoint", "back to a savepoint", "roll back"]))
    def go_on_publishing(self, data: st.DataObject, step: str) -> None:
        publisher = data.draw(st.sampled_from(sorted(self.publishing)))
        savepoints = self.publishing[publisher].savepoints
        if step == "savepoint":
            self.to.publishers[publisher].execute(f"SAVEPOINT s{len(savepoints)}")
            savepoints.append(len(self.publishing[publisher].effects))
        elif step == "back to a savepoint" and savepoints:
            savepoint = data.draw(st.sampled_from(range(len(savepoints))))
            self.to.publishers[publisher].execute(f"ROLLBACK TO s{savepoint}")
            self.publishing[publisher].roll_back_to(savepoint)
        else:
            self.finish_publishing(publisher, step == "commit")

    def finish_publishing(self, publisher: int, commit: bool) -> None:
        self.repeatable.discard(publisher)
        self.finish(self.to.publishers[publisher], self.publishing.pop(publisher), commit)

    def finish(self, connection: psycopg.Connection[Any], transaction: Transaction, commit: bool) -> None:
        if commit:
            connection.commit()
            transaction.commit()
        else:
            connection.rollback()

    # Others, who have nothing to do with it

    @rule(holder=st.sampled_from([0, 1]))
    def hold_or_let_go(self, holder: int) -> None:
        """One holds an xid, the other a snapshot."""
        connection = self.to.holders[holder]
        if holder in self.holding:
            connection.rollback()
        elif holder == 0:
            value(connection, "SELECT pg_current_xact_id()")
        else:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            value(connection, "SELECT count(*) FROM outbox.topic")
        self.holding ^= {holder}

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), call=st.sampled_from(["pull({s}, {w})", "seek({s}, {p}, 0)", "bind({s}, '#')"]))
    def call_in_a_transaction_that_is_not_its_own(self, data: st.DataObject, call: str) -> None:
        partition_id = value(self.db, "SELECT min(partition_id) FROM outbox.lag WHERE topic = %s", self.topic)
        call = call.format(s=f"'{self.subscriptions[0].name}'", w=self.workers[0], p=partition_id)
        connection = self.to.holders[data.draw(st.sampled_from(sorted(self.holding)))]
        with refused("OB002"), connection.transaction():
            connection.execute(f"SELECT outbox.{call}")

    # Workers

    @precondition(lambda self: len(self.pulling) < WORKERS)
    @rule(
        data=st.data(),
        limit=st.integers(1, 5),
        lease_size=st.sampled_from([None, 1, 2]),
        leased=st.sampled_from([None, None, None, False]),
        end=st.sampled_from(["commit", "commit", "commit", "stay open", "roll back"]),
    )
    def pull(self, data: st.DataObject, limit: int, lease_size: int | None, leased: bool | None, end: str) -> None:
        slot = data.draw(st.sampled_from([slot for slot in range(WORKERS) if slot not in self.pulling]))
        subscription = self.some_subscription(data)
        more = {"lease_size": lease_size, "leased": leased}
        pulled = pull(self.to.pullers[slot], subscription.name, self.workers[slot], limit, **more)
        note(f"pulled {[(*message[:2], message.payload) for message in pulled]}")
        self.check(subscription, self.workers[slot], pulled, limit, lease_size)
        self.pulling[slot] = Pull(subscription, self.taken(subscription, self.workers[slot], pulled))
        if end != "stay open":
            self.finish_pull(slot, commit=end == "commit")

    def taken(self, subscription: Subscription, worker: int, pulled: list[Pulled]) -> Transaction:
        effects = []
        for message in pulled:
            place = Place(message.partition_id, message.offset)
            take = partial(subscription.take, worker, message.lease, place, message.redelivered)
            kinds = ("redelivery", "pulled redelivery") if message.redelivered else ("pulled",)
            effects.append(Effect(take, frozenset((kind, subscription.name, place) for kind in kinds)))
        return Transaction(effects)

    def check(
        self, subscription: Subscription, worker: int, pulled: list[Pulled], limit: int, lease_size: int | None
    ) -> None:
        """A pull brings what the subscription has yet to take, nothing else, in order."""
        assert len(pulled) <= limit
        for message in pulled:
            assert self.committed[place_of(message)] == (message.payload, message.key)
        self.check_redeliveries(subscription, worker, [message for message in pulled if message.redelivered])
        self.check_messages(subscription, [message for message in pulled if not message.redelivered])
        self.check_leases(pulled, lease_size or limit)

    def check_messages(self, subscription: Subscription, pulled: list[Pulled]) -> None:
        places = [place_of(message) for message in pulled]
        assert len(set(places)) == len(places)
        assert {message.attempt for message in pulled} <= {1}
        assert all(a.priority >= b.priority for a, b in pairwise(pulled))
        assert not {("pulled", subscription.name, place) for place in places} & self.locks
        assert set(places) <= subscription.fresh | subscription.passed, "not to be delivered"
        offsets = defaultdict(list)
        for partition_id, offset in places:
            offsets[partition_id].append(offset)
        overtaken = {p for p in subscription.fresh - set(places) if p.offset < max(offsets[p.partition_id], default=0)}
        assert all(sorted(taken) == taken for taken in offsets.values())
        assert not overtaken

    def check_redeliveries(self, subscription: Subscription, worker: int, pulled: list[Pulled]) -> None:
        places = [place_of(message) for message in pulled]
        assert len(set(places)) == len(places)
        assert set(places) <= subscription.due, "not due"
        assert not {("pulled redelivery", subscription.name, place) for place in places} & self.locks
        for message, place in zip(pulled, places, strict=True):
            assert message.attempt == subscription.redeliveries[place].attempt
        suspects = sum(subscription.redeliveries[place].suspect for place in places)
        assert suspects <= 1 - self.holds_a_suspect(worker)

    def holds_a_suspect(self, worker: int) -> bool:
        return any(
            lease.redelivered and lease.worker == worker and s.redeliveries[place].suspect
            for s in self.subscriptions
            for lease in s.leases.values()
            for place in lease.places
        )

    def check_leases(self, pulled: list[Pulled], lease_size: int) -> None:
        leases = defaultdict(list)
        for message in pulled:
            leases[message.lease].append(message)
        leases.pop(None, None)  # type: ignore[call-overload]  # unleased
        for lease in leases.values():
            assert len({message.partition_id for message in lease}) == 1
            assert len(lease) <= (1 if lease[0].redelivered else lease_size)

    @precondition(lambda self: self.pulling)
    @rule(data=st.data(), commit=st.sampled_from([True, True, False]))
    def end_a_pull(self, data: st.DataObject, commit: bool) -> None:
        self.finish_pull(data.draw(st.sampled_from(sorted(self.pulling))), commit)

    def finish_pull(self, slot: int, commit: bool) -> None:
        self.finish(self.to.pullers[slot], self.pulling.pop(slot).transaction, commit)

    # Settlement

    def is_free(self, subscription: Subscription, lease: int) -> bool:
        """Nobody would have to wait for its rows."""
        return not {("lease", lease), *self.redeliveries_of(subscription, lease)} & self.locks

    def redeliveries_of(self, subscription: Subscription, lease: int) -> set[object]:
        return {("redelivery", subscription.name, place) for place in subscription.leases[lease].places}

    def free_leases(self) -> dict[int, Subscription]:
        return {lease: s for s in self.subscriptions for lease in s.leases if self.is_free(s, lease)}

    def some_leases(self, data: st.DataObject) -> tuple[int, dict[int, Subscription]]:
        """A worker and some leases that it holds, no message in two of them."""
        free = self.free_leases()
        worker = data.draw(st.sampled_from(sorted({s.leases[lease].worker for lease, s in free.items()})))
        held = [lease for lease, s in free.items() if s.leases[lease].worker == worker]
        chosen: dict[int, Subscription] = {}
        for lease in data.draw(st.lists(st.sampled_from(sorted(held)), min_size=1, unique=True)):
            if not self.redeliveries_of(free[lease], lease) & self.redeliveries_of_all(chosen):
                chosen[lease] = free[lease]
        return worker, chosen

    def redeliveries_of_all(self, leases: dict[int, Subscription]) -> set[object]:
        return set().union(*(self.redeliveries_of(subscription, lease) for lease, subscription in leases.items()))

    @precondition(lambda self: self.free_leases())
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Whole leases, all done."""
        worker, leases = self.some_leases(data)
        verdicts = {lease: dict.fromkeys(s.leases[lease].places, Verdict.DONE) for lease, s in leases.items()}
        self.settle_in_some_transaction(data, leases, verdicts, (worker, list(leases)))

    @precondition(lambda self: self.free_leases())
    @rule(data=st.data())
    def settle_parts(self, data: st.DataObject) -> None:
        self.judge(data, *self.some_leases(data))

    @precondition(lambda self: len(self.pulling) < WORKERS)
    @rule(data=st.data(), limit=st.integers(1, 5))
    def pull_and_settle(self, data: st.DataObject, limit: int) -> None:
        """A worker's whole turn."""
        self.pull(data, limit, None, None, "commit")
        if self.free_leases():
            self.settle_parts(data)

    def judge(self, data: st.DataObject, worker: int, leases: dict[int, Subscription]) -> None:
        """Some messages are done, some failed, some are kept in hand."""
        verdict = st.sampled_from([None, *Verdict])
        verdicts: dict[int, dict[Place, Verdict]] = {}
        for lease, subscription in leases.items():
            drawn = {place: data.draw(verdict) for place in sorted(subscription.leases[lease].places)}
            if judged := {place: verdict for place, verdict in drawn.items() if verdict}:
                verdicts[lease] = judged
        if not verdicts:
            return
        parts = ["{" + ",".join(f"[{p.offset},{p.offset}]" for p in judged) + "}" for judged in verdicts.values()]
        failures = [failure(lease, *one) for lease, judged in verdicts.items() for one in judged.items()]
        failures = [failure for failure in failures if failure]
        self.settle_in_some_transaction(
            data, leases, verdicts, (worker, list(verdicts), parts, json.dumps(failures) if failures else None)
        )

    def settle_in_some_transaction(
        self,
        data: st.DataObject,
        leases: dict[int, Subscription],
        verdicts: dict[int, dict[Place, Verdict]],
        arguments: tuple[Any, ...],
    ) -> None:
        """Its own, or one that publishes too and stays open."""
        whose = data.draw(st.sampled_from([None, None, *(p for p in range(PUBLISHERS) if p not in self.repeatable)]))
        connection = self.db if whose is None else self.to.publishers[whose]
        types = ("bigint", "bigint[]", "text[]::int8multirange[]", "jsonb")[: len(arguments)]
        connection.execute(f"SELECT outbox.settle({', '.join(f'%s::{type}' for type in types)})", arguments)
        for lease, judged in verdicts.items():
            subscription = leases[lease]
            effect = Effect(
                partial(subscription.settle, lease, judged),
                frozenset({("lease", lease), *self.redeliveries_of(subscription, lease)}),
            )
            effect.apply() if whose is None else self.transaction(whose).effects.append(effect)

    @precondition(lambda self: self.free_leases())
    @rule(data=st.data())
    def settle_what_others_hold(self, data: st.DataObject) -> None:
        lease, subscription = data.draw(st.sampled_from(sorted(self.free_leases().items(), key=lambda item: item[0])))
        others = {*self.workers, *self.lost} - {subscription.leases[lease].worker}
        other = data.draw(st.sampled_from(sorted(others)))
        offset = min(subscription.leases[lease].places).offset
        for offsets in (None, [f"{{[{offset},{offset}]}}"]):
            with refused("OB001"):
                self.db.execute("SELECT outbox.settle(%s, %s, %s::text[]::int8multirange[])", (other, [lease], offsets))

    @precondition(lambda self: self.free_leases())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        worker, leases = self.some_leases(data)
        released = value(self.db, "SELECT outbox.release(%s, %s)", worker, list(leases))
        assert released == sum(s.hand_back([lease], died=False) for lease, s in leases.items())

    # The end of workers

    def leases_of(self, worker: int) -> dict[int, Subscription]:
        held = ((lease, s) for s in self.subscriptions for lease in s.leases)
        return {lease: s for lease, s in held if s.leases[lease].worker == worker}

    def hand_back(self, leases: dict[int, Subscription], died: bool) -> int:
        """All in one statement."""
        by_subscription = ([lease for lease, s in leases.items() if s is own] for own in self.subscriptions)
        return sum(s.hand_back(own, died) for s, own in zip(self.subscriptions, by_subscription, strict=True))

    def some_worker_to_recover(self, data: st.DataObject, workers: list[int]) -> int | None:
        """None if to recover it would wait for an open transaction."""
        worker = data.draw(st.sampled_from(workers))
        leases = [self.leases_of(dead) for dead in {worker, *self.left}]
        touched = {lease: s for held in leases for lease, s in held.items() if ("lease", lease) not in self.locks}
        return None if self.redeliveries_of_all(touched) & self.locks else worker

    def busy_workers(self) -> list[int]:
        return [
            self.workers[slot] for slot in range(WORKERS) if slot in self.pulling or self.leases_of(self.workers[slot])
        ]

    @precondition(lambda self: self.busy_workers())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A supervisor saw a worker die; its pull may commit all the same."""
        worker = self.some_worker_to_recover(data, self.busy_workers())
        if worker is not None:
            self.recover(worker)
            self.replace(worker)

    @precondition(lambda self: any(self.leases_of(worker) for worker in self.lost))
    @rule(data=st.data())
    def look_again(self, data: st.DataObject) -> None:
        worker = self.some_worker_to_recover(data, sorted(self.lost))
        if worker is not None:
            self.recover(worker)

    def recover(self, worker: int) -> None:
        """Leases that are being settled are passed over, and looked at again next time."""
        recovered = value(self.db, "SELECT outbox.recover(%s)", worker)
        expected = 0
        for dead in sorted({worker, *self.left}):
            free = {lease: s for lease, s in self.leases_of(dead).items() if ("lease", lease) not in self.locks}
            expected += self.hand_back(free, died=True)
            self.left = self.left - {dead} | ({dead} if self.leases_of(dead) else set())
        assert recovered == expected

    def replace(self, worker: int) -> None:
        self.lost.append(worker)
        with refused("OB005"):
            pull(self.db, self.subscriptions[0].name, worker)
        self.workers[self.workers.index(worker)] = register(self.db)

    @precondition(lambda self: self.busy_workers())
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.busy_workers()))
        leases = self.leases_of(worker)
        if all(self.is_free(subscription, lease) for lease, subscription in leases.items()):
            retired = value(self.db, "SELECT outbox.retire(%s)", worker)
            assert retired == self.hand_back(leases, died=False)
            self.replace(worker)

    # Operators

    @precondition(lambda self: not self.subscriptions[1].bound)
    @rule(start=st.sampled_from(["first", "next"]))
    def bind_the_other(self, start: str) -> None:
        self.bind(self.subscriptions[1], start)

    @rule(data=st.data(), offset=st.none() | st.integers(0, 20))
    def seek(self, data: st.DataObject, offset: int | None) -> None:
        """It waits for a pull that is under way, so there is none."""
        idle = [s for s in self.bound if all(pull.subscription is not s for pull in self.pulling.values())]
        if not idle:
            return
        subscription = data.draw(st.sampled_from(idle))
        lag = 'SELECT partition_id, "offset", last_offset FROM outbox.lag WHERE subscription = %s ORDER BY 1'
        stand = data.draw(st.sampled_from(self.db.execute(lag, (subscription.name,)).fetchall()))
        partition_id, cursor, ended = stand
        target = None if offset is None else offset % (ended + 1)
        self.db.execute("SELECT outbox.seek(%s, %s, %s)", (subscription.name, partition_id, target))
        subscription.seek(partition_id, cursor, ended if target is None else target, set(self.committed) - self.rotated)

    @rule(data=st.data(), low=st.integers(0, 20), high=st.integers(0, 40))
    def replay(self, data: st.DataObject, low: int, high: int) -> None:
        """Whatever is under way meanwhile, it waits for nobody."""
        subscription = data.draw(st.sampled_from(self.bound))
        read = "SELECT partition_id FROM outbox.lag WHERE subscription = %s ORDER BY 1"
        (partition_id,) = data.draw(st.sampled_from(self.db.execute(read, (subscription.name,)).fetchall()))
        waiting = 'SELECT "offset" FROM outbox.redelivery WHERE subscription_id = %s AND partition_id = %s'
        before = set(self.db.execute(waiting, (subscription.id, partition_id)).fetchall())
        call = "SELECT replayed FROM outbox.replay(%s, %s, %s, %s)"
        count = value(self.db, call, subscription.name, partition_id, low, high)
        after = set(self.db.execute(waiting, (subscription.id, partition_id)).fetchall())
        assert before <= after
        assert len(after - before) == count
        kept = set(self.committed) - self.rotated
        taken = {place for place in kept if place.partition_id == partition_id and low <= place.offset <= high}
        subscription.replay(taken, {Place(partition_id, offset) for (offset,) in after - before})

    @precondition(lambda self: any(s.dead for s in self.subscriptions))
    @rule(data=st.data(), all=st.booleans())
    def redrive(self, data: st.DataObject, all: bool) -> None:
        subscription = data.draw(st.sampled_from([s for s in self.subscriptions if s.dead]))
        dead = [p for p in sorted(subscription.dead) if ("redelivery", subscription.name, p) not in self.locks]
        if all and len(dead) == len(subscription.dead):
            redriven = value(self.db, "SELECT outbox.redrive(%s)", subscription.name)
        else:
            dead = data.draw(st.lists(st.sampled_from(dead), unique=True)) if dead else []
            places = ([place.partition_id for place in dead], [place.offset for place in dead])
            redriven = value(self.db, "SELECT outbox.redrive(%s, %s, %s)", subscription.name, *places)
        assert redriven == subscription.redrive(dead)

    @precondition(lambda self: self.committed.keys() - self.rotated)
    @rule()
    def rotate(self) -> None:
        """As if a week had passed: it takes nothing away that some subscription still needs."""
        week = "SELECT held_by FROM outbox.rotate_as_of(clock_timestamp() + interval '7 days') WHERE log = 'message'"
        slots = self.db.execute(week).fetchall()
        in_hand = any(not lease.redelivered for s in self.subscriptions for lease in s.leases.values())
        if slots == [(None,)]:
            assert not in_hand
            assert not any(s.fresh for s in self.bound)
            self.rotated = set(self.committed)
            for subscription in self.subscriptions:
                subscription.passed.clear()
        else:
            ((held_by,),) = slots
            needed = in_hand or any(s.fresh | s.passed for s in self.bound)
            assert needed or "pid" in held_by or "just ended" in held_by  # autovacuum, too, may be at it

    # What holds at every step, and in the end

    @invariant()
    def the_tables_hold_what_the_model_holds(self) -> None:
        both = [[s.id for s in self.subscriptions]]
        for select, expected in (
            (LEASES, self.leases()),
            (REDELIVERIES, self.redeliveries()),
            (DEAD_LETTERS, self.dead()),
        ):
            assert set(self.db.execute(f"{select} WHERE subscription_id = ANY (%s)", both)) == expected

    def leases(self) -> set[tuple[Any, ...]]:
        held = ((s, id, lease) for s in self.subscriptions for id, lease in s.leases.items())
        return {(s.id, id, lease.worker, lease.redelivered, *place) for s, id, lease in held for place in lease.places}

    def redeliveries(self) -> set[tuple[Any, ...]]:
        waiting = ((s, place, r) for s in self.subscriptions for place, r in s.redeliveries.items())
        return {(s.id, *place, r.attempt, r.suspect, r.lease) for s, place, r in waiting}

    def dead(self) -> set[tuple[Any, ...]]:
        return {(s.id, *place, attempt) for s in self.subscriptions for place, attempt in s.dead.items()}

    @invariant()
    def the_positions_mean_what_the_model_has_yet_to_take(self) -> None:
        to_come = set(self.db.execute(TO_COME, (self.topic,)).fetchall())
        fresh = {(s.id, *place) for s in self.subscriptions for place in s.fresh}
        assert fresh <= to_come <= fresh | {(s.id, *place) for s in self.subscriptions for place in s.passed}

    @precondition(lambda self: self.publishing and any(s.fresh or s.due for s in self.bound))
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        """All that is committed comes, whatever is open: nothing stalls, and lag comes to rest."""
        subscription = self.some_subscription(data)
        if all(pull.subscription is not subscription for pull in self.pulling.values()):
            self.take_all(subscription)

    def take_all(self, subscription: Subscription) -> None:
        worker = register(self.db)
        for _ in range(20 + 2 * len(self.committed)):
            pulled = pull(self.db, subscription.name, worker, 5)
            self.check(subscription, worker, pulled, 5, None)
            self.taken(subscription, worker, pulled).commit()
            if pulled:
                settle(self.db, worker, pulled)
                for message in pulled:
                    subscription.settle(message.lease, {place_of(message): Verdict.DONE})
            elif not (subscription.fresh or subscription.due or value(self.db, LAG, subscription.name)):
                return
        raise AssertionError(f"in vain pulled for {subscription.fresh} and {subscription.due}")

    def teardown(self) -> None:
        if sys.exc_info()[0] is None and self.workers:
            self.end()

    def end(self) -> None:
        """Everybody commits and goes home; what is left is drained."""
        for publisher in sorted(self.publishing):
            self.finish_publishing(publisher, commit=True)
        for slot in sorted(self.pulling):
            self.finish_pull(slot, commit=True)
        for worker in (*self.workers, *self.lost):
            if self.leases_of(worker):
                self.recover(worker)
        for subscription in self.subscriptions:
            if not subscription.bound:
                self.bind(subscription, "first")
            self.take_all(subscription)
            assert not subscription.leases
        self.the_tables_hold_what_the_model_holds()


def place_of(message: Pulled) -> Place:
    return Place(message.partition_id, message.offset)


def failure(lease: int, place: Place, verdict: Verdict) -> dict[str, Any] | None:
    """What settle is told of a message that is not done."""
    if verdict is Verdict.DONE:
        return None
    delay = None if verdict is Verdict.DEAD else 0
    return {"lease": lease, "offset": place.offset, "delay": delay, "charged": verdict is not Verdict.AGAIN_UNCHARGED}


@contextmanager
def refused(sqlstate: str) -> Iterator[None]:
    with pytest.raises(psycopg.Error) as caught:
        yield
    assert caught.value.sqlstate == sqlstate


def test_the_engine_does_what_its_model_does(one_database: Database) -> None:
    connections = Connections(one_database)
    run_state_machine_as_test(lambda: Engine(connections), settings=SETTINGS)
