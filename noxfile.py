"""What there is to run on this project: `nox -l` lists it, `nox -s NAME` runs it, the workflows run nothing else.

Each session calls the script that does the work, in an environment that it makes: what is installed is what
pyproject.toml says. Words behind `--` go to the script.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "types", "test"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).resolve().parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CHECKS = ".ci/tests.py"
# One of each line of Kafka that is supported; tests/testing/test_releases.py has them as well.
RELEASES = ("2.8.2", "3.9.1", "4.3.1")
# What is run on each: whatever takes the broker it is given, and the three nodes that fail.
ON_A_RELEASE = ["tests/e2e/test_mixed_load.py", "tests/control/test_real_broker.py", "tests/cli/test_produce.py",
                "tests/chaos/test_chaos_run.py"]


def requirements(extra: str) -> Iterator[str]:
    """What an extra asks for, and those that it names."""
    for line in EXTRAS[extra]:
        if named := re.fullmatch(r"fastprod\[(.+)\]", line):
            for each in named[1].split(","):
                yield from requirements(each)
        else:
            yield line


def install(session: nox.Session, *packages: str) -> None:
    """Install packages, as the extra that names them first wants them."""
    every = [line for extra in EXTRAS for line in requirements(extra)]
    for package in packages:
        session.install(next(line for line in every if re.match(r"[\w-]+", line)[0] == package))


def install_fastprod(session: nox.Session, *extras: str) -> None:
    """Install the package, compiled, as users have it: the tests want it there."""
    session.install(f".[{','.join(extras or ['test'])}]", env={"FASTPROD_REQUIRE_NATIVE": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """ruff and cython-lint; zizmor and actionlint for the workflows."""
    install(session, "ruff", "cython-lint", "zizmor")
    session.run("python", CHECKS, "--only", "lint", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install(*PROJECT["dependencies"], *requirements("test"))
    session.run("python", CHECKS, "--only", "types", *session.posargs)


@nox.session
def test(session: nox.Session) -> None:
    """Everything .ci/tests.py has but lint and types, or the tests named: native and pure."""
    install_fastprod(session)
    session.run("python", CHECKS, "--no-lint", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The lines of Python that the tests reach on both twins together; with tests named, those alone and no floor."""
    install_fastprod(session)
    install(session, "coverage")
    session.run("coverage", "erase")
    # The tests run in processes below this one, which coverage follows.
    here = {"COVERAGE_FILE": str(ROOT / ".coverage")}
    if sys.version_info >= (3, 12):
        # Costs little, so that nothing that looks at the clock is late, and leaves sys.settrace to the tests.
        here["COVERAGE_CORE"] = "sysmon"
    session.run("coverage", "run", CHECKS, "--no-lint", *(session.posargs or ["tests"]), env=here)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "html", "--quiet")
    session.run("coverage", "report", *(["--fail-under=0"] if session.posargs else []))


@nox.session
def sanitize(session: nox.Session) -> None:
    """Tests of the compiled twin under address, undefined and thread sanitizers; `-- --planted`: plant bugs first."""
    install_fastprod(session)
    script = "tests/native/sanitize.py"
    if session.posargs:
        session.run("python", script, *session.posargs)
        return
    session.run("python", script)
    session.run("python", script, "--only", "thread")


@nox.session
def integration(session: nox.Session) -> None:
    """Tests on three nodes of each release of Kafka, or of those named, on both twins."""
    install_fastprod(session)
    for release in session.posargs or RELEASES:
        session.run("python", CHECKS, "--no-lint", "--kafka", release, *ON_A_RELEASE)


