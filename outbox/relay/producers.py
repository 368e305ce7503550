"""Who produces under which transactional id, so that whoever takes over from the dead can fence them first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from outbox.operations import Operation
from outbox.relay import operations


class Producers:
    """Those of one relay, as the database knows them.

    Args:
        run: runs an operation, again and again until the database has answered.
    """

    def __init__(self, relay: str, run: Callable[[Callable[[], Operation[Any]]], Awaitable[Any]]) -> None:
        self._relay, self._run = relay, run

    async def holders(self, leases: Iterable[int]) -> dict[int, int]:
        """The worker that holds each lease; what nobody alive holds is left out."""
        held: dict[int, int] = await self._run(lambda: operations.holders(leases))
        return held

    async def open(self, id: str, worker: int) -> bool:
        """Note an id before it is used. False: the worker was found dead, and must not use it."""
        return bool(await self._run(lambda: operations.open_producer(id, self._relay, worker)))

    async def dead(self) -> list[str]:
        """Ids to fence, before anything is delivered that their workers may have had in hand."""
        ids: list[str] = await self._run(lambda: operations.dead_producers(self._relay))
        return ids

    async def close(self, id: str) -> None:
        """It is fenced."""
        await self._run(lambda: operations.close_producer(id))
