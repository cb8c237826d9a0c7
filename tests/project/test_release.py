"""Version, changelog and tag agree before anything is published; and the recipe says how."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "release.py"
pytestmark = pytest.mark.native_only


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a release is judged by, ready to be released as v7.8.9."""
    (tmp_path / "fastprod").mkdir()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "release.py").write_text(SCRIPT.read_text(encoding="ascii"), encoding="ascii")
    (tmp_path / "fastprod" / "_version.py").write_text('"""One."""\n\n__version__ = "7.8.9"\n', encoding="ascii")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [7.8.9] - 2026-12-01\n\n## [7.8.8] - 2026-11-01\n")
    return tmp_path


def judged(tree: Path, tag: str) -> tuple[int, str]:
    command = [sys.executable, str(tree / ".ci" / "release.py"), tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_tree_that_agrees_may_be_released(tree: Path) -> None:
    assert judged(tree, "v7.8.9") == (0, "v7.8.9 may be released\n")


@pytest.mark.parametrize("tag", ["7.8.9", "v7.8.8", "v7.8.90", ""])
def test_the_tag_must_be_that_of_the_version(tree: Path, tag: str) -> None:
    status, said = judged(tree, tag)
    assert status == 1
    assert "the tag must be v7.8.9" in said


@pytest.mark.parametrize("heading", ["## [7.8.9] - unreleased", "## [7.9.0] - 2026-12-01", "## 7.8.9"])
def test_the_changelog_must_name_the_version_and_a_date(tree: Path, heading: str) -> None:
    (tree / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    status, said = judged(tree, "v7.8.9")
    assert status == 1
    assert "CHANGELOG.md" in said


def test_this_tree_lacks_nothing_but_perhaps_the_date() -> None:
    version = re.search(r'"(.+)"$', (ROOT / "fastprod" / "_version.py").read_text(encoding="ascii").strip())
    assert version is not None
    status, said = judged(ROOT, f"v{version[1]}")
    lines = said.splitlines()
    assert status == 0 or [line for line in lines if "dated 'unreleased'" not in line] == []


def test_the_recipe_has_five_steps_and_names_what_it_is_about() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = text.partition("## Release")[2].partition("\n## ")[0]
    assert re.findall(r"^(\d)\. ", recipe, re.MULTILINE) == list("12345")
    for named in ("fastprod/_version.py", "CHANGELOG.md", ".ci/release.py", ".github/workflows/wheels.yml"):
        assert named in recipe
        assert (ROOT / named).is_file()
