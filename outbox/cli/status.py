"""`outbox status`: how things stand, once or again and again."""

from __future__ import annotations

import time
from typing import Annotated

import psycopg
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from outbox import connection as connections
from outbox import operations
from outbox import status as status_of
from outbox.cli.options import DatabaseUrl, Json, console, print_json
from outbox.database import libpq_url
from outbox.status import ActorStatus, Status, SubscriptionStatus


def status(
    database_url: DatabaseUrl,
    json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks, with --watch.")] = 1.0,
) -> None:
    """Show topics, subscriptions (lag, in flight, retrying, dead), actors of dramatiq and workers."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as connection:
        connections.run(operations.check_schema(), connection)
        if json:
            print_json(connections.run(status_of.status(), connection))
        elif not watch:
            console.print(render(connections.run(status_of.status(), connection)))
        else:
            _watch(connection, interval)


def _watch(connection: psycopg.Connection, interval: float) -> None:
    with Live(console=console, auto_refresh=False) as live:
        try:
            while True:
                live.update(render(connections.run(status_of.status(), connection)), refresh=True)
                time.sleep(interval)
        except KeyboardInterrupt:
            return


def render(status: Status) -> RenderableType:
    """All tables; those of actors and of relays only if there are any."""
    actors = [actors_table(status.actors)] if status.actors else []
    tables = [topics_table(status), subscriptions_table(status.subscriptions), *actors, workers_table(status)]
    tables += [relays_table(status)] if status.relays else []
    to_come = [Text(f"{status.scheduled:,} to come: `outbox scheduled list`")] if status.scheduled else []
    return Group(*tables, *to_come)


def topics_table(status: Status) -> Table:
    table = _table("topics", "topic", "partitions", "offsets", "subscriptions")
    for topic in status.topics:
        unread = (
            Text("nobody reads it", style="yellow") if not topic.subscriptions else Text(f"{topic.subscriptions:,}")
        )
        table.add_row(topic.name, f"{topic.partitions:,}", f"{topic.offsets:,}", unread)
    return table


def subscriptions_table(subscriptions: list[SubscriptionStatus]) -> Table:
    wide = [] if console.width < 105 else ["reads", "guarantee"]
    table = _table("subscriptions", "subscription", *wide, "lag", "in flight", "retrying", "dead", "workers")
    for one in subscriptions:
        table.add_row(
            Text.assemble(one.name, (" paused", "yellow") if one.paused else "", _lost(one)),
            *((", ".join(one.patterns), one.guarantee) if wide else ()),
            _number(one.lag, "yellow"),
            _number(one.in_flight),
            _number(one.retrying, "yellow"),
            _number(one.dead, "red"),
            _number(one.workers) if one.workers else Text("none", style="red"),
        )
    return table


def _lost(one: SubscriptionStatus) -> str | tuple[str, str]:
    return (f" lost {one.lost:,}: `outbox retention lost`", "red") if one.lost else ""


def actors_table(actors: list[ActorStatus]) -> Table:
    table = _table("actors of dramatiq", "queue", "actor", "waiting", "in flight", "retrying", "delayed", "dead")
    for one in actors:
        table.add_row(
            one.queue,
            one.name,
            _number(one.waiting, "yellow"),
            _number(one.in_flight),
            _number(one.retrying, "yellow"),
            _number(one.delayed),
            _number(one.dead, "red"),
        )
    return table


def workers_table(status: Status) -> Table:
    table = _table("workers", "worker", "name", "runs", "state", "age")
    for one in status.workers:
        state = Text("alive", style="green") if one.alive else Text(f"dead for {one.overdue:.0f} s", style="red")
        table.add_row(str(one.id), one.name, ", ".join(one.subscriptions), state, f"{one.age:,.0f} s")
    return table


_NUMERIC = {
    "partitions", "offsets", "lag", "in flight", "retrying", "dead", "workers", "age", "waiting", "delayed",
    "delivered", "failed",
}  # fmt: skip


def relays_table(status: Status) -> Table:
    table = _table("relays and sources", "relay", "process", "leads to", "state", "age", "delivered", "failed")
    for one in status.relays:
        state = Text(one.state, style="green" if one.state == "closed" else "red")
        state.append(f" {one.reason}" if one.reason else "", style="yellow")
        failed = _number(one.failed, "yellow")
        table.add_row(one.name, one.process, one.target, state, f"{one.age:,.0f} s", f"{one.delivered:,}", failed)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", expand=False)
    for column in columns:
        numeric = column in _NUMERIC
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    return table


def _number(value: int, style: str = "") -> Text:
    return Text(f"{value:,}", style=style if value else "")
