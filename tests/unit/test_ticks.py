"""When schedules tick: over changes of the clock, and after a time in which no worker ran."""

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox import ticks
from outbox.errors import InvalidDeclaration
from outbox.ticks import Missed, Timing

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"

#: The day on which summer time begins, and ends, and the hour that is left out, or comes twice.
SPRING = {BERLIN: "2026-03-29", NEW_YORK: "2026-03-08"}
AUTUMN = {BERLIN: ("2026-10-25", "02"), NEW_YORK: ("2026-11-01", "01")}
#: The names of winter and summer time.
WINTER, SUMMER = {BERLIN: "CET", NEW_YORK: "EST"}, {BERLIN: "CEST", NEW_YORK: "EDT"}


def of_day(cron: str, zone: str, day: str) -> list[str]:
    """The ticks of a day, as the clock on the wall shows them, with the name of its time."""
    midnight = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone))
    found = ticks.after(Timing(cron, None, zone), midnight - timedelta(seconds=1))
    walls = (tick.astimezone(ZoneInfo(zone)) for tick in found)
    return [f"{wall:%H:%M %Z}" for wall in takewhile(lambda wall: f"{wall:%Y-%m-%d}" == day, walls)]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["03:00"]),  # right after the hour that is left out
        ("0,30 2 * * *", ["03:00"]),  # both of them, once
        ("15 2,3 * * *", ["03:00", "03:15"]),
        ("30 3 * * *", ["03:30"]),
        ("0 30 2 * * *", []),  # six fields: as the clock on the wall shows
        ("30 2-3/1 * * *", ["03:00", "03:30"]),
    ],
)
def test_a_tick_in_the_hour_that_spring_leaves_out(zone: str, cron: str, expected: list[str]) -> None:
    assert of_day(cron, zone, SPRING[zone]) == [f"{wall} {SUMMER[zone]}" for wall in expected]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_ticks_of_every_hour_leave_out_the_hour_that_is_not_there(zone: str) -> None:
    for cron, ticks_an_hour in ("30 * * * *", 1), ("*/15 * * * *", 4), ("0 */15 * * * *", 4):
        assert len(of_day(cron, zone, SPRING[zone])) == 23 * ticks_an_hour
        assert not [wall for wall in of_day(cron, zone, SPRING[zone]) if wall.startswith("02")]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_a_tick_in_the_hour_that_comes_twice_comes_once_or_with_six_fields_twice(zone: str) -> None:
    day, hour = AUTUMN[zone]
    first, second = f"{hour}:30 {SUMMER[zone]}", f"{hour}:30 {WINTER[zone]}"
    assert of_day(f"30 {int(hour)} * * *", zone, day) == [first]
    assert of_day(f"0 30 {int(hour)} * * *", zone, day) == [first, second]
    for cron, ticks_an_hour in ("30 * * * *", 1), ("*/15 * * * *", 4):
        assert len(of_day(cron, zone, day)) == 25 * ticks_an_hour
        assert {first, second} <= set(of_day(cron, zone, day))


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_in_the_second_of_two_hours_the_next_tick_is_not_in_the_first(zone: str) -> None:
    day, hour = AUTUMN[zone]
    now = datetime.fromisoformat(f"{day}T{hour}:10").replace(tzinfo=ZoneInfo(zone), fold=1)
    tick = next(ticks.after(Timing(f"30 {int(hour)} * * *", None, zone), now))
    assert f"{tick.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}" == str(datetime.fromisoformat(day) + timedelta(1))[
        :10
    ] + (f" {hour}:30")


def test_intervals_are_of_time_that_passes_whatever_the_clock_shows() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo(BERLIN))
    found = list(islice(ticks.after(Timing(None, timedelta(days=1), BERLIN), before), 2))
    assert [f"{tick.astimezone(ZoneInfo(BERLIN)):%d %H:%M}" for tick in found] == ["29 13:00", "30 13:00"]


NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
MINUTELY = Timing("* * * * *", None, "UTC")


