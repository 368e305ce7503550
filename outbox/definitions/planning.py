"""From definitions to a plan, from a plan to the database, and back."""

from __future__ import annotations

from typing import Any, Protocol

from outbox.definitions import schedules, subscriptions, topics
from outbox.definitions.change import Change, Plan
from outbox.definitions.definition import Definitions, check
from outbox.errors import InvalidDeclaration, NotOwnTransaction
from outbox.operations import Operation, Statement


class Kind(Protocol):
    """A kind of object: a module with a section of the file."""

    @property
    def SECTION(self) -> str: ...  # noqa: N802  # a module's constant

    def read(self) -> Operation[Any]:
        """All that there are: a dict by name."""

    def changes(self, wanted: Any, prune: bool = False, force: bool = False) -> Operation[list[Change]]:
        """How what there is becomes what is wanted, a dict by name."""

    def apply(self, changes: list[Change]) -> Operation[None]:
        """Do what was planned, in the caller's transaction."""


#: In the order in which they are applied: cursors are placed at the beginning of a transaction only.
KINDS: tuple[Kind, ...] = (subscriptions, topics, schedules)

#: Keeps two that apply apart: "outbox" in ASCII, and 66. A transaction's, and so it tells whether this is one.
_LOCK = 8031453476610899968 + 66


def plan(definitions: Definitions, *, prune: bool = False, force: bool = False) -> Operation[Plan]:
    """What would have to be changed. Only reads.

    Args:
        prune: subscriptions and bindings that are not defined go.
        force: subscriptions go even if live workers run them, or they have dead letters.

    Raises:
        InvalidDeclaration: a definition is none; what contradicts the database is in the plan's `problems`.
    """
    check(definitions)
    found: dict[str, list[Change]] = {}
    for kind in KINDS:
        wanted = definitions.all_subscriptions if kind is subscriptions else getattr(definitions, kind.SECTION)
        found[kind.SECTION] = yield from kind.changes(wanted, prune, force)
    return Plan(changes=tuple(change for section in Definitions.__struct_fields__ for change in found.get(section, ())))


def apply(definitions: Definitions, *, prune: bool = False, force: bool = False) -> Operation[Plan]:
    """Bring the database to its definitions, all or nothing, and return what was changed.

    Must be the beginning of a READ COMMITTED transaction of the caller's, and not of an autocommit connection; does not
    commit. Others that apply wait until it is committed.

    Raises:
        InvalidDeclaration: a definition is none, or contradicts what exists; nothing was changed.
        NotOwnTransaction: the transaction wrote before, or is none.
    """
    check(definitions)
    yield Statement("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    rows = yield Statement(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() "
        "AND (classid::bigint << 32) + objid::bigint = %s)",
        (_LOCK,),
    )
    if not rows[0][0]:
        raise NotOwnTransaction("definitions are applied in one transaction: not on a connection in autocommit mode")
    planned = yield from plan(definitions, prune=prune, force=force)
    if planned.problems:
        raise InvalidDeclaration("nothing was changed: " + "; ".join(planned.problems))
    for kind in KINDS:
        yield from kind.apply([change for change in planned.pending if change.section == kind.SECTION])
    return planned


def export() -> Operation[Definitions]:
    """What the database holds, as definitions. Where cursors started is not known any more."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        found[kind.SECTION] = yield from kind.read()
    return Definitions(**found)
