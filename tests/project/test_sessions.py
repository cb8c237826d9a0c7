"""What the sessions of nox install and run, seen without nox: where that goes wrong is a machine that is not here."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from .test_workflows import WORKFLOWS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "fastprod-1.0.tar.gz"
PURE = "fastprod-1.0-py3-none-any.whl"
pytestmark = pytest.mark.native_only


class Session:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.posargs: list[str] = []
        self.installed: list[tuple[str, ...]] = []
        self.ran: list[tuple[str, ...]] = []

    def install(self, *packages: str, env: dict[str, str] | None = None) -> None:
        self.installed.append(packages)

    def run(self, *command: str, env: dict[str, str] | None = None) -> None:
        self.ran.append(command)

    def create_tmp(self) -> str:
        return "tmp"

    def chdir(self, folder: str) -> None:
        """The next command runs there."""

    @property
    def names(self) -> set[str]:
        """What is installed from a package index."""
        words = [word for packages in self.installed for word in packages if not word.startswith(("-", "."))]
        return {Requirement(word).name for word in words}


@pytest.fixture
def noxfile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """It, in a checkout where both distributions lie in dist/."""
    nox: Any = ModuleType("nox")
    nox.session = lambda function: function
    nox.Session = Session
    nox.options = SimpleNamespace()
    nox.project = SimpleNamespace(load_toml=lambda name: tomllib.loads((ROOT / name).read_text(encoding="utf-8")))
    monkeypatch.setitem(sys.modules, "nox", nox)
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "dist").mkdir()
    for name in (SOURCE, PURE):
        (tmp_path / "dist" / name).touch()
    module.ROOT = tmp_path
    return module


def sessions_beyond_linux() -> set[str]:
    """Those of the jobs that have a runner with another system."""
    found = set()
    for workflow in WORKFLOWS.values():
        for job in workflow["jobs"].values():
            runners = job.get("strategy", {}).get("matrix", {}).get("runner", [job["runs-on"]])
            if not all(runner.startswith("ubuntu") for runner in runners):
                commands = [step["run"].split() for step in job["steps"] if "run" in step]
                found |= {name for words in commands if words[0] == "nox" for name in words[2:]}
    return found


def test_windows_and_macos_need_nothing_that_is_for_linux(noxfile: Any) -> None:
    assert sessions_beyond_linux() == {"wheels"}
    session = Session()
    noxfile.wheels(session)
    assert session.names == {"cibuildwheel"}


def test_wheels_are_built_from_the_source_distribution(noxfile: Any) -> None:
    for name in ("wheels", "pure_wheel"):
        session = Session()
        getattr(noxfile, name)(session)
        (command,) = session.ran
        assert Path(command[-1]).name == SOURCE


def test_what_is_published_is_complete(noxfile: Any) -> None:
    session = Session()
    noxfile.check_dist(session)
    assert session.ran[-1][:3] == ("python", ".ci/check_wheel.py", "--complete")
    assert [Path(wheel).name for wheel in session.ran[-1][3:]] == [PURE]


def test_a_new_python_needs_no_packages_but_those_of_the_tests(noxfile: Any) -> None:
    session = Session()
    noxfile.next_cpython(session)
    assert session.names == {"hypothesis", "pytest", "pytest-timeout"}
    assert ("--no-deps", ".") in session.installed
    assert str(noxfile.ROOT / "tests" / "parity") in session.ran[-1]