@nox.session
def chaos(session: nox.Session) -> None:
    """A storm over three nodes (`python -m chaos`): a minute, or `-- --minutes 60`. FASTPROD_BACKEND names the twin."""
    install_fastprod(session)
    session.chdir("tests")
    session.run("python", "-m", "chaos", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Each fuzzer for a minute, or for `-- SECONDS`; wants clang (tests/fuzz/README.md)."""
    install_fastprod(session)
    session.install("atheris")
    limit = f"-max_total_time={(session.posargs or ['60'])[0]}"
    session.chdir("tests")
    for target in ("response", "connection"):
        session.run("python", "-m", "fuzz.compiled", target, limit)
    for target in ("produce", "control"):
        session.run("python", "-m", "fuzz.interpreted", target, limit)


@nox.session
def bench(session: nox.Session) -> None:
    """Whether HEAD is slower than main, or than the revision behind `--` (benchmarks/regress)."""
    session.run("python", "benchmarks/regress", *(session.posargs or ["main"]))


@nox.session
def next_cython(session: nox.Session) -> None:
    """The unit and parity tests, or those named, on what the next Cython makes of the compiled twin."""
    session.install(*PROJECT["dependencies"], *requirements("test"))
    session.install("--pre", "--upgrade", "--no-deps", "Cython")
    session.install("--no-deps", "--no-build-isolation", ".", env={"FASTPROD_REQUIRE_NATIVE": "1"})
    session.run("cython", "--version")
    session.run("python", CHECKS, "--no-lint", *(session.posargs or ["tests/unit", "tests/parity"]))


@nox.session
def next_cpython(session: nox.Session) -> None:
    """What cibuildwheel tests a wheel with, on the Python that nox runs on: one that few packages have wheels for."""
    settings = PYPROJECT["tool"]["cibuildwheel"]
    session.install(*settings["test-requires"])
    # Its dependency has no wheels for a Python so new, cannot always be compiled for it, and these tests do without.
    session.install("--no-deps", ".", env={"FASTPROD_REQUIRE_NATIVE": "1"})
    command = settings["test-command"].replace("{project}", str(ROOT))
    session.chdir(session.create_tmp())
    # The libraries are linked if they happen to be there, and what asks for that is left to the wheels.
    session.run(*shlex.split(command), env={"FASTPROD_BACKEND": "native", "FASTPROD_TEST_INSTALLED": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """The documents, with warnings as errors."""
    session.install(*requirements("docs"))
    session.run("python", CHECKS, "--only", "docs", *session.posargs)


@nox.session
def import_time(session: nox.Session) -> None:
    """What `import fastprod` costs, beside kafka-python: 50 ms at most."""
    session.install(".", env={"FASTPROD_REQUIRE_NATIVE": "1"})
    install(session, "kafka-python")
    session.run("python", ".ci/import_time.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The source distribution and a wheel built from it, in dist/."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    install(session, "build", "twine")
    session.run("python", "-m", "build")
    check(session)


@nox.session
def sdist(session: nox.Session) -> None:
    """The source distribution alone, in dist/."""
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    install(session, "build")
    session.run("python", "-m", "build", "--sdist")


@nox.session
def pure_wheel(session: nox.Session) -> None:
    """The wheel for every Python, from the source distribution in dist/, beside it."""
    command = ["python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", "dist", str(source())]
    session.run(*command, env={"FASTPROD_PURE": "1"})
    if not list((ROOT / "dist").glob("*-py3-none-any.whl")):
        session.error("that is no pure wheel")


@nox.session
def wheels(session: nox.Session) -> None:
    """This machine's wheels from the source distribution in dist/ (cibuildwheel), in wheelhouse/."""
    # Alone: what else the extra `wheels` has is for Linux, and Windows cannot install all of it.
    install(session, "cibuildwheel")
    session.run("cibuildwheel", "--output-dir", "wheelhouse", *session.posargs, str(source()))


@nox.session
def zig_wheel(session: nox.Session) -> None:
    """A wheel for manylinux2014, without its image: built from the source distribution by zig, and tested."""
    session.install(*requirements("wheels"))
    session.run("python", ".ci/zig_wheel.py", *(session.posargs or ["dist"]))


@nox.session
def pythons(session: nox.Session) -> None:
    """Wheels on every CPython of Debian's, or on `-- FOLDER 3.14t` and for `--machine s390x`; wants Debian."""
    session.install(*requirements("wheels"))
    session.run("python", ".ci/pythons.py", *(session.posargs or [session.create_tmp()]))


@nox.session
def check_dist(session: nox.Session) -> None:
    """What lies in dist/, as it is to be published: every wheel that there is to be, and each as it should be."""
    install(session, "twine")
    check(session)
    session.run("python", ".ci/check_wheel.py", "--complete", *sorted(map(str, (ROOT / "dist").glob("*.whl"))))


def source() -> Path:
    """The source distribution in dist/; ValueError if there are several, or none."""
    (found,) = (ROOT / "dist").glob("*.tar.gz")
    return found


def check(session: nox.Session) -> None:
    """Have twine look at what is in dist/."""
    session.run("twine", "check", "--strict", *sorted(str(path) for path in (ROOT / "dist").iterdir()))
