"""The pages of docs/: they are built without a warning, name what exists, and can be read everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastprod import config, partitioners, stats

from .pages import DOCS, PAGES, ROOT, tables_of

pytestmark = pytest.mark.native_only

PICTURES = sorted(DOCS.rglob("*.svg"))
# Of results and errors, not of options.
NO_OPTIONS = {"maybe_written", "throttled_ms", "p50_ms", "p99_ms", "timeout_ms", "timestamp_ms"}
# Pages that name other things, and what holds them.
OTHER_NAMES = {"api.md": "made from the docstrings", "migration.md": "options of other clients"}
# Tables of all options, which have a test each.
HELD_ELSEWHERE = {"README.md", "api.md"}
SOURCES = [path for path in sorted((ROOT / "fastprod").rglob("*.py")) if not {"cli", "testing"} & set(path.parts)]


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


@pytest.mark.parametrize("name", ["kafka.svg", "sink.svg"])
def test_measured_pictures_are_those_of_the_benchmarks(name: str) -> None:
    assert (DOCS / "pictures" / name).read_bytes() == (ROOT / "benchmarks" / "results" / name).read_bytes()


# What the tables say


def stated(written: str) -> object:
    """A default as a table has it: "30 s", "1,000,000 bytes", "no bound", `"all"`."""
    word = written.split(":")[0].strip("`")
    if number := re.fullmatch(r"(-?[\d,]+)( bytes| ms| s)?", word):
        return int(number[1].replace(",", "")) * (1000 if number[2] == " s" else 1)
    return {"no bound": float("inf"), '"all"': -1, "True": True, "None": None}.get(word, word.strip('"'))


def test_defaults_in_tables_are_those_of_the_code() -> None:
    defaults = config.default_config()
    told: list[tuple[str, str, object]] = []
    for page in PAGES:
        for row in [row for table in tables_of(page) for row in table.rows]:
            # Of a table that compares, the column of ours.
            default = row.get("Default here", row.get("Default", ""))
            option = row.get("fastprod", row.get("Here", row.get("Option", "")))
            names = [name for name in re.findall(r"`([a-z_]+)`", option) if name in defaults]
            values = re.split(r", (?=\d)| and ", default) if len(names) > 1 else [default]
            if names and default and page.name not in HELD_ELSEWHERE and names != ["socket_options"]:
                told += [(page.name, name, stated(value)) for name, value in zip(names, values, strict=True)]
    assert len(told) > 30
    assert [each for each in told if defaults[each[1]] != each[2]] == []


def cells(page: str, heading: str, column: str) -> list[str]:
    """What the tables under a heading have in a column."""
    rows = [row for table in tables_of(DOCS / page) if table.heading == heading for row in table.rows]
    found = [row[column] for row in rows if column in row]
    assert found
    return found


def test_loggers_it_names_are_those_of_the_code() -> None:
    used = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'(?:getLogger|Journal)\("([\w.]+)"\)', text))
        if "getLogger(__name__)" in text:
            used.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    told = {name for cell in cells("operations.md", "Logging", "Logger") for name in re.findall(r"`([\w.]+)`", cell)}
    assert told == used


def test_figures_to_watch_are_there() -> None:
    below = {"brokers": stats.BrokerStats, "topics": stats.TopicStats}
    for cell in cells("operations.md", "stats()", "Where"):
        for path in cell.strip("`").split(" / "):
            kind: type = stats.ProducerStats
            for name in re.sub(r"\[\w+\]", "", path).split("."):
                assert hasattr(kind, name), path
                kind = below.get(name, stats.Tally)


def test_partitioners_it_names_are_there() -> None:
    named = {name for cell in cells("migration.md", "From confluent-kafka", "The same here")
             for name in re.findall(r'`"(\w+)"`', cell)}
    assert {"default", "crc32"} <= named <= set(partitioners.MODES)


def test_groups_of_metrics_are_there() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    for cell in cells("operations.md", "metrics()", "Group"):
        assert f'"{re.match(r"`([a-z-]+[.]?)", cell)[1]}"' in text, cell  # type: ignore[index]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_variables_it_names_are_read(page: Path) -> None:
    folders = ("fastprod", "tests", "benchmarks", ".ci")
    readers = [ROOT / "setup.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    text = "".join(path.read_text(encoding="utf-8") for path in readers)
    named = set(re.findall(r"\bFASTPROD_[A-Z0-9_]+", page.read_text(encoding="utf-8")))
    assert {name for name in named if not re.search(rf"\b{name}\b", text)} == set()
