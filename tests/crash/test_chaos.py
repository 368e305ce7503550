"""Each fault alone, then all of them at random, then the books: nothing lost, doubled, made up, overtaken or stuck."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.conftest import NEEDS_PGBOUNCER
from tests.crash.chaos import strike_at_random
from tests.crash.faults import FAULTS, Fault
from tests.crash.shop import open_shop


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_books_are_right_after(fault: Fault, tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    with open_shop(tmp_path, seed) as shop:
        fault.strike(shop, random.Random(seed))
        shop.wait_for_effects(500)
        verdict = shop.close_books()
        print(verdict)
        assert set(shop.stop_workers()) == {0}, shop.tails()
        assert verdict.is_good, f"seed {seed}: {verdict}\n{shop.tails()}"
        assert verdict.published > 100, f"hardly anything happened: {verdict}"


@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "through-pgbouncer"])
def test_the_books_are_right_after_everything_at_random(pooled: bool, tmp_path: Path) -> None:
    if pooled and not os.path.exists("/usr/sbin/pgbouncer"):
        pytest.skip(NEEDS_PGBOUNCER)
    seed = random.randrange(1_000_000)
    # a worker that is frozen before its COMMIT holds its turn as long as it is: alone it is struck above
    faults = [fault for fault in FAULTS if fault.name != "freeze_worker"]
    verdict, shop = strike_at_random(tmp_path, 15, seed, hugely=5_000, pooled=pooled, faults=faults)
    print(shop.strikes(), verdict)
    assert verdict.is_good, f"seed {seed}: {verdict}\n{shop.strikes()}"
    assert verdict.published > 500, f"hardly anything happened: {verdict}"
