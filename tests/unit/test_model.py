"""Message ids as text, and what the package says of itself."""

import re

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from hypothesis import given
from hypothesis import strategies as st

from outbox import MessageId, ddl
from outbox.pace import Pace
from outbox.version import SCHEMA_VERSION


@given(st.integers(1, 2**31), st.integers(1, 2**63))
def test_an_id_is_read_as_it_was_printed(partition_id: int, offset: int) -> None:
    id = MessageId(partition_id, offset)
    assert MessageId.parse(str(id)) == id


@pytest.mark.parametrize("text", ["", "1", "-", "1-", "-1", "a-1", "1-1-1", "1--1", " 1-1"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a message id"):
        MessageId.parse(text)


def test_the_package_knows_its_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(ddl.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION


def test_every_sql_file_is_used_by_a_migration() -> None:
    versions = "".join(path.read_text() for path in (ddl.MIGRATIONS / "versions").glob("*.py")).split()
    for kind in ("tables", "functions", "views"):
        for path in (ddl.MIGRATIONS / kind).iterdir():
            assert path.stem in {word.strip('"') for word in versions}, f"{path} is in no migration"


def test_every_function_says_what_it_does() -> None:
    for path in (ddl.MIGRATIONS / "functions").iterdir():
        text = path.read_text()
        assert text.startswith("-- "), f"{path.name} has no header"
        assert len(re.findall(r"^CREATE (?:OR REPLACE )?FUNCTION outbox\.", text, re.M)) == 1, (
            f"{path.name} holds more than one function"
        )


def test_a_fast_handler_gets_much_at_once_and_a_slow_one_little() -> None:
    fast, slow = Pace(1, None), Pace(4, None)
    assert (fast.in_hand, fast.chunk) == (2, 1)
    fast.note(1, 0.000_005)
    slow.note(1, 2.0)
    assert fast.in_hand >= 1000
    assert fast.chunk >= 500
    assert (slow.in_hand, slow.chunk) == (8, 1)


def test_a_prefetch_that_was_asked_for_is_kept() -> None:
    pace = Pace(1, 3)
    pace.note(1000, 0.001)
    assert pace.in_hand == 3
