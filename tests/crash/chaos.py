"""Everything that can go wrong, at random, for as long as you like; then the books must be right.

python -m tests.crash.chaos [seconds] [seed] [fault | -fault ...]

Odd seeds go through PgBouncer. Faults may be named: only these, or all but those with a minus.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg

from tests.crash.faults import FAULTS, Fault
from tests.crash.ledger import Verdict
from tests.crash.shop import Shop, open_shop

#: So many faults strike at once.
HANDS = 2


class Chaos:
    """Strikes a shop with random faults."""

    def __init__(self, shop: Shop, seconds: float, seed: int, faults: list[Fault]) -> None:
        self.shop, self.seed, self.faults = shop, seed, faults
        self.until = time.monotonic() + seconds
        self.failures: list[BaseException] = []

    def run(self) -> None:
        """Strike until the time is over; a fault that does not get what it waits for fails the run."""
        hands = [threading.Thread(target=self._strike_until_over, args=(n,)) for n in range(HANDS)]
        for hand in hands:
            hand.start()
        for hand in hands:
            hand.join()
        if self.failures:
            raise self.failures[0]

    def _strike_until_over(self, number: int) -> None:
        chance = random.Random(self.seed * HANDS + number)
        while time.monotonic() < self.until and not self.failures:
            fault = chance.choices(self.faults, [fault.weight for fault in self.faults])[0]
            self.shop.note(fault.name)
            try:
                fault.strike(self.shop, chance)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                self.shop.note(f"{fault.name} was struck by another: {type(error).__name__}")
            except BaseException as error:
                self.failures.append(error)


def strike_at_random(
    folder: Path, seconds: float, seed: int, hugely: int, pooled: bool, faults: list[Fault] = FAULTS
) -> tuple[Verdict, Shop]:
    """Open a shop, strike it, close its books; the shop is closed then."""
    with open_shop(folder, seed, publishers=3, pooled=pooled, hugely=hugely) as shop:
        Chaos(shop, seconds, seed, faults).run()
        verdict = shop.close_books()
        assert shop.stop_workers().count(0) >= 1, shop.tails()
    return verdict, shop


def chosen(names: tuple[str, ...]) -> list[Fault]:
    """The faults that are named; or all, without those that are named with a minus."""
    if unknown := {name.removeprefix("-") for name in names} - {fault.name for fault in FAULTS}:
        raise SystemExit(f"no such fault: {', '.join(unknown)}; there are {', '.join(fault.name for fault in FAULTS)}")
    only = [fault for fault in FAULTS if fault.name in names]
    return only or [fault for fault in FAULTS if f"-{fault.name}" not in names]


def main(seconds: float = 120, seed: int | None = None, *names: str) -> int:
    """Run once; returns 1 if the books are wrong."""
    faults = chosen(names)
    seed = random.randrange(1_000_000) if seed is None else seed
    pooled = seed % 2 == 1 and os.path.exists("/usr/sbin/pgbouncer")
    print(f"seed {seed}{', through PgBouncer' if pooled else ''}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="outbox-chaos-"))
    print(f"logs in {folder}", flush=True)
    began = time.monotonic()
    verdict, shop = strike_at_random(folder, seconds, seed, min(100_000, int(200 * seconds)), pooled, faults)
    print(shop.strikes())
    print(f"logs in {folder}")
    print(f"seed {seed}, {time.monotonic() - began:.0f} s: {verdict}")
    print(f"unknown outcomes of publishers: {len(shop.unknown_outcomes())}")
    return 0 if verdict.is_good and verdict.published > 20 * seconds else 1


if __name__ == "__main__":
    given = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(*map(float, given[:1]), *map(int, given[1:2]), *given[2:]))