@pytest.mark.parametrize("timing", [MINUTELY, Timing(None, timedelta(minutes=1), "UTC")])
@pytest.mark.parametrize(
    ("missed", "expected"),
    [("skip", [60, 0]), ("one", [120, 60, 0]), ("all", [600, 540, 480, 420, 360, 300, 240, 180, 120, 60, 0])],
)
def test_missed_ticks_are_skipped_or_made_up_for_by_one_or_by_all(
    timing: Timing, missed: Missed, expected: list[int]
) -> None:
    """A tick that is 60 s late, and no more, is not a missed one."""
    plan = ticks.plan(timing, missed, NOW - timedelta(minutes=10), NOW)
    assert plan.ticks == [NOW - timedelta(seconds=late) for late in expected]
    assert plan.next_at == NOW + timedelta(minutes=1)


@pytest.mark.parametrize("missed", ["skip", "one", "all"])
def test_what_is_a_little_late_is_published_whatever_the_policy(missed: Missed) -> None:
    due_at = NOW - timedelta(seconds=5)
    plan = ticks.plan(Timing(None, timedelta(seconds=1), "UTC"), missed, due_at, NOW)
    assert plan.ticks == [due_at + timedelta(seconds=n) for n in range(6)]
    assert plan.next_at == NOW + timedelta(seconds=1)


def test_all_missed_ticks_come_a_thousand_at_once() -> None:
    second = Timing(None, timedelta(seconds=1), "UTC")
    plan = ticks.plan(second, "all", NOW - timedelta(days=1), NOW)
    assert len(plan.ticks) == 1000
    assert plan.next_at == plan.ticks[-1] + timedelta(seconds=1)


@pytest.mark.parametrize("missed", ["skip", "one"])
@pytest.mark.parametrize("timing", [Timing("* * * * * *", None, BERLIN), Timing(None, timedelta(seconds=1), "UTC")])
def test_years_of_missed_seconds_cost_nothing(timing: Timing, missed: Missed) -> None:
    plan = ticks.plan(timing, missed, NOW - timedelta(days=1000), NOW)
    assert len(plan.ticks) == 61 + (missed == "one")
    assert plan.next_at == NOW + timedelta(seconds=1)


def test_a_rare_tick_is_found_years_ahead() -> None:
    assert ticks.plan(Timing("0 0 29 2 *", None, "UTC"), "one", NOW, NOW).next_at == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    "timing",
    [
        Timing("61 * * * *", None, "UTC"),
        Timing("* * * *", None, "UTC"),
        Timing("0 0 31 2 *", None, "UTC"),
        Timing("* * * * *", None, "Europe/Atlantis"),
        Timing("* * * * *", None, "../etc/passwd"),
        Timing(None, timedelta(milliseconds=999), "UTC"),
        Timing(None, None, "UTC"),
        Timing("* * * * *", timedelta(1), "UTC"),
    ],
)
def test_what_does_not_tick_is_refused(timing: Timing) -> None:
    with pytest.raises(InvalidDeclaration, match="nightly"):
        ticks.check("nightly", timing)


crons = st.sampled_from(
    ["30 2 * * *", "0,30 1,2,3 * * *", "*/15 * * * *", "30 * * * *", "0 */2 * * *", "0 30 2 * * *", "5 4 * * sun"]
)
moments = st.one_of(
    st.datetimes(datetime(2026, 10, 24), datetime(2026, 11, 2)),
    st.datetimes(datetime(2026, 3, 7), datetime(2026, 3, 31)),
)


@given(crons, st.sampled_from([BERLIN, NEW_YORK, "UTC", "Australia/Lord_Howe"]), moments, st.integers(0, 200_000))
def test_each_tick_comes_once_wherever_workers_stop_and_begin(cron: str, zone: str, start: datetime, gap: int) -> None:
    """To go on from a tick, or after a pause, gives the ticks that an endless walk gives."""
    timing, since = Timing(cron, None, zone), start.replace(tzinfo=UTC)
    until = since + timedelta(seconds=gap)
    walk = list(takewhile(lambda tick: tick <= until, ticks.after(timing, since)))
    assert walk == sorted(set(walk))
    again, at = [], since
    while (at := next(ticks.after(timing, at))) <= until:
        again.append(at)
    assert again == walk
    if walk:
        plan = ticks.plan(timing, "all", walk[0], until)
        assert plan.ticks == walk[:1000]
        missed = [tick for tick in walk if tick < until - ticks.MISSED_AFTER]
        fresh = [tick for tick in walk if tick >= until - ticks.MISSED_AFTER]
        assert ticks.plan(timing, "skip", walk[0], until).ticks == fresh
        assert ticks.plan(timing, "one", walk[0], until).ticks == missed[-1:] + fresh
