"""The pages of docs/: they are built without a warning, name what exists, and can be read everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastprod import config

from .pages import DOCS, PAGES, ROOT

pytestmark = pytest.mark.native_only

PICTURES = sorted(DOCS.rglob("*.svg"))
# Of results and errors, not of options.
NO_OPTIONS = {"maybe_written", "throttled_ms", "p50_ms", "p99_ms", "timeout_ms", "timestamp_ms"}
# Pages that name other things, and what holds them.
OTHER_NAMES = {"api.md": "made from the docstrings", "migration.md": "options of other clients"}


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What the README says, in a folder with mkdocs.yml."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Which is: every page is in the nav, and no link, anchor or picture leads nowhere."""
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout
    assert all((tmp_path / f"{page.stem}.html").is_file() for page in PAGES if page.parent == DOCS)


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    """It is none with --quiet."""
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    page = tmp_path / "docs" / "index.md"
    page.write_text(page.read_text(encoding="utf-8").replace("errors.md#kafka", "errors.md#no"), encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "does not contain an anchor '#notimeouterror'" in done.stdout


@pytest.mark.parametrize("page", [*PAGES, *PICTURES], ids=lambda page: page.name)
def test_it_is_ascii(page: Path) -> None:
    assert page.read_text(encoding="utf-8").isascii()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent == DOCS and page.name not in OTHER_NAMES],
    ids=lambda page: page.name,
)
def test_options_it_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+_ms)\b", text)) | set(re.findall(r"`([a-z]+(?:_[a-z]+)+)=[^`]+`", text))
    assert named - NO_OPTIONS <= set(config.default_config())


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_is_shown_and_says_what_it_shows(picture: Path) -> None:
    """To who cannot see it as well. On a dark page it has colours of its own, or its own ground."""
    shown = re.compile(rf"!\[[^\]]+\]\({re.escape(picture.relative_to(DOCS).as_posix())}\)")
    assert any(shown.search(page.read_text(encoding="utf-8")) for page in PAGES)
    drawn = picture.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in drawn or '<rect width="100%" height="100%" fill="#fff"/>' in drawn
