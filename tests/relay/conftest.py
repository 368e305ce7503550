"""Receivers and brokers for relays: each test has its own receiver, brokers are shared and their names are not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.relay.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    try:
        yield one
    finally:
        one.close()
