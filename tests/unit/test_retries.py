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


STEADY = random.Random(1)


def waits(retries: Retries, attempts: int) -> list[float]:
    return [retries.delay(n, STEADY).total_seconds() for n in range(1, attempts + 1)]


def test_linear_waits_grow_by_a_step_to_the_longest() -> None:
    retries = Retries.linear(timedelta(seconds=10), longest=timedelta(seconds=35), jitter="none", max_attempts=7)
    assert waits(retries, 5) == [10, 20, 30, 35, 35]
    assert retries.max_attempts == 7


def test_listed_waits_are_taken_one_after_the_other_and_say_how_many_there_are() -> None:
    retries = Retries.delays([timedelta(seconds=5), timedelta(minutes=1), timedelta(seconds=1)])
    assert waits(retries, 3) == [5, 60, 1]
    assert retries.max_attempts == 4
    assert waits(Retries.delays([timedelta(seconds=5), timedelta(seconds=9)], max_attempts=9), 4) == [5, 9, 9, 9]


def test_a_function_of_attempt_and_error_says_how_long_to_wait() -> None:
    def wait(attempt: int, error: Exception) -> timedelta:
        return timedelta(minutes=15) if isinstance(error, ConnectionError) else timedelta(seconds=attempt)

    retries = Retries.by(wait, longest=timedelta(minutes=10))
    assert retries.delay(3, STEADY, ValueError()) == timedelta(seconds=3)
    assert retries.delay(3, STEADY, ConnectionError()) == timedelta(minutes=10)


@pytest.mark.parametrize("answer", [None, 5, "soon", timedelta(seconds=-1), timedelta(days=10_000)])
def test_a_function_that_answers_nonsense_waits_as_usual(answer) -> None:
    assert Retries.by(lambda attempt, error: answer).delay(3, STEADY, ValueError()) == timedelta(seconds=4)


@pytest.mark.parametrize(("jitter", "least", "most"), [("full", 0, 10), ("equal", 5, 10), ("none", 10, 10)])
@pytest.mark.parametrize(
    "made",
    [
        lambda jitter: Retries(first=timedelta(seconds=10), jitter=jitter),
        lambda jitter: Retries.linear(timedelta(seconds=10), jitter=jitter),
        lambda jitter: Retries.delays([timedelta(seconds=10)], jitter=jitter),
        lambda jitter: Retries.by(lambda attempt, error: timedelta(seconds=10), jitter=jitter),
    ],
)
def test_jitter_is_a_part_of_the_wait_or_all_or_none_of_it(made, jitter, least, most) -> None:
    chance = random.Random(1)
    found = [made(jitter).delay(1, chance).total_seconds() for _ in range(300)]
    assert least == pytest.approx(min(found), abs=0.2)
    assert most == pytest.approx(max(found), abs=0.2)


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retries(jitter="some"),
        lambda: Retries(max_age=timedelta(0)),
        lambda: Retries(max_age=-SECOND),
        lambda: Retries(max_age=60),
        lambda: Retries(first=1),
        lambda: Retries(max_attempts=2.5),
        lambda: Retries.linear(5),
        lambda: Retries.linear(timedelta(hours=2)),
        lambda: Retries.delays([]),
        lambda: Retries.delays([SECOND, -SECOND]),
        lambda: Retries.delays([SECOND, 2]),
        lambda: Retries.delays([SECOND], max_attempts=0),
        lambda: Retries.by(None),
        lambda: Retries.by(timedelta(seconds=1)),
    ],
)
def test_policies_that_make_no_sense_are_refused(make) -> None:
    with pytest.raises(InvalidDeclaration):
        make()
