"""What the engine promises, in plain Python: the state of each subscription, without cursors, xids or snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class Place(NamedTuple):
    """Where a message lies: its stable id."""

    partition_id: int
    offset: int


class Verdict(Enum):
    """What a worker says of a message that it settles."""

    DONE = "done"
    AGAIN = "another try"
    AGAIN_UNCHARGED = "another try that spends no attempt"
    DEAD = "dead letter"


@dataclass
class Lease:
    worker: int
    redelivered: bool
    places: set[Place] = field(default_factory=set)


@dataclass
class Redelivery:
    attempt: int
    suspect: bool = False
    lease: int | None = None


@dataclass
class Subscription:
    """The committed messages that a subscription has yet to take, and what became of those it took."""

    name: str
    id: int
    max_attempts: int
    bound: bool = False
    #: they must come
    fresh: set[Place] = field(default_factory=set)
    #: a seek went past them after they committed: they may come
    passed: set[Place] = field(default_factory=set)
    leases: dict[int, Lease] = field(default_factory=dict)
    redeliveries: dict[Place, Redelivery] = field(default_factory=dict)
    #: the attempt that was the last
    dead: dict[Place, int] = field(default_factory=dict)

    def take(self, worker: int, lease: int | None, place: Place, redelivered: bool) -> None:
        if redelivered:
            self.redeliveries[place].lease = lease
        else:
            self.fresh.discard(place)
            self.passed.discard(place)
        if lease is not None:
            self.leases.setdefault(lease, Lease(worker, redelivered)).places.add(place)

    def settle(self, lease: int, verdicts: dict[Place, Verdict]) -> None:
        held = self.leases[lease]
        for place, verdict in verdicts.items():
            tried = self.redeliveries.pop(place) if held.redelivered else Redelivery(1)
            if verdict is Verdict.DEAD:
                self.dead[place] = tried.attempt
            elif verdict is not Verdict.DONE:
                self._try_again(place, Redelivery(tried.attempt + (verdict is Verdict.AGAIN)))
            held.places.remove(place)
        if not held.places:
            del self.leases[lease]

    def _try_again(self, place: Place, again: Redelivery) -> None:
        """After a seek back a message can be in several hands: a redelivery in other hands stays there."""
        if self.redeliveries.get(place, again).lease is None:
            self.redeliveries[place] = again

    def hand_back(self, leases: Iterable[int], died: bool) -> int:
        """The end of leases, by release or death; returns the number of messages that are due again, or dead."""
        ended = [self.leases.pop(lease) for lease in leases]
        tried = {place for lease in ended if lease.redelivered for place in lease.places}
        untried = {place for lease in ended if not lease.redelivered for place in lease.places} - tried
        for place in tried:
            self._end_try(place, died)
        due = {place for place in untried if self.redeliveries.get(place, Redelivery(1)).lease is None}
        for place in due:
            self.redeliveries.setdefault(place, Redelivery(1, suspect=died))
        return len(tried) + len(due)

    def _end_try(self, place: Place, died: bool) -> None:
        """The first crash charges nobody; who was suspect then is charged at the next."""
        tried = self.redeliveries[place]
        charged = died and tried.suspect
        if charged and tried.attempt >= self.max_attempts:
            self.dead[place] = tried.attempt
            del self.redeliveries[place]
        else:
            self.redeliveries[place] = Redelivery(tried.attempt + charged, tried.suspect or died)

    def redrive(self, places: Iterable[Place]) -> int:
        """Returns the number of messages that are due again."""
        risen = {place for place in places if self.dead.pop(place)}
        due = {place for place in risen if self.redeliveries.get(place, Redelivery(1)).lease is None}
        self.redeliveries |= {place: Redelivery(1) for place in due}
        return len(due)

    def seek(self, partition_id: int, cursor: int, target: int, committed: Iterable[Place]) -> None:
        """What is late, committed below the cursor and not yet taken, comes all the same."""
        skipped = {place for place in self.fresh if place[0] == partition_id and cursor < place.offset <= target}
        again = {place for place in committed if place[0] == partition_id and place.offset > target}
        self.fresh = self.fresh - skipped | again
        self.passed = (self.passed | skipped) - again

    def replay(self, taken: set[Place], replayed: set[Place]) -> None:
        """Of what it has taken, that comes again which nobody has, and nothing else; of what was passed, some may."""
        held = {place for lease in self.leases.values() for place in lease.places}
        must = taken - self.fresh - self.passed - held - self.redeliveries.keys()
        assert must <= replayed <= must | (self.passed & taken) - held - self.redeliveries.keys()
        self.passed -= replayed
        self.redeliveries |= {place: Redelivery(1) for place in replayed}

    @property
    def due(self) -> set[Place]:
        """The redeliveries that nobody holds."""
        return {place for place, redelivery in self.redeliveries.items() if redelivery.lease is None}


class Effect(NamedTuple):
    """What a statement will have done when its transaction commits; until then it keeps some rows from others."""

    apply: Callable[[], object]
    locks: frozenset[object] = frozenset()


@dataclass
class Transaction:
    effects: list[Effect] = field(default_factory=list)
    #: how many effects there were at each
    savepoints: list[int] = field(default_factory=list)

    @property
    def locks(self) -> set[object]:
        return {lock for effect in self.effects for lock in effect.locks}

    def roll_back_to(self, savepoint: int) -> None:
        del self.effects[self.savepoints[savepoint] :]
        del self.savepoints[savepoint + 1 :]

    def commit(self) -> None:
        for effect in self.effects:
            effect.apply()
