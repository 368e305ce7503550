"""What a relay needs of a protocol, and what a source does: two small protocols that each system's module fulfils."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from outbox.definitions.relays import Relay, Source
from outbox.errors import InvalidDeclaration, OutboxError
from outbox.model import Message, NewMessage

if TYPE_CHECKING:
    from outbox.relay.producers import Producers

T = TypeVar("T")

#: None: the other side has the message, and has said so. `Unavailable`: it is away. `Retry`, or any other error: it
#: refuses this message for now; `Reject`: for ever. `Gone`: it wants no more, of nothing.
Outcome = Exception | None


class Unavailable(OutboxError):
    """The other side can't be reached, or does not confirm. No message's fault, unless `is_charged`.

    Args:
        reason: for logs and `outbox status`: no passwords.
        after: seconds in which it wants to be left alone, if it said so.
        is_cut: did the connection end while the messages were on their way? Then one of them may be why.
        is_charged: does the message spend an attempt all the same?
    """

    def __init__(
        self, reason: str, *, after: float | None = None, is_cut: bool = False, is_charged: bool = False
    ) -> None:
        super().__init__(reason)
        self.after, self.is_cut, self.is_charged = after, is_cut, is_charged


class Gone(OutboxError):
    """The other side says that it will never want anything again: the relay is disabled."""


class Target(Protocol):
    """Another system that messages are delivered to. Connects when it is first needed, and anew when that broke."""

    #: Does it keep the order of a key's messages that are on their way together, though one of them is refused?
    keeps_order: bool
    #: Does it take all that it is given at once, or nothing? Then that is tried whole after a break, too.
    is_whole: bool

    async def deliver(self, messages: list[Message]) -> list[Outcome]:
        """Send messages, and return what became of each when all are confirmed or given up. Raises nothing else."""

    async def close(self) -> None:
        """End its connection."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from another system."""

    topic: str
    message: NewMessage
    #: Of bytes.
    content_type: str | None
    #: What the protocol confirms it by.
    token: Any


@dataclass(frozen=True, slots=True)
class Step:
    """In one partition of another log: what was read began at one offset, and goes on at another."""

    partition: str
    from_offset: int | None
    to_offset: int


class Intake(Protocol):
    """Another system that messages come from."""

    async def receive(self, limit: int) -> list[Received]:
        """Wait for a message and return it with those that are there, too. Raises Unavailable."""

    def steps(self, received: Sequence[Received]) -> list[Step]:
        """How far that reads, where the other side is a log whose offsets are kept with us; else nothing."""

    async def confirm(self, published: Sequence[Received], steps: Sequence[Step]) -> None:
        """Say that messages are published, and committed, and how far that is. Raises Unavailable: they come again."""

    async def refuse(self, received: Received, reason: str) -> None:
        """Say that it can never be published. Raises Unavailable."""

    async def close(self) -> None:
        """End the connection: what is not confirmed goes to others."""


_MODULES = {
    "rabbitmq": ("outbox.relay.rabbitmq", "rabbitmq"),
    "kafka": ("outbox.relay.kafka", "kafka"),
    "activemq": ("outbox.relay.activemq", "activemq"),
    "nats": ("outbox.relay.jetstream", "nats"),
    "http": ("outbox.relay.webhooks", "webhooks"),
}


def target(name: str, relay: Relay, source: str, producers: Producers | None = None) -> Target:
    """The target of a relay; `source` is that of its CloudEvents. Raises InvalidDeclaration if a package is missing.

    Args:
        producers: where a transactional relay notes what it produces under; None: it delivers what nobody else does.
    """
    more = (producers,) if relay.transactional else ()
    made: Target = _made(relay, "target", name, relay, source, *more)
    return made


def intake(name: str, source: Source, position: Any) -> Intake:
    """Where a source takes from; `position` says how far a partition was read. Raises as `target`."""
    made: Intake = _made(source, "intake", name, source, position)
    return made


def _made(peer: Relay | Source, function: str, *arguments: Any) -> Any:
    module, extra = _MODULES[peer.protocol]
    try:
        make: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise InvalidDeclaration(
            f"{peer.protocol} needs a package ({error.name}): pip install 'outbox-pg[{extra}]'"
        ) from None
    return make(*arguments)
