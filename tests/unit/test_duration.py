"""Durations as text: what people write, and back."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("0s", 0),
        ("PT15M", 900),
        ("P1DT2H", 93_600),
        (90, 90),
        (0.5, 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text: str | float, seconds: float) -> None:
    assert duration.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "10", "10 minutes", "-1h", "1y", "h", True, None, [], float("nan"), 1e300]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match='is not a duration: "10m", "1h30m"'):
        duration.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "1m30s"), (604_800, "7d"), (5400, "1h30m"), (0.25, "0.25s"), (86_401, "1d1s")]
)
def test_durations_are_written_readable(seconds: float, text: str) -> None:
    assert duration.text(timedelta(seconds=seconds)) == text


@given(st.timedeltas(timedelta(0), timedelta(days=10_000)))
def test_what_is_written_is_read_as_the_same(length: timedelta) -> None:
    assert duration.parse(duration.text(length)) == length
