"""When a failed message is tried again."""

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import InvalidDeclaration, Retries

seconds = st.floats(0, 1e6).map(lambda s: timedelta(seconds=s))


@given(first=seconds, more=seconds, factor=st.floats(1, 10), attempt=st.integers(1, 32767), seed=st.integers())
def test_a_delay_is_never_negative_and_never_above_its_ceiling(first, more, factor, attempt, seed) -> None:
    retries = Retries(first=first, longest=first + more, factor=factor)
    delay = retries.delay(attempt, random.Random(seed))
    assert timedelta(0) <= delay <= retries.ceiling(attempt) <= retries.longest


def test_ceilings_grow_to_the_longest() -> None:
    retries = Retries(first=timedelta(seconds=1), factor=3, longest=timedelta(seconds=20))
    assert [retries.ceiling(n).total_seconds() for n in (1, 2, 3, 4, 5)] == [1, 3, 9, 20, 20]


def test_a_steep_factor_ends_at_the_longest() -> None:
    assert Retries(factor=1e6, max_attempts=1000).ceiling(999) == Retries().longest


def test_delays_spread_over_the_whole_range() -> None:
    """Full jitter: so that messages that failed together do not come back together."""
    chance = random.Random(1)
    delays = [Retries(first=timedelta(seconds=10)).delay(1, chance).total_seconds() for _ in range(500)]
    assert min(delays) < 1
    assert max(delays) > 9


@pytest.mark.parametrize(
    "settings",
    [
        {"max_attempts": 0},
        {"max_attempts": 40000},
        {"first": timedelta(seconds=-1)},
        {"first": timedelta(hours=2)},
        {"factor": 0.5},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings) -> None:
    with pytest.raises(InvalidDeclaration):
        Retries(**settings)
