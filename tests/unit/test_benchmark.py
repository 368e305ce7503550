"""What the benchmark computes: where an error would falsify figures and nobody would see it."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmark import report
from tests.benchmark.competitors import NAMES, named
from tests.benchmark.competitors.competitor import order
from tests.benchmark.figures import percentile, ratios, spread
from tests.benchmark.held import _windows
from tests.benchmark.notes import TIMES, Notes, arrivals, ledger, missing
from tests.benchmark.runs import sizes_of
from tests.benchmark.soak import compared
from tests.benchmark.workloads import BY_NAME, WORKLOADS

MS = 1_000_000


@pytest.fixture
def page(tmp_path: Path):
    """Makes the page of a process that did some numbers at some milliseconds."""

    def make(done: dict[int, int], numbers: int = 10) -> Notes:
        notes = Notes.create(tmp_path / f"notes-{len(list(tmp_path.iterdir()))}", numbers)
        for number, at in done.items():
            notes.note(number)
            notes.page[TIMES + number] = at * MS
        return notes

    return make


def test_latencies_are_joined_by_number_whichever_processes_published_and_handled(page) -> None:
    published = [page({0: 100, 2: 300}), page({1: 200})]
    handled = [page({2: 303, 1: 205}), page({0: 101})]
    assert [(one.number, one.latency) for one in arrivals(published, handled)] == [(0, 1.0), (1, 5.0), (2, 3.0)]


def test_a_message_that_was_handled_twice_counts_from_the_first_time(page) -> None:
    (arrival,) = arrivals([page({0: 100})], [page({0: 150}), page({0: 110})])
    assert arrival.latency == 10


def test_a_handler_that_began_before_the_publisher_had_noted_the_commit_took_no_time(page) -> None:
    (arrival,) = arrivals([page({0: 100})], [page({0: 99})])
    assert arrival.latency == 0


def test_the_ledger_counts_what_was_lost_doubled_and_made_up(page) -> None:
    published = [page({0: 1, 1: 1}), page({2: 1, 3: 1})]
    handled = [page({0: 5, 1: 5, 7: 5}), page({1: 6, 2: 6})]
    assert ledger(published, handled) == (4, 1, 1, 1)
    assert missing(handled, 4) == 1
    assert missing(handled, 3) == 0


def test_a_page_is_shared_and_says_when_the_first_and_the_last_were_done(page) -> None:
    notes = page({})
    other = Notes(notes.path)
    other.note(3)
    other.note(1)
    assert notes.done == 2
    assert notes.first == notes.times()[3] <= notes.times()[1] == notes.last
    assert list(notes.times(1, 3)) == [notes.last, 0]


@given(values=st.lists(st.floats(0, 1e9), min_size=1), percent=st.floats(0.1, 100))
def test_a_percentile_is_a_value_that_so_many_are_not_above(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6
    assert sum(value < found for value in values) < len(values) * percent / 100 + 1e-6


def test_percentiles_of_a_hundred_and_of_nothing() -> None:
    assert percentile(range(1, 101), 99) == 99
    assert percentile(range(1, 101), 50) == 50
    assert math.isnan(percentile([], 99))


def test_ratios_compare_the_same_round_and_leave_out_what_one_lacks() -> None:
    assert ratios({0: 10, 1: 30, 2: 8}, {0: 5, 1: 10}) == [2, 3]
    assert spread([3, 1, 2]) == (2, 1, 3)


def test_a_cell_has_the_median_of_the_ratios_and_not_the_ratio_of_the_medians() -> None:
    rates = {"keyset scan": [100, 200, 400], "outbox": [100, 100, 100]}
    records = [
        {"workload": "W3", "competitor": name, "round": nth, "measures": {"rate": rate}, **_OTHER}
        for name, found in rates.items()
        for nth, rate in enumerate(found)
    ]
    assert "100" in report.markdown(records)
    assert "× 0.50<br>(0.25 – 1)" in report.markdown(records)


def test_runs_that_failed_or_lost_messages_are_said() -> None:
    records = [
        {"workload": "W6", "competitor": "a", "round": 0, "measures": {"lost": 3, "doubled": 0}, **_OTHER},
        {"workload": "W3", "competitor": "b", "round": 1, "failed": "nothing moves\nlog", **_OTHER},
    ]
    assert list(report.failures(records)) == ["W6 a, round 1: 3 messages lost", "W3 b, round 2: nothing moves"]


def test_windows_count_messages_when_they_were_handled_and_latencies_when_they_were_committed(page) -> None:
    published = page({0: 1_000, 1: 1_900, 2: 2_500})
    handled = page({0: 1_100, 1: 2_050, 2: 2_600})
    marks = [{"at": second, "postgres": 0.5 * second, "consumer": 0.0} for second in (1.0, 2.0, 3.0)]
    first, last = _windows(marks, [published], [handled])
    assert (first["rate"], last["rate"]) == (1, 2)
    assert (first["p99_ms"], last["p99_ms"]) == (150, 100)
    assert first["postgres_percent"] == 50


def test_a_soak_compares_the_last_third_with_the_first() -> None:
    keys = ("rate", "p50_ms", "p99_ms", "postgres_percent", "worker_mb", "log_mb", "dead_tuples")
    series = [dict.fromkeys(keys, float(value)) for value in (9, 10, 10, 20, 20, 20, 5, 5, 5)]
    found = compared(series)
    assert (found["rate_first"], found["rate_last"], found["rate_ratio"]) == (10, 5, 0.5)
    assert found["log_mb_middle"] == 20


def test_sizes_are_the_workloads_then_the_quick_ones_then_what_was_given() -> None:
    given_sizes = ["messages=7", "batch=3", "unknown=1"]
    found = sizes_of(BY_NAME["W4-100"], is_quick=True, given=given_sizes)
    assert found == {"messages": 7, "kind": "effects", "batch": 3}
    assert sizes_of(BY_NAME["W12"], is_quick=False, given=["samples=a.jsonl"])["samples"] == "a.jsonl"


def test_the_payload_is_200_bytes_whatever_its_number() -> None:
    import json

    assert {len(json.dumps(order(number), separators=(",", ":"))) for number in (0, 7, 49_999, 3_600_000)} == {200}


def test_every_competitor_that_a_workload_names_is_known() -> None:
    asked = {name for workload in WORKLOADS for name in (*workload.competitors, *(workload.quick_competitors or ()))}
    compared_with = {metric.limit for workload in WORKLOADS for metric in workload.metrics if metric.limit}
    assert asked | compared_with <= set(NAMES)
    assert all(named(name).name == name for name in NAMES if name.startswith("outbox"))


_OTHER = {"noise": {"cpu_ms": 4.0, "fsync_ms": 0.2, "others_percent": 1.0}, "sizes": {"messages": 300}}
