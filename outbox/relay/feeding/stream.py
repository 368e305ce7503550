"""What a feed needs of another log: a small protocol that Kafka and RabbitMQ fulfil."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from outbox.definitions.relays import Source
from outbox.errors import InvalidDeclaration
from outbox.relay.feeding.message import Fed
from outbox.relay.feeding.operations import Begun
from outbox.relay.target import Unavailable

Start = Literal["first", "next"]


class Silent(Unavailable):
    """The other side is away, and what is ours stays ours: it goes on by itself when it is back."""


class Reader(Protocol):
    """Who reads; asked and told in the event loop."""

    async def begin(self, lane: str, number: int, first: int | None) -> Begun | None:
        """A partition is ours from now on; None: it was never read, and there is no `first`."""

    async def end(self, lanes: list[str]) -> None:
        """Partitions go to others when this returns: what is under way has ended, or had its time."""


class Stream(Protocol):
    """Another log, of which one member of a group, or consumer of a queue, reads its part."""

    #: Are offsets kept in our database? If not, each message is confirmed there when it is settled.
    keeps_offsets: bool

    async def read(self, limit: int, held: set[str]) -> list[Fed]:
        """What is there, in order; none after a moment; nothing of lanes that are held.

        Raises:
            Silent: it is away, and what is ours stays ours.
            Unavailable: it is away, and nothing is ours any more.
        """

    async def note_settled(self, settled: Sequence[Fed], lane: str, offset: int) -> None:
        """Say that messages are settled, and how far that is. Raises Unavailable: they come again."""

    def restart(self, lane: str) -> None:
        """Read a partition from where our database says; it begins anew."""

    async def close(self) -> None:
        """End the connection: what is not confirmed goes to others."""


_MODULES = {"kafka": "outbox.relay.feeding.kafka", "rabbitmq": "outbox.relay.feeding.rabbitmq"}


def stream(subscription: str, source: Source, start: Start, order: str | None, reader: Reader) -> Stream:
    """The stream of a subscription. Raises InvalidDeclaration if it can be none, or a package is missing.

    Args:
        order: what failures do in it, if it is ordered.
    """
    if source.protocol not in _MODULES:
        raise InvalidDeclaration(
            f"handlers run on Kafka or RabbitMQ, not on {source.protocol}: bring it into the log with `outbox relay`"
        )
    try:
        make: Callable[..., Any] = importlib.import_module(_MODULES[source.protocol]).stream
    except ImportError as error:
        raise InvalidDeclaration(
            f"{source.protocol} needs a package ({error.name}): pip install 'outbox-pg[{source.protocol}]'"
        ) from None
    made: Stream = make(subscription, source, start, order, reader)
    return made
