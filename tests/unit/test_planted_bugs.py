"""The bugs that `tests/native/sanitize.py --planted` puts into a copy: planting needs the code that they replace."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


def test_each_can_be_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TESTS / "native")
    import sanitize

    monkeypatch.delitem(sys.modules, "sanitize")   # its name says little
    native = TESTS.parent / "fastprod" / "_native"
    found = {plant.name: (native / plant.file).read_text().count(plant.old) for plant in sanitize.PLANTS}
    assert found == dict.fromkeys(("overflow", "undefined", "leak", "race"), 1)
