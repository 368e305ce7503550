"""Everything at once, at random, for seconds; `make stress` does it for minutes."""

import random

import pytest

from tests.engine.stress import Stress
from tests.shop_floor import Database


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("round", range(2))
def test_nothing_is_lost_doubled_made_up_or_reordered(database: Database, round: int, routed: bool) -> None:
    seed = random.randrange(1_000_000)
    ledger = Stress(database.url, seconds=4, seed=seed, pullers=4 + 4 * round, routed=routed).run()
    assert len(ledger.published) > 1_000
    assert (ledger.lost, ledger.doubled, ledger.made_up, ledger.inversions) == ([], [], set(), 0), (
        f"seed {seed}: {ledger}"
    )
    assert set(ledger.left.values()) == {0}, f"seed {seed}: {ledger}"
