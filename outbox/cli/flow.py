"""`outbox pause`, `resume`, `purge`: hold a subscription, let it go on, empty it."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox import operations
from outbox.cli.options import DatabaseUrl, run

Subscription = Annotated[str, typer.Argument(help="Its name.")]


def pause(database_url: DatabaseUrl, subscription: Subscription) -> None:
    """Let a subscription's workers get no more messages. What they have in hand goes on; nothing is lost."""
    changed = run(operations.pause(subscription), database_url)
    typer.echo(f"paused: {subscription}" if changed else f"it was paused before: {subscription}")


def resume(database_url: DatabaseUrl, subscription: Subscription) -> None:
    """Let a paused subscription go on."""
    changed = run(operations.resume(subscription), database_url)
    typer.echo(f"resumed: {subscription}" if changed else f"it was not paused: {subscription}")


def purge(
    database_url: DatabaseUrl,
    subscription: Subscription,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Drop what waits for a subscription, in the log and for another try. Other subscriptions keep theirs.

    What workers have in hand goes on, and dead letters stay: `outbox dead purge` deletes them.
    """
    if not yes:
        typer.confirm(f"drop all that waits for {subscription!r}?", abort=True)
    typer.echo(f"purged: {run(operations.purge(subscription), database_url)}")
