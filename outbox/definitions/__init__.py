"""Topics, subscriptions and schedules as code: in a TOML or YAML file, or in Python, and applied in one transaction.

from outbox.definitions import Definitions, Subscription, Topic, apply

everything = Definitions(
    topics={"orders.placed": Topic(partitions=4)},
    subscriptions={"mailer": Subscription(bindings=("orders.*",), rate=50)},
)

with psycopg.connect(url) as connection:
    print(apply(connection, everything))
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from outbox import connection as connections
from outbox import operations
from outbox.definitions import planning
from outbox.definitions.change import Change, Plan
from outbox.definitions.definition import Definitions, Schedule, Subscription, Topic
from outbox.definitions.files import parse, read, text
from outbox.definitions.relays import Relay, Secret, Source
from outbox.operations import Operation

__all__ = [
    "Change",
    "Definitions",
    "Plan",
    "Relay",
    "Schedule",
    "Secret",
    "Source",
    "Subscription",
    "Topic",
    "apply",
    "export",
    "parse",
    "plan",
    "read",
    "text",
]


def plan(connection: Any, definitions: Definitions, *, prune: bool = False, force: bool = False) -> Any:
    """Return the `Plan` that `apply` would carry out; await it if the connection is async. Only reads."""
    return _run(planning.plan(definitions, prune=prune, force=force), connection)


def apply(connection: Any, definitions: Definitions, *, prune: bool = False, force: bool = False) -> Any:
    """Bring the database to its definitions and return the `Plan`; await it if the connection is async.

    Runs in the caller's transaction, which it must begin, at READ COMMITTED; does not commit. All or nothing. Applied
    again, it changes nothing.

    Args:
        prune: subscriptions and bindings that are not defined go.
        force: with prune: even those that live workers run, or that have dead letters.

    Raises:
        InvalidDeclaration: a definition is none, or contradicts what exists; nothing was changed.
        NotOwnTransaction: the transaction wrote before, or the connection is in autocommit mode.
    """
    return _run(planning.apply(definitions, prune=prune, force=force), connection)


def export(connection: Any) -> Any:
    """Return what the database holds as `Definitions`; await it if the connection is async."""
    return _run(planning.export(), connection)


def _run(operation: Operation[Any], connection: Any) -> Any | Awaitable[Any]:
    checked = _on_checked_schema(operation)
    return (
        connections.run_async(checked, connection)
        if connections.is_async(connection)
        else connections.run(checked, connection)
    )


def _on_checked_schema(operation: Operation[Any]) -> Operation[Any]:
    yield from operations.check_schema()
    return (yield from operation)
