"""How what was pulled is cut into calls, and which messages wait behind one that failed."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from outbox import Message, Outbox, Reject
from outbox.chunks import Chunk, Deferred, cut
from outbox.model import Batch
from outbox.subscription import Subscription


def message(offset: int, key: str | None = None, lease: int = 1, redelivered: bool = False) -> Message:
    return Message(Batch(lease, 1, redelivered, "t", 0, 0, 1, 1), offset, 0, key, None, b"1", None)


def subscription(**settings: Any) -> Subscription:
    app = Outbox()

    @app.subscribe("s", "t", **settings)
    def handler(messages: list[Message]) -> None: ...

    return app.subscriptions["s"]


def run(chunk: Chunk, failing: dict[int, Exception]) -> tuple[list[int], list[int]]:
    """Make all calls; a call with a failing message fails as a whole. Returns who was tried, and who was deferred."""
    tried: list[int] = []
    while call := chunk.next_call():
        offsets = [one.offset for one in call.messages]
        failed = [failing.get(offset) for offset in offsets]
        if len(offsets) > 1 and any(failed):
            chunk.note(call, None)
        else:
            tried += offsets
            chunk.note(call, failed)
    return tried, [one.offset for one, error in chunk.failed if isinstance(error, Deferred)]


def test_block_defers_all_that_follows_and_park_what_has_the_same_key() -> None:
    messages = [message(offset, key) for offset, key in enumerate("abab", 1)]
    failing: dict[int, Exception] = {1: ValueError()}
    for on_failure, tried, deferred in (
        ("block", [1], [2, 3, 4]),
        ("park", [1, 2, 4], [3]),
        ("dead-letter", [1, 2, 3, 4], []),
    ):
        for batch in (1, 3):
            chunk = cut(deque(messages), subscription(ordered=True, on_failure=on_failure, batch=batch), 10)
            assert run(chunk, failing) == (tried, deferred), (on_failure, batch)


def test_a_message_that_is_given_up_holds_nobody_back() -> None:
    chunk = cut(deque(message(n, "k") for n in (1, 2, 3)), subscription(ordered=True, on_failure="block"), 10)
    assert run(chunk, {1: Reject("no")}) == ([1, 2, 3], [])


def test_messages_of_a_lost_lease_are_not_begun() -> None:
    waiting = deque([message(1, lease=1), message(2, lease=2), message(3, lease=1)])
    chunk = cut(waiting, subscription(batch=1), 3)
    assert chunk.next_call() is not None
    chunk.lose(1)
    assert run(chunk, {}) == ([2], [])
    chunk.halt()
    assert chunk.next_call() is None


def test_what_was_tried_before_is_tried_alone() -> None:
    waiting = deque([message(1), message(2), message(3, redelivered=True), message(4), message(5)])
    chunk = cut(waiting, subscription(batch=10), 10)
    assert [[one.offset for one in call.messages] for call in chunk.calls] == [[1, 2], [3], [4, 5]]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=20),
    st.sampled_from(["block", "park", "dead-letter"]),
    st.integers(1, 5),
)
def test_every_message_has_one_result_and_a_key_keeps_its_order(
    rows: list[tuple[str, bool]], on_failure: str, batch: int
) -> None:
    messages = [message(n, key) for n, (key, _) in enumerate(rows)]
    failing: dict[int, Exception] = {n: ValueError() for n, (_, fails) in enumerate(rows) if fails}
    chunk = cut(deque(messages), subscription(ordered=True, on_failure=on_failure, batch=batch), 1)
    run(chunk, failing)
    done = chunk.done
    assert sorted(one.offset for one in (*done, *(one for one, _ in chunk.failed))) == list(range(len(rows)))
    assert [one.offset for one in done] == sorted(one.offset for one in done)
    if on_failure != "dead-letter":
        first = {key: min((n for n in failing if rows[n][0] == key), default=len(rows)) for key in "abc"}
        limit = min(first.values())
        assert all(one.offset < (first[one.key or ""] if on_failure == "park" else limit) for one in done)
