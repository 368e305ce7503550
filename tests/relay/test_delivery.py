"""A relay's handler without another system: what it does when that wants no more."""

from __future__ import annotations

import asyncio

import pytest

from outbox.chunks import Deferred
from outbox.cli.relay import probe
from outbox.definitions import Relay
from outbox.model import Message
from outbox.relay.delivery import Delivery
from outbox.relay.target import Gone, Outcome, Unavailable


class Scripted:
    """A target that says what it is told to, and then yes."""

    keeps_order = False
    is_whole = False

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.delivered: list[Message] = []
        self.sizes: list[int] = []

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        self.sizes.append(len(messages))
        found = [self.outcomes.pop(0) if self.outcomes else None for _ in messages]
        self.delivered += [message for message, outcome in zip(messages, found, strict=True) if outcome is None]
        return found

    async def close(self) -> None:
        pass


def test_a_disabled_relay_that_is_resumed_is_not_paused_again_by_what_comes_in_before_its_look() -> None:
    pauses = 0

    async def play() -> None:
        async def pause() -> None:
            nonlocal pauses
            assert not delivery.is_paused, "who looks now would find it resumed"
            pauses += 1

        delivery = Delivery("out", Relay(url="amqp://h", bindings=("a",)), Scripted(Gone("no more")), pause)
        message = probe("orders.placed", "1")
        assert isinstance((await delivery([message]))[0], Deferred)
        assert (delivery.circuit.state, delivery.is_paused) == ("disabled", True)
        resumed = asyncio.create_task(delivery([message]))  # as its worker does at once when it is resumed
        await asyncio.sleep(0)
        delivery.enable()
        assert isinstance((await resumed)[0], Deferred)
        assert await delivery([message]) == [None]

    asyncio.run(play())
    assert pauses == 1


@pytest.mark.parametrize(("is_whole", "sizes"), [(False, [5, 1, 4]), (True, [5, 5])])
def test_one_message_finds_out_whether_the_other_side_is_back_unless_it_takes_all_or_nothing(
    is_whole: bool, sizes: list[int]
) -> None:
    target = Scripted(*[Unavailable("away")] * 5)
    target.is_whole = is_whole

    async def disable() -> None:
        raise NotImplementedError

    async def play() -> None:
        delivery = Delivery("out", Relay(url="kafka://h", bindings=("a",), ordered=False), target, disable)
        assert await delivery([probe("orders.placed", str(n)) for n in range(5)]) == [None] * 5

    asyncio.run(play())
    assert target.sizes == sizes
