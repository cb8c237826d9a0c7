"""The table of changes that the tests were seen to fail with stays true of the code, and README.md of the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .mutations import ALL, Mutation

HERE = Path(__file__).resolve().parent
PRODUCT = HERE.parents[1] / "fastprod"
README = (HERE / "README.md").read_text(encoding="ascii")

pytestmark = pytest.mark.native_only


@pytest.mark.parametrize("mutation", ALL, ids=lambda each: f"{each.item}-{each.file}")
def test_what_a_mutation_changes_is_in_the_code(mutation: Mutation) -> None:
    if not PRODUCT.is_dir():
        pytest.skip("the tests of an installed package, without its source")
    text = (PRODUCT / mutation.file).read_text(encoding="ascii")
    assert text.count(mutation.old) == 1
    assert f"| {mutation.item} |" in README


def test_every_test_of_the_table_is_there() -> None:
    written = "".join(each.read_text(encoding="ascii") for each in HERE.glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", README):
        assert re.search(rf"def {name}\b", written), name


def test_every_item_has_its_row() -> None:
    items = {int(item) for item in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert items == {*range(1, 61), 74} == {each.item for each in ALL}
