"""The books: what publishers committed, beside what handlers effected, read straight from Postgres.

`ledger` is written in the transactions that publish, `effect` in those that handle. Turns count up per key, each taken
in a transaction that holds the key until its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

TABLES = """
CREATE TABLE account (key text PRIMARY KEY, turn int NOT NULL);
CREATE TABLE ledger (id text PRIMARY KEY, key text NOT NULL, turn int NOT NULL);
CREATE TABLE effect (
    serial bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription text NOT NULL, id text NOT NULL, key text NOT NULL, turn int NOT NULL,
    message text NOT NULL, attempt int NOT NULL, lease bigint NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(), at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON effect (subscription, id);
"""

_LOST = """
SELECT s.name, l.id FROM outbox.subscription s CROSS JOIN ledger l
WHERE NOT EXISTS (SELECT FROM effect e WHERE e.subscription = s.name AND e.id = l.id)
"""

_EXACTLY_ONCE = "SELECT name FROM outbox.subscription WHERE guarantee = 'exactly-once'"

_REPEATED = "SELECT e.subscription, e.id FROM effect e GROUP BY e.subscription, e.id HAVING count(*) > 1"

_MADE_UP = """
SELECT e.subscription, e.id FROM effect e
WHERE NOT EXISTS (SELECT FROM ledger l WHERE (l.id, l.key, l.turn) = (e.id, e.key, e.turn))
"""

#: Effects that came after one with a later turn of their key.
_OVERTAKEN = """
SELECT o.subscription, o.id
FROM (SELECT e.*, max(e.turn) OVER (PARTITION BY e.subscription, e.key ORDER BY e.serial) AS latest FROM effect e) AS o
WHERE o.turn < o.latest
"""

#: Messages that lie in the log before one with an earlier turn of their key.
_MISPLACED = """
SELECT 'log', m.id
FROM (SELECT payload ->> 'id' AS id, (payload ->> 'turn')::int AS turn,
             max((payload ->> 'turn')::int) OVER (PARTITION BY partition_id, key ORDER BY "offset") AS latest
      FROM outbox.message) AS m
WHERE m.turn < m.latest
"""

#: All that is known of some ids.
_STORY = """
SELECT l.id, l.key, l.turn, m.partition_id, m."offset", m.xid, m.published_at::text,
       e.subscription, e.message, e.attempt, e.lease, e.xid, e.at::text
FROM ledger l
LEFT JOIN outbox.message m ON m.payload ->> 'id' = l.id
LEFT JOIN effect e ON e.id = l.id
WHERE l.id = ANY (%s) ORDER BY l.id, e.serial
"""

_LEFT = """
SELECT (SELECT coalesce(sum(lag), 0) FROM outbox.lag), (SELECT coalesce(sum(open_transactions), 0) FROM outbox.lag),
       (SELECT count(*) FROM outbox.lease), (SELECT count(*) FROM outbox.redelivery)
"""

#: Of whom what was found: (subscription, id).
Findings = list[tuple[str, str]]


@dataclass(frozen=True)
class Left:
    """What is not settled yet; all zero when everything has come to rest."""

    lag: int
    #: Transactions that cursors still wait for.
    open: int
    leases: int
    redeliveries: int

    def __bool__(self) -> bool:
        return any((self.lag, self.open, self.leases, self.redeliveries))


@dataclass(frozen=True)
class Verdict:
    """What the books say. `repeated` is allowed to at-least-once, and counted only; the rest must be nothing."""

    published: int
    effects: int
    lost: Findings
    doubled: Findings
    made_up: Findings
    #: Effects of ordered subscriptions that came after one of a later turn of their key.
    overtaken: Findings
    #: Messages that lie in the log in another order than their transactions had on their key.
    misplaced: Findings
    dead: int
    left: Left
    repeated: int
    #: What `outbox doctor` finds when all has come to rest.
    ills: tuple[str, ...] = ()

    @property
    def findings(self) -> Findings:
        return self.lost + self.doubled + self.made_up + self.overtaken + self.misplaced

    @property
    def is_good(self) -> bool:
        return not (self.findings or self.dead or self.left or self.ills)

    def __str__(self) -> str:
        left = self.left
        return (
            f"published {self.published}, effects {self.effects}, lost {_some(self.lost)}, "
            f"doubled {_some(self.doubled)}, made up {_some(self.made_up)}, overtaken {_some(self.overtaken)}, "
            f"misplaced {_some(self.misplaced)}, dead letters {self.dead}, left: lag {left.lag}, open {left.open}, "
            f"leases {left.leases}, redeliveries {left.redeliveries}, doctor: {'; '.join(self.ills) or 'all well'}; "
            f"allowed: repeated {self.repeated}"
        )


def read(db: psycopg.Connection[Any], ordered: tuple[str, ...] = ()) -> Verdict:
    """Read the books, in one snapshot; `ordered` are the subscriptions that keep the order of a key."""
    with db.transaction():
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        exactly_once = {name for (name,) in db.execute(_EXACTLY_ONCE).fetchall()}
        repeated = _find(db, _REPEATED)
        return Verdict(
            published=_count(db, "ledger"),
            effects=_count(db, "effect"),
            lost=_find(db, _LOST),
            doubled=[found for found in repeated if found[0] in exactly_once],
            made_up=_find(db, _MADE_UP),
            overtaken=[found for found in _find(db, _OVERTAKEN) if found[0] in ordered],
            misplaced=_find(db, _MISPLACED),
            dead=_count(db, "outbox.dead_letter"),
            left=what_is_left(db),
            repeated=sum(found[0] not in exactly_once for found in repeated),
        )


def story(db: psycopg.Connection[Any], findings: Findings, limit: int = 20) -> str:
    """How some of what was found came about: published where and by whom, effected when and under which lease."""
    rows = db.execute(_STORY, ([id for _, id in sorted(findings)[:limit]],)).fetchall()
    return "\n".join(" ".join(map(str, row)) for row in rows)


def what_is_left(db: psycopg.Connection[Any]) -> Left:
    row = db.execute(_LEFT).fetchone()
    assert row is not None
    return Left(*map(int, row))


def _find(db: psycopg.Connection[Any], query: str) -> Findings:
    return [(row[0], row[1]) for row in db.execute(query).fetchall()]


def _count(db: psycopg.Connection[Any], table: str) -> int:
    row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def _some(findings: Findings) -> str:
    """How many, and the first few of them."""
    shown = ", ".join(f"{of} {id}" for of, id in sorted(findings)[:3])
    return f"{len(findings)} ({shown})" if findings else "0"
