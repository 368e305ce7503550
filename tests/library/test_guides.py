"""The code blocks of the guides in docs/ run. Blocks tagged `py` are other libraries' code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.library.test_readme import Reader
from tests.shop_floor import ROOT, Database

GUIDES = [
    "requests.md",
    "coming-from.md",
    "routing.md",
    "flow.md",
    "retention.md",
    "reading.md",
    "partitions.md",
    "capture.md",
    "dramatiq.md",
    "tracing.md",
    "capacity.md",
    "scaling.md",
    "../grafana/README.md",
]

TABLES = """
CREATE TABLE prices (sku text PRIMARY KEY, price numeric); INSERT INTO prices VALUES ('A1', 9.90);
CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE receipts (order_id int);
SELECT outbox.subscribe('dashboard');
CREATE TABLE customers (id int PRIMARY KEY, name text, city text, notes text)
"""


def blocks(guide: str) -> list[tuple[str, str]]:
    text = (ROOT / "docs" / guide).read_text()
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if language != "py"]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_block_of_a_guide_runs(one_database: Database, tmp_path: Path, guide: str) -> None:
    one_database.execute(TABLES)
    reader = Reader(one_database, tmp_path)
    try:
        for language, block in blocks(guide):
            reader.do(language, block)
    finally:
        reader.close()


@pytest.mark.parametrize("guide", GUIDES)
def test_every_link_of_a_guide_leads_somewhere(guide: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "docs" / guide).read_text()):
        assert ((ROOT / "docs" / guide).parent / target).exists(), target
