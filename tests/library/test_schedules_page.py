"""Every code block of docs/schedules.md runs, in the order in which it stands there."""

import re
from pathlib import Path

from tests.library.test_readme import Reader
from tests.shop_floor import ROOT, Database, outbox, wait_for

PAGE = (ROOT / "docs" / "schedules.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_block_of_the_page_on_schedules_runs(one_database: Database, tmp_path: Path) -> None:
    reader = Reader(one_database, tmp_path)
    try:
        for language, text in BLOCKS:
            if "outbox worker" in text:  # the commands after it speak of what it declares
                first, _, rest = text.partition("\n")
                reader.do(language, first)
                wait_for(lambda: one_database.value("SELECT count(*) FROM outbox.schedule") == 2, "the schedules")
                text = rest
            reader.do(language, text)
        wait_for(lambda: "nightly was due at" in (tmp_path / "worker-0.log").read_text(), "the handler of what ran now")
    finally:
        reader.close()
    assert one_database.value("SELECT array_agg(id ORDER BY id) FROM outbox.scheduled") == [2, 4]


def test_every_command_that_the_page_names_exists() -> None:
    for group, command in set(re.findall(r"outbox (schedules|scheduled) (\w[\w-]*)", PAGE)):
        assert outbox("", group, command, "--help").returncode == 0, command
