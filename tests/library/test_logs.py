"""A worker's log as JSON: for a collector, with the same fields and the same discretion as the text."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from outbox.logs import JsonLines
from tests.library.workshop import PREAMBLE, publish
from tests.shop_floor import Database, WorkerProcess, wait_for

APP = f"""{PREAMBLE}
@app.subscribe("s", "t", retries=Retries(max_attempts=1))
def handle(message):
    raise ValueError("secret")
"""


@pytest.mark.parametrize("how", ["option", "environment"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_each_line_is_json_with_the_ids_of_its_message(
    shop: Database, tmp_path: Path, how: str, processes: str
) -> None:
    publish(shop, "t", "a")
    arguments = ["--log-format", "json"] if how == "option" else []
    more = {"OUTBOX_LOG_FORMAT": "json"} if how == "environment" else {}
    process = WorkerProcess(shop.url, tmp_path, APP, "--processes", processes, *arguments, more=more)
    try:
        wait_for(lambda: shop.value("SELECT count(*) FROM outbox.dead_letter") == 1, "a dead letter")
        assert process.stop() == 0
    finally:
        process.kill()
    lines = [json.loads(line) for line in process.log.splitlines()]
    (dead,) = (line for line in lines if line["event"] == "dead letter")
    assert dead.pop("time").endswith("Z")
    assert dead.pop("cause").startswith("ValueError at app_under_test.py:")
    assert dead == {
        "level": "ERROR",
        "event": "dead letter",
        "subscription": "s",
        "message": "1-1",
        "topic": "t",
        "attempt": 1,
        "reason": "attempts exhausted",
    }
    assert "secret" not in process.log


def test_passwords_are_kept_out_and_tracebacks_are_in() -> None:
    try:
        raise ValueError("postgresql://u:hidden@host/db")
    except ValueError as error:
        told = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("outbox", logging.ERROR, "", 0, "password=hidden", None, told)
    record.fields = {"reason": "postgresql://u:hidden@host/db", "count": 3, "nothing": None}
    line = JsonLines().format(record)
    assert "hidden" not in line
    found = json.loads(line)
    assert (found["count"], found["nothing"]) == (3, None)
    assert "Traceback" in found["traceback"]
