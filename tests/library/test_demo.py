"""`outbox demo`: the whole story with real processes, and a ledger that adds up."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.shop_floor import PATIENCE, environment, outbox, wait_for


def test_the_demo_tells_its_story_on_an_embedded_postgres(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "outbox", "demo", "--rate", "60"],
        env=environment(""),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    waited = re.search(r"Accounting is back: (\d+) orders have waited", result.stdout)
    assert waited is not None
    assert int(waited[1]) > 20, "accounting was not down"
    taken, booked, mails, mailed, contacts = re.findall(r"\d+", ledger_line(result.stdout))
    assert int(taken) > int(waited[1])
    assert taken == booked == mails == mailed == contacts
    assert "nothing lost, nothing doubled" in result.stdout
    assert not list(tmp_path.glob(".outbox-demo/postgres/postmaster.pid")), "the server was left running"


def ledger_line(output: str) -> str:
    """The one row of the table below "the ledger"."""
    table = output.split("the ledger")[1].replace(",", "")
    return next(line for line in table.splitlines() if re.search(r"│\s+\d+", line))


def test_the_demo_refuses_a_database_that_is_in_use(one_database, tmp_path: Path) -> None:
    result = outbox("", "demo", "--database-url", one_database.url, folder=tmp_path)
    assert "the database holds the schema outbox" in result.stdout
    assert result.returncode == 1


def test_the_demo_that_is_stopped_during_the_outage_ends_in_good_order(empty_database, tmp_path: Path) -> None:
    """And messages that somebody published by hand, orders or not, do not disturb its ledger."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "outbox", "demo", "--keep-running", "--database-url", empty_database.url],
        env={**environment(""), "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: empty_database.value("SELECT to_regclass('shop_mail') IS NOT NULL"), "the shop's tables")
        wait_for(lambda: empty_database.value("SELECT count(*) FROM shop_mail") > 20, "mails")
        for order in ("{}", '{"id": 0, "customer": "me", "cents": 1}'):
            assert outbox(empty_database.url, "publish", "orders.placed", order).returncode == 0
        alive = "SELECT count(*) FROM outbox.worker WHERE retired_at IS NULL AND 'accounting' = ANY (subscriptions)"
        wait_for(lambda: empty_database.value(alive) == 0, "accounting down for its update")
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=PATIENCE)
    finally:
        demo.kill()
    assert demo.returncode == 0, output
    assert output.index("outbox dead list") < output.index("The site takes orders"), "the commands come first"
    assert "nothing lost, nothing doubled" in output
