"""Keep account of leases: which of their messages are still open, and what can be settled in one statement."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from outbox.operations import Failure, Settlement, ranges

#: Leases in one statement at most.
_BATCH = 500


@dataclass(slots=True)
class _Lease:
    #: Offsets that are waiting or being handled.
    open: set[int]
    #: Offsets that are done or failed, and not yet settled.
    closed: list[int] = field(default_factory=list)


class Ledger:
    """The leases of a consumer. Not thread-safe: it lives in the event loop."""

    def __init__(self) -> None:
        self._leases: dict[int, _Lease] = {}
        self._finished: list[int] = []
        self._failures: dict[int, list[Failure]] = {}

    @property
    def leases(self) -> list[int]:
        return list(self._leases)

    @property
    def has_finished(self) -> bool:
        """Is there a lease of which all can be settled?"""
        return bool(self._finished)

    def open(self, lease: int, offsets: Iterable[int]) -> None:
        """Note that messages were pulled."""
        self._leases[lease] = _Lease(set(offsets))

    def close(self, lease: int, offsets: Iterable[int]) -> None:
        """Note that messages are done. A lease that was dropped is passed over."""
        known = self._leases.get(lease)
        if known is None or not (closed := known.open.intersection(offsets)):
            return
        known.open -= closed
        known.closed.extend(closed)
        if not known.open:
            self._finished.append(lease)

    def fail(self, failure: Failure) -> None:
        """Note that a message failed. A lease that was dropped is passed over."""
        known = self._leases.get(failure.lease)
        if known is not None and failure.offset in known.open:
            self._failures.setdefault(failure.lease, []).append(failure)
            self.close(failure.lease, (failure.offset,))

    def settled(self, lease: int, offsets: Iterable[int]) -> bool:
        """Note that the handler's own transaction settled messages; True if nothing of their lease is left."""
        known = self._leases.get(lease)
        if known is None:
            return True
        known.open.difference_update(offsets)
        if known.open:
            return False
        if known.closed:
            self._finished.append(lease)
        else:
            del self._leases[lease]
        return not known.closed

    def drop(self, lease: int) -> None:
        """Forget a lease: it was lost."""
        self._leases.pop(lease, None)
        self._failures.pop(lease, None)

    def clear(self) -> None:
        """Forget everything: the worker was found dead."""
        self._leases.clear()
        self._finished.clear()
        self._failures.clear()

    def next(self, parts: bool) -> Settlement | None:
        """Take what can be settled now; with `parts`, also the closed parts of leases that are still open."""
        whole = self._take_finished(failed=False)
        if whole:
            return Settlement(whole)
        failed = self._take_finished(failed=True)
        if failed:
            failures = [failure for lease in failed for failure in self._failures.pop(lease, ())]
            return Settlement(failed, failures=failures)
        if parts:
            return self._next_parts()
        return None

    def _take_finished(self, failed: bool) -> list[int]:
        self._finished = [lease for lease in self._finished if lease in self._leases]
        taken = [lease for lease in self._finished if (lease in self._failures) == failed][:_BATCH]
        for lease in taken:
            del self._leases[lease]
        return taken

    def _next_parts(self) -> Settlement | None:
        parts = [(lease, known) for lease, known in self._leases.items() if known.open and known.closed][:_BATCH]
        if not parts:
            return None
        settlement = Settlement([lease for lease, _ in parts], [ranges(known.closed) for _, known in parts])
        for lease, known in parts:
            known.closed.clear()
            settlement.failures.extend(self._failures.pop(lease, ()))
        return settlement


def what_is_held(settlement: Settlement, held: set[int]) -> Settlement | None:
    """Of a settlement of one lease, what the lease still holds; None if that is nothing."""
    asked = settlement.offsets[0] if settlement.offsets else None
    offsets = held if asked is None else held & {int(offset) for offset in re.findall(r"\[(\d+),", asked)}
    if not offsets:
        return None
    failures = [failure for failure in settlement.failures if failure.offset in offsets]
    return Settlement(settlement.leases, [ranges(offsets)], failures)


def one_by_one(settlement: Settlement) -> list[Settlement]:
    """The same, a statement a lease: one of them is lost, and the others shall not suffer from it."""
    return [
        Settlement(
            [lease],
            [settlement.offsets[place]] if settlement.offsets else None,
            [failure for failure in settlement.failures if failure.lease == lease],
        )
        for place, lease in enumerate(settlement.leases)
    ]
