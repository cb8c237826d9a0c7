"""How the runs on other Pythons are judged: nothing that did not run may count as passed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
# It does not depend on the twin that the tests run on.
pytestmark = pytest.mark.native_only

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_good"/>
<testcase classname="tests.a" name="test_bad"><failure message="assert 1 == 2">E assert 1 == 2</failure></testcase>
<testcase classname="tests.a" name="test_broken"><error message="failed on setup">E ValueError</error></testcase>
<testcase classname="" name="tests.b"><error message="collection failure">
E ModuleNotFoundError: No module named 'kafka.errors'</error></testcase>
<testcase classname="tests.c" name="test_frame"><skipped message="could not import 'pyarrow': no"/></testcase>
<testcase classname="tests.c" name="test_other">
<failure message="ModuleNotFoundError: No module named 'fastprod._core'"/></testcase>
<testcase classname="tests.c" name="test_idle"><skipped message="not on this platform"/></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def pythons(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    return importlib.import_module("pythons")


def test_what_did_not_run_is_told_from_what_failed(pythons: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    outcome = pythons.judged(None, "native", report, {"kafka-python", "pyarrow"})
    assert outcome.passed == 1
    assert outcome.failed == ["tests.a::test_bad", "tests.a::test_broken", "tests.c::test_other"]
    assert outcome.without == {"kafka-python": ["tests.b"], "pyarrow": ["tests.c::test_frame"]}
    assert outcome.skipped == ["tests.c::test_idle"]


def test_a_missing_module_is_a_failure_where_its_package_was_to_be_had(pythons: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    outcome = pythons.judged(None, "native", report, set())
    assert "tests.b" in outcome.failed
    assert not outcome.without


def test_a_run_without_a_report_has_failed(pythons: ModuleType, tmp_path: Path) -> None:
    assert pythons.judged(None, "native", tmp_path / "none.xml", set()).failed


def test_the_pure_wheel_is_not_asked_for_the_native_twin(pythons: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    outcome = pythons.judged(None, "pure", report, {pythons.NATIVE_TWIN})
    assert outcome.failed == ["tests.a::test_bad", "tests.a::test_broken", "tests.b"]
    assert outcome.without == {"the native twin": ["tests.c::test_other"]}
