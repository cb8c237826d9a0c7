"""What the micro-benchmarks share: the implementations that stand beside each other."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

TWINS = {"native": "fastprod._core", "pure": "fastprod._pure"}


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """Either data plane, imported directly: both can live in one process, so one run compares them."""
    if request.param == "native":
        return pytest.importorskip(TWINS["native"], reason="the compiled extension was not built")
    return importlib.import_module(TWINS["pure"])
