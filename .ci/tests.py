"""Run every check of the project, with the Python of the environment the package is installed in.

The tests run against the installed package, from a directory without `fastprod/`. Lint and types come first, then the
benchmarks once each, the codecs with `cramjam` alone, the tests without kafka-python, and the suite on the pure twin;
the native run is the last, so that its summary line ends the output. A test that was skipped or expected to fail is a
failure unless it stands on the list in `.ci/allowed_skips.txt`, with its reason.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
TESTS = ROOT / "tests"
# What is run once more where packages are missing that are preferred, or derived from, where they are installed.
CODECS = [str(TESTS / "e2e" / name) for name in ("test_mixed_load.py", "test_wire_bytes.py")]
DROP_IN = [str(TESTS / name) for name in ("e2e/test_mixed_load.py", "face/test_kafka_python_face.py")]


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def run(what: str, command: list[str], cwd: Path, **variables: str) -> None:
    """Run a command and end everything if it fails."""
    say(f"{what}: {' '.join(command)}")
    began = time.monotonic()
    environment = {**os.environ, **variables}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(command, cwd=cwd, env=environment, check=False)
    print(f"--- {what}: {time.monotonic() - began:.0f} s", flush=True)
    if result.returncode:
        sys.exit(f"{what} failed with exit status {result.returncode}")


def lint() -> None:
    # cython-lint starts pycodestyle by its name.
    path = os.pathsep.join([str(Path(PYTHON).parent), os.environ.get("PATH", "")])
    run("ruff", [PYTHON, "-m", "ruff", "check", "."], ROOT)
    run("types", [PYTHON, "-m", "mypy"], ROOT)
    command = [PYTHON, "-m", "cython_lint.cython_lint", "--max-line-length", "120", "fastprod"]
    run("cython-lint", command, ROOT, PATH=path)


def allowed_skips() -> set[str]:
    """Test ids of `.ci/allowed_skips.txt`; a line is `id  # reason`."""
    lines = (ROOT / ".ci" / "allowed_skips.txt").read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()}


def counted(report: Path) -> tuple[int, int, list[str]]:
    """(tests that passed, those of them on a real broker, ids that did not run) of a JUnit report."""
    passed = broker = 0
    idle = []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("skipped") is not None:
            idle.append(name)
        elif case.find("failure") is None and case.find("error") is None:
            passed += 1
            properties = {item.get("name"): item.get("value") for item in case.iter("property")}
            broker += properties.get("real_broker") == "yes"
    return passed, broker, idle


def suite(what: str, cwd: Path, arguments: list[str], totals: dict[str, tuple[int, int]], **variables: str) -> None:
    report = cwd / f"{what.replace(' ', '-')}.xml"
    command = [PYTHON, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT),
               f"--junitxml={report}", *arguments]
    run(what, command, cwd, FASTPROD_TEST_INSTALLED="1", **variables)
    passed, broker, idle = counted(report)
    totals[what] = (passed, broker)
    unexpected = sorted(set(idle) - allowed_skips())
    if unexpected:
        sys.exit(f"{what}: skipped or expected to fail, and not in .ci/allowed_skips.txt: {', '.join(unexpected)}")
    print(f"{what}: {passed} tests, {broker} of them on a real Kafka", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--no-lint", action="store_true", help="leave out ruff, mypy and cython-lint")
    parser.add_argument("tests", nargs="*", help="run only these test files or folders, native and pure")
    arguments = parser.parse_args()
    chosen = [str(Path(test).resolve()) for test in arguments.tests] or [str(TESTS)]
    totals: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        if not arguments.no_lint:
            lint()
        if not arguments.tests:
            suite("benchmarks once", away, [str(ROOT / "benchmarks"), "--benchmark-disable"], totals)
            suite("cramjam alone", away, CODECS, totals, FASTPROD_TEST_HIDE="lz4,zstandard")
            suite("without kafka-python", away, DROP_IN, totals, FASTPROD_TEST_HIDE="kafka")
        suite("pure", away, [*chosen, "-m", "not native_only"], totals, FASTPROD_BACKEND="pure")
        say("so far: " + "; ".join(f"{what}: {n} tests, {b} on a real Kafka" for what, (n, b) in totals.items()))
        suite("native", away, [*chosen, "-p", "no:cacheprovider"], totals, FASTPROD_BACKEND="native")


if __name__ == "__main__":
    main()
