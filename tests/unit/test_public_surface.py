"""Public names, signatures and docstrings: the same on both twins, and complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastprod

# It looks at both twins, whichever is loaded.
pytestmark = pytest.mark.native_only

SCRIPT = Path(__file__).with_name("public_surface.py")
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="ascii")
Surface = dict[str, dict[str, Any]]
# What only fastprod makes, by calls of its own.
NOT_FOR_PROGRAMS = {"fastprod.FutureRecordMetadata.__init__", "fastprod.BatchFuture.__init__"}
UNIT = re.compile(r"\b(s|seconds|ms|milliseconds)\b")


def surface_of(backend: str) -> Surface:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env={**os.environ, "FASTPROD_BACKEND": backend}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: Surface = json.loads(done.stdout)
    return {name: each for name, each in found.items() if name not in NOT_FOR_PROGRAMS}


@pytest.fixture(scope="module")
def native() -> Surface:
    return surface_of("native")


@pytest.fixture(scope="module")
def pure() -> Surface:
    return surface_of("pure")


def words(surface: Surface, name: str) -> str:
    """All that is said of it: with what the classes above say of a method, and its class of a constructor."""
    of_class = surface[name.rpartition(".")[0]]["doc"] if name.endswith(".__init__") else ""
    return f"{surface[name]['doc']} {surface[name].get('above', '')} {of_class}"


def test_the_names_are_the_same(native: Surface, pure: Surface) -> None:
    assert sorted(native) == sorted(pure)
    assert {"fastprod.KafkaProducer.send", "fastprod.FutureRecordMetadata.is_done", "fastprod.testing.Tap"} <= set(pure)
    # What no __all__ names.
    assert {"fastprod.types.UndeliveredRecord", "fastprod.stats.LatencyHistogram.p99_ms"} <= set(pure)


@pytest.mark.parametrize("what", ["kind", "doc", "parameters", "fields"])
def test_both_twins_tell_the_same(what: str, native: Surface, pure: Surface) -> None:
    different = {
        name: (each.get(what), pure[name].get(what))
        for name, each in native.items()
        if name in pure and each.get(what) != pure[name].get(what)
    }
    assert different == {}


def test_everything_has_a_docstring(pure: Surface) -> None:
    assert [name for name, each in pure.items() if not each.get("doc", "nothing can be said of a value")] == []


def test_parameters_and_fields_are_told_of(pure: Surface) -> None:
    """Those of the producer. (What is for tests alone says so by names and annotations.)"""
    missing = []
    for name, each in pure.items():
        asked = [one for one, kind, _ in each.get("parameters", ()) if kind and not kind.startswith("VAR_")]
        asked += each.get("fields", ())
        if not name.startswith("fastprod.testing"):
            missing += [(name, one) for one in asked if not re.search(rf"\b{one}\b", words(pure, name))]
    assert missing == []


def test_times_have_a_unit(pure: Surface) -> None:
    """In the name, or in words."""
    timed = [name for name, each in pure.items() if any(one == "timeout" for one, _, _ in each.get("parameters", ()))]
    assert "fastprod.KafkaProducer.flush" in timed
    assert [name for name in timed if not UNIT.search(words(pure, name))] == []


def test_what_is_raised_is_told(pure: Surface) -> None:
    raising = {name: each["raises"] for name, each in pure.items() if each.get("raises")}
    assert raising["fastprod.KafkaProducer.flush"] == ["KafkaTimeoutError"]
    assert [(name, one) for name, each in raising.items() for one in each if one not in words(pure, name)] == []


# The page


def test_the_reference_is_what_the_docstrings_tell() -> None:
    """Mend it with: python .ci/api_page.py --write"""
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "api_page.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inside = PAGE.partition("<!-- reference:begin -->")[2].partition("<!-- reference:end -->")[0]
    assert inside.strip() == done.stdout.strip()


def test_the_reference_names_everything(pure: Surface) -> None:
    """Classes and functions by a heading; errors have a page of their own."""
    headings = set(re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE))
    modules = {name for name, each in pure.items() if each["kind"] == "module"}
    own = {
        name.rpartition(".")[2]
        for name, each in pure.items()
        if each["kind"] == "class" or (each["kind"] == "method" and name.rpartition(".")[0] in modules)
        if not re.match(r"fastprod\.errors\.[A-Z]", name)
    }
    assert {"KafkaProducer", "close_on_sigterm", "UndeliveredRecord", "KafkaBroker", "for_code"} <= own
    assert own - headings == set()
    assert [name for name in fastprod.__all__ if not re.search(rf"`(fastprod\.)?{name}`", PAGE)] == []
