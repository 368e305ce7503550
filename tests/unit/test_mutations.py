"""The deliberate faults are in the engine as it is, and in the table of tests/README.md."""

import pytest

from tests.mutations import MUTATIONS, Mutation
from tests.shop_floor import ROOT

README = (ROOT / "tests" / "README.md").read_text()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_deliberate_fault_is_one_change_and_names_its_test(mutation: Mutation) -> None:
    text = (ROOT / "migrations" / "functions" / mutation.file).read_text()
    assert text.count(mutation.old) == 1
    file, _, name = mutation.caught_by.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text()
    assert f"| {mutation.name} | `{mutation.file}` | [{name}]({file}) |" in README
