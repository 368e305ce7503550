"""The benchmark runs: a small one, in which every message is accounted for. What it measured is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

from tests.shop_floor import ROOT

SMALL = ["--rounds", "1", "--set", "messages=300", "--set", "seconds=1.5", "--set", "idle=0.2"]


def test_a_small_run_accounts_for_every_message(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    command = [sys.executable, "-m", "tests.benchmark", "W4-100", "W6", "--jsonl", str(file), *SMALL]
    command += ["--competitors", "outbox"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    records = [json.loads(line) for line in file.read_text().splitlines()]
    measured = {record["workload"]: record["measures"] for record in records}
    assert set(measured) == {"W4-100", "W6"}
    assert all(found["rate"] > 0 and found["doubled"] == 0 for found in measured.values())
    assert measured["W6"]["lost"] == measured["W6"]["made_up"] == 0
    assert "four publishers at full speed" in run.stdout
