"""What a machine gets that has nothing but the source distribution, and no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    f"fastprod/{path.relative_to(ROOT / 'fastprod').as_posix()}"
    for pattern in ("*.py", "*.pyx", "*.pxi", "*.h", "*.pyi", "py.typed", "DESIGN.md")
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
    """Built where neither a compiler nor anything else is on the PATH."""
    folder = sdist.parent / "wheel"
    nothing = sdist.parent / "nothing"
    nothing.mkdir()
    missing = str(nothing / "no-such-compiler")
    output = run(
        *(sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", str(folder), str(sdist)),
        cwd=sdist.parent, PATH=str(nothing), CC=missing, CXX=missing, FASTPROD_REQUIRE_NATIVE="",
    )
    assert "pure-Python twin" in output
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_source_distribution_is_whole(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert inside >= SOURCES
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py"} <= inside
    assert not {name for name in inside if name.endswith((".cpp", ".so", ".pyc"))}


def test_a_wheel_holds_what_runs_and_nothing_else(pure_wheel: Path) -> None:
    with zipfile.ZipFile(pure_wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {name for name in SOURCES if not name.endswith((".pyx", ".pxi", ".h"))}


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
    version = run(sys.executable, "-S", "-m", "fastprod", "--version", cwd=place.parent, **elsewhere)
    assert "pure" in version
    assert "C++ compiler" in version


def test_with_native_required_it_is_an_error(sdist: Path) -> None:
    missing = str(sdist.parent / "no-such-compiler")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(sdist.parent / "none"), str(sdist)],
        env={**os.environ, "PATH": str(sdist.parent), "CC": missing, "CXX": missing, "FASTPROD_REQUIRE_NATIVE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "FASTPROD_REQUIRE_NATIVE=1, but extensions cannot be built here" in done.stdout + done.stderr
