"""How much a consumer takes, and what it gives back when its handler becomes slow."""

from __future__ import annotations

from collections import deque

from outbox.model import Batch, Message
from outbox.pace import Pace


def waiting(*leases: int) -> deque[Message]:
    return deque(
        Message(Batch(lease, 1, False, "t", 0, 0, 1, 1), offset, 0, None, None, b"1", None)
        for offset, lease in enumerate(leases)
    )


def slow_after_fast(pace: Pace, looks: int) -> None:
    for _ in range(50):
        pace.note(10, 0.01)
    for _ in range(looks):
        pace.note(1, 1.0)


def test_a_handler_that_becomes_slow_keeps_what_it_can_do_and_the_rest_goes_back() -> None:
    pace = Pace(1, None)
    slow_after_fast(pace, 3)
    messages = waiting(*[1] * 200)
    assert [pace.surplus(messages) for _ in range(9)] == [[]] * 9
    given_back = pace.surplus(messages)
    assert len(messages) == pace.in_hand == 2
    assert len(given_back) == 198
    assert [message.offset for message in messages] == [0, 1]


def test_no_more_messages_fit_than_their_size_allows_but_one_always_does() -> None:
    pace = Pace(1, None)
    for _ in range(50):
        pace.note_size(10, 10_000)
    assert pace.fitting(100_000) == 100
    assert pace.fitting(999) == 1


def test_one_slow_call_gives_nothing_back() -> None:
    pace = Pace(1, None)
    slow_after_fast(pace, 0)
    pace.note(1, 0.1)
    messages = waiting(*[1] * 250)
    for _ in range(20):
        assert pace.surplus(messages) == []
        pace.note(5, 0.005)


def test_leases_that_handlers_settle_go_back_whole() -> None:
    pace = Pace(1, None, batch=3, whole_leases=True)
    slow_after_fast(pace, 5)
    messages = waiting(*(n // 7 for n in range(70)))
    given_back = [message for _ in range(10) for message in pace.surplus(messages)]
    assert len(given_back) + len(messages) == 70
    assert not {message.lease_id for message in given_back} & {message.lease_id for message in messages}


def test_what_was_asked_for_is_never_too_much() -> None:
    pace = Pace(1, 100)
    slow_after_fast(pace, 20)
    messages = waiting(*[1] * 100)
    assert all(pace.surplus(messages) == [] for _ in range(20))
