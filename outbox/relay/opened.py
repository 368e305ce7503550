"""A connection that several deliveries share: made when it is first needed, and anew when it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Opened(Generic[T]):
    """Holds one; who comes while it is being made waits for it.

    Args:
        make: connects. Raises Unavailable.
        is_usable: is one of any more use?
        end: ends one. Raises nothing.
    """

    def __init__(
        self, make: Callable[[], Awaitable[T]], is_usable: Callable[[T], bool], end: Callable[[T], Awaitable[None]]
    ) -> None:
        self._make, self._is_usable, self._end = make, is_usable, end
        self._opening = asyncio.Lock()
        self._one: T | None = None

    async def get(self) -> T:
        """Return it. Raises as `make`."""
        async with self._opening:
            if self._one is not None and not self._is_usable(self._one):
                await self.close()
            if self._one is None:
                self._one = await self._make()
            return self._one

    async def close(self, only: T | None = None) -> None:
        """End it, if there is one; with `only`, if it still is that one."""
        one = self._one
        if one is not None and (only is None or one is only):
            self._one = None
            await self._end(one)
