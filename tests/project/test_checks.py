"""`.ci/tests.py` with tests named: what concerns one twin only passes, and what is nothing does not."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.native_only


def checked(tree: Path, test: str, folder: str = ".") -> tuple[int, str]:
    """The exit status and the output for one file with that test, in a folder of the tree."""
    (tree / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "tests.py", tree / ".ci")
    (tree / ".ci" / "allowed_skips.txt").touch()
    (tree / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["native_only", "pure_only"]\n')
    (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / folder / "test_it.py").write_text(f"import pytest\n\n{test}\n")
    command = [sys.executable, ".ci/tests.py", "--no-lint", f"{folder}/test_it.py"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mark", ["native_only", "pure_only"])
def test_tests_of_one_twin_pass(tmp_path: Path, mark: str) -> None:
    status, said = checked(tmp_path, f"@pytest.mark.{mark}\ndef test_it(): pass")
    assert (status, said.count("1 passed"), said.count("1 deselected")) == (0, 1, 1), said


def test_no_tests_at_all_are_a_mistake(tmp_path: Path) -> None:
    status, said = checked(tmp_path, "")
    assert status == 1
    assert "pure failed with exit status 5; native failed with exit status 5" in said


def test_a_failure_on_one_twin_is_one(tmp_path: Path) -> None:
    status, said = checked(tmp_path, "@pytest.mark.native_only\ndef test_it(): assert False")
    assert status == 1
    assert said.rstrip().endswith("native failed with exit status 1")


# Fails the first time.
UNSTEADY = """
TIMES = []
@pytest.mark.native_only
def test_it():
    TIMES.append(1)
    assert len(TIMES) > 1, "a moment too short"
"""


def test_one_that_fails_once_is_told_of(tmp_path: Path) -> None:
    status, said = checked(tmp_path, UNSTEADY)
    assert (status, said.count("1 passed, 1 rerun"), "a moment too short" in said) == (0, 1, True), said


def test_one_that_fails_once_has_failed_where_that_is_a_finding(tmp_path: Path) -> None:
    status, said = checked(tmp_path, UNSTEADY, "tests/native")
    assert (status, said.count("1 failed")) == (1, 1), said


def test_what_is_left_behind_is_a_finding_everywhere(tmp_path: Path) -> None:
    status, said = checked(tmp_path, UNSTEADY.replace("a moment too short", "it leaves behind: a batch"))
    assert (status, said.count("1 failed")) == (1, 1), said


def test_where_a_failure_is_a_finding_is_there() -> None:
    spec = importlib.util.spec_from_file_location("checks", ROOT / ".ci" / "tests.py")
    assert spec is not None
    assert spec.loader is not None
    checks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checks)
    assert checks.JUDGED_ONCE
    assert [path for path in checks.JUDGED_ONCE if not (ROOT / path).exists()] == []
