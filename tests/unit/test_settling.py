"""The ledger of a consumer: every message that was opened is settled exactly once, however it ends."""

from hypothesis import given
from hypothesis import strategies as st

from outbox.operations import Failure
from outbox.settling import Ledger


def failed(lease: int, offset: int) -> Failure:
    return Failure(lease, offset, 1.0, None, {})


def test_a_lease_is_settled_whole_once_all_its_messages_are_closed() -> None:
    ledger = Ledger()
    ledger.open(7, (1, 2))
    ledger.close(7, [1])
    assert ledger.next(parts=False) is None
    ledger.close(7, [2])
    settlement = ledger.next(parts=False)
    assert settlement is not None
    assert (settlement.leases, settlement.offsets, settlement.failures) == ([7], None, [])
    assert ledger.leases == []


def test_parts_are_settled_on_request() -> None:
    ledger = Ledger()
    ledger.open(7, (1, 2, 3))
    ledger.close(7, [3])
    ledger.fail(failed(7, 1))
    settlement = ledger.next(parts=True)
    assert settlement is not None
    assert (settlement.leases, settlement.offsets) == ([7], ["{[1,1],[3,3]}"])
    assert [failure.offset for failure in settlement.failures] == [1]
    assert ledger.next(parts=True) is None


def test_clean_leases_are_settled_apart_from_those_with_failures() -> None:
    """So that they take the short way through the database."""
    ledger = Ledger()
    for lease in (1, 2):
        ledger.open(lease, [1])
    ledger.fail(failed(1, 1))
    ledger.close(2, [1])
    first, second = ledger.next(False), ledger.next(False)
    assert first is not None and second is not None  # noqa: PT018
    assert (first.leases, first.failures) == ([2], [])
    assert (second.leases, [f.lease for f in second.failures]) == ([1], [1])


def test_a_dropped_lease_is_never_settled() -> None:
    ledger = Ledger()
    ledger.open(1, [1])
    ledger.drop(1)
    ledger.close(1, [1])
    ledger.fail(failed(1, 1))
    assert ledger.next(parts=True) is None


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans()), max_size=60), st.data())
def test_each_message_is_settled_once_in_any_order(events, data) -> None:
    ledger = Ledger()
    messages = [(lease, offset, fails) for offset, (lease, fails, _) in enumerate(events, 1)]
    held = {lease: {offset for at, offset, _ in messages if at == lease} for lease, _, _ in messages}
    for lease, offsets in held.items():
        ledger.open(lease, offsets)
    settled: list[tuple[int, int]] = []
    failures: list[tuple[int, int]] = []

    def take(parts: bool) -> None:
        while settlement := ledger.next(parts):
            for place, lease in enumerate(settlement.leases):
                text = settlement.offsets[place] if settlement.offsets else None
                offsets = (
                    held[lease] if text is None else {int(r.split(",")[0]) for r in text.strip("{}[]").split("],[")}
                )
                assert offsets <= held[lease]
                held[lease] = held[lease] - offsets
                settled.extend((lease, offset) for offset in offsets)
            failures.extend((failure.lease, failure.offset) for failure in settlement.failures)

    for lease, offset, fails in data.draw(st.permutations(messages)):
        if fails:
            ledger.fail(failed(lease, offset))
        else:
            ledger.close(lease, [offset])
        if data.draw(st.booleans()):
            take(parts=data.draw(st.booleans()))
    take(parts=False)
    assert sorted(settled) == sorted((lease, offset) for lease, offset, _ in messages)
    assert sorted(failures) == sorted((lease, offset) for lease, offset, fails in messages if fails)
