"""What is counted of chunks, and read by another thread while a worker starts."""

from __future__ import annotations

from collections import deque

import pytest

from outbox.chunks import Chunk, Deferred
from outbox.metrics.catalog import Metric
from outbox.metrics.tally import DELIVERY, HANDLED, HANDLER, Tally, families
from outbox.observer import Clock
from tests.unit.test_chunks import message, subscription


def sample(tally: Tally, metric: Metric, part: str) -> float:
    return next(
        one.value for family in families({"s": tally}) for one in family.samples if one.name == f"{metric.name}_{part}"
    )


def test_messages_that_were_not_tried_have_no_handler_time_and_no_delivery() -> None:
    """Of an ordered partition one failed, and 499 wait behind it: they come again."""
    tally = Tally(Clock())
    chunk = Chunk(subscription(), deque(), seconds=0.1)
    chunk.failed = [(message(1), ValueError()), *((message(n), Deferred()) for n in range(2, 501))]
    tally.handled(chunk)
    assert sample(tally, HANDLER, "count") == sample(tally, DELIVERY, "count") == 1
    assert sample(tally, HANDLER, "sum") == pytest.approx(0.1)


def test_a_worker_that_starts_while_it_is_scraped_does_no_harm() -> None:
    tallies = {"a": Tally(Clock())}
    page = families(tallies)
    first = next(page)
    assert first.name == HANDLED.name.removesuffix("_total")
    tallies["b"] = Tally(Clock())
    assert {one.labels["subscription"] for family in (first, *page) for one in family.samples} == {"a"}
