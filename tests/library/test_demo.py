"""`outbox demo`: the whole story with real processes, and a ledger that adds up."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.shop_floor import environment, wait_for


def test_the_demo_tells_its_story_on_an_embedded_postgres(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "outbox", "demo", "--rate", "60"],
        env=environment(""),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    waited = re.search(r"Accounting is back: (\d+) orders have waited", result.stdout)
    assert waited is not None
    assert int(waited[1]) > 50, "accounting was not down"
    taken, booked, mails, mailed, contacts = re.findall(r"\d+", ledger_line(result.stdout))
    assert int(taken) > 300
    assert taken == booked == mails == mailed == contacts
    assert "nothing lost, nothing doubled" in result.stdout
    assert not list(tmp_path.glob(".outbox-demo/postgres/postmaster.pid")), "the server was left running"


def ledger_line(output: str) -> str:
    """The one row of the table below "the ledger"."""
    table = output.split("the ledger")[1].replace(",", "")
    return next(line for line in table.splitlines() if re.search(r"│\s+\d+", line))


def test_the_demo_that_keeps_running_ends_in_good_order(one_database, tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "outbox", "demo", "--keep-running", "--database-url", one_database.url],
        env={**environment(""), "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: one_database.value("SELECT to_regclass('shop_mail') IS NOT NULL"), "the shop's tables")
        wait_for(lambda: one_database.value("SELECT count(*) FROM shop_mail") > 20, "mails")
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 0, output
    assert "nothing lost, nothing doubled" in output
