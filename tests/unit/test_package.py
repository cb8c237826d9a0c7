"""What a machine gets that has nothing but the source distribution, and no compiler."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fastprod import __version__

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    f"fastprod/{path.relative_to(ROOT / 'fastprod').as_posix()}"
    for pattern in ("*.py", "*.pyx", "*.pxi", "*.h", "*.map", "*.pyi", "py.typed", "DESIGN.md")
    for path in (ROOT / "fastprod").rglob(pattern)
}
# One run will do: what is built does not depend on the twin that the tests run on.
pytestmark = pytest.mark.native_only


def run(*command: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", str(folder), str(ROOT), cwd=folder)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def pure_wheel(sdist: Path) -> Path:
    """Built where neither a compiler nor anything else is on the PATH. pip keeps a copy of it."""
    folder = sdist.parent / "wheel"
    nothing = sdist.parent / "nothing"
    nothing.mkdir()
    missing = str(nothing / "no-such-compiler")
    output = run(
        *(sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", str(folder), "--no-binary", "fastprod",
          f"fastprod=={__version__}"),
        cwd=sdist.parent, PATH=str(nothing), CC=missing, CXX=missing, FASTPROD_REQUIRE_NATIVE="",
        PIP_FIND_LINKS=str(sdist.parent), PIP_CACHE_DIR=str(sdist.parent / "cache"),
    )
    assert "pure-Python twin" in output
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_source_distribution_is_whole(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert inside >= SOURCES
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= inside
    # cibuildwheel builds from it, and runs what is in these.
    beside = [path for pattern in (".ci/*.*", "tests/**/*.py") for path in ROOT.glob(pattern)]
    assert {path.relative_to(ROOT).as_posix() for path in beside} <= inside
    assert not {name for name in inside if name.endswith((".cpp", ".so", ".pyc"))}


def test_a_wheel_holds_what_runs_and_nothing_else(pure_wheel: Path) -> None:
    with zipfile.ZipFile(pure_wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {name for name in SOURCES if not name.endswith((".pyx", ".pxi", ".h", ".map"))}


def test_without_a_compiler_it_is_pure_and_says_so(pure_wheel: Path) -> None:
    place = pure_wheel.parent / "installed"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(place), str(pure_wheel), cwd=place.parent)
    program = place.parent / "program.py"
    program.write_text("from fastprod import KafkaProducer, backend\nprint(backend)\n", encoding="ascii")
    elsewhere = {"PYTHONPATH": str(place), "FASTPROD_BACKEND": ""}
    # -S: what is installed beside the tests is not there.
    said = run(sys.executable, "-S", str(program), cwd=place.parent, **elsewhere)
    assert said.count("RuntimeWarning: fastprod runs on its pure-Python twin") == 1
    assert f"{program}:1" in said, "the warning points at the import in the program"
    assert said.splitlines()[-1] == "pure"
    command = re.search(r"run `(pip install .*?)` \(from", said)
    assert command is not None
    assert command[1] in (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    pip_builds_it_again(command[1], place.parent.parent)
    version = run(sys.executable, "-S", "-m", "fastprod", "--version", cwd=place.parent, **elsewhere)
    assert "pure" in version
    assert "C++ compiler" in version


def pip_builds_it_again(command: str, folder: Path) -> None:
    """The command that the warning names compiles; it does not find what pip built without a compiler."""
    missing = str(folder / "no-such-compiler")
    variables = {
        "PATH": str(folder), "CC": missing, "CXX": missing, "FASTPROD_REQUIRE_NATIVE": "1",
        "PIP_FIND_LINKS": str(folder), "PIP_CACHE_DIR": str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "--no-deps", "--target", str(folder / "again")],
        env={**os.environ, **variables}, capture_output=True, text=True,
    )
    assert done.returncode != 0
    assert "FASTPROD_REQUIRE_NATIVE=1, but extensions cannot be built here" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def any_wheel(sdist: Path) -> Path:
    """The pure wheel that is published, built from the source distribution."""
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.0 to 3.11.3
        archive.extractall(sdist.parent)
    folder = sdist.parent / "any"
    command = ("pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder))
    run(sys.executable, "-m", *command, str(sdist.with_suffix("").with_suffix("")), cwd=sdist.parent,
        FASTPROD_PURE="1", FASTPROD_REQUIRE_NATIVE="")
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_pure_wheel_is_for_every_python(any_wheel: Path) -> None:
    assert any_wheel.name.endswith("-py3-none-any.whl")
    said = run(sys.executable, str(ROOT / ".ci" / "check_wheel.py"), "--published", str(any_wheel), cwd=ROOT)
    assert said == f"{any_wheel.name}: {any_wheel.stat().st_size} bytes\n"


def test_few_packages_come_along(any_wheel: Path) -> None:
    report = any_wheel.parent / "report.json"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report),
        str(any_wheel), cwd=any_wheel.parent)
    names = [each["metadata"]["name"] for each in json.loads(report.read_text(encoding="utf-8"))["install"]]
    assert "fastprod" in names
    assert len(names) <= 4
