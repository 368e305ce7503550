"""Readers beside all that publishers do at once: each reads everything, once, in order of the keys."""

from __future__ import annotations

import json
import random
from typing import Any

import psycopg
import pytest

from outbox import Outbox
from tests.engine.stress import Ledger, Stress
from tests.shop_floor import Database


class ReadingStress(Stress):
    """Instead of pullers, readers: one in plain SQL, one by the library; each has a ledger."""

    def prepare(self) -> None:
        super().prepare()
        self.ledgers = [Ledger() for _ in range(self.pullers)]

    def pull(self, number: int, chance: random.Random) -> None:
        read = self.read_in_sql if number % 2 == 0 else self.read_with_the_library
        read(self.ledgers[number], chance)

    def read_in_sql(self, ledger: Ledger, chance: random.Random) -> None:
        position: Any = {}
        with psycopg.connect(self.url) as db:
            idle = looks = 0
            while idle < 100:
                looks += 1
                rows = db.execute(
                    "SELECT payload, position FROM outbox.read('t', %s, %s, %s)",
                    (json.dumps(position), chance.choice([1, 3, 10, 100, 500]), chance.choice([50, 10**6])),
                ).fetchall()
                db.commit()
                if chance.random() < 0.1:
                    continue  # it forgets what it saw, and looks again
                position = rows[-1][1]
                for place, (body, _) in enumerate(rows[:-1]):
                    self.note(ledger, body, looks, place)
                idle = idle + 1 if self.published_all.is_set() and len(rows) == 1 else 0

    def read_with_the_library(self, ledger: Ledger, chance: random.Random) -> None:
        token, count, idle = None, 0, 0
        with psycopg.connect(self.url) as db:
            while idle < 20:
                quiet = self.published_all.is_set()
                before = count
                reader = Outbox().read(db, "t", resume=token)
                for message in reader:
                    count += 1
                    self.note(ledger, message.payload, count, 0)
                    if chance.random() < 0.01:  # it dies amid a look
                        break
                token = reader.token
                idle = idle + 1 if quiet and count == before else 0

    def note(self, ledger: Ledger, body: str, look: int, place: int) -> None:
        ledger.effects[body] += 1
        if "|" in body:
            _, key, turn = body.split("|")
            ledger.turns[key][int(turn)] = (look, place)

    def count(self) -> None:
        for ledger in self.ledgers:
            ledger.published = self.ledger.published


@pytest.mark.parametrize("round", range(2))
def test_each_reader_reads_everything_once_and_in_order(database: Database, round: int) -> None:
    seed = random.randrange(1_000_000)
    stress = ReadingStress(database.url, seconds=4, seed=seed, pullers=4)
    stress.run()
    for ledger in stress.ledgers:
        assert len(ledger.published) > 500
        assert (ledger.lost, ledger.doubled, ledger.made_up, ledger.inversions) == ([], [], set(), 0), (
            f"seed {seed}: {ledger}"
        )
