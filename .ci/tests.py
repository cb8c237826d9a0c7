"""Run every check of the project, with the Python of the environment the package is installed in.

The tests run against the installed package, from a directory without `fastprod/`. Lint and types come first. Then three
things go on side by side, since the tests wait most of their time:

- the suite on the native twin, two files at a time;
- the benchmarks once each, the codecs with `cramjam` alone, the tests without kafka-python, and the suite on the pure
  twin;
- what compiles: the codecs with liblz4 and libzstd linked (on a build of its own, for which their sources come from
  `pip`), the generated code for musl, macOS and Windows, the stress tests and hostile answers under sanitizers (on
  builds of their own), and the instruction budgets where valgrind is installed.

What the native run said is shown last, so that its summary line ends the output. What concerns one twin only, or
neither, is run with one of them.

A test that fails is run again a little later, at most twice, and told of: on a busy machine what it waited for may have
come too late. Where a whole log or many threads are judged, and where something is left behind, a failure counts the
first time; under sanitizers, where all takes many times longer, unless it is one of time (tests/native/sanitize.py).

A run of tests that fails does not keep the others from running: a closing line names what failed, and the exit status
is 1. A test that was skipped or expected to fail is a failure unless it stands on the list in `.ci/allowed_skips.txt`,
with its reason.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
TESTS = ROOT / "tests"
# What is run once more where packages are missing that are preferred, or derived from, where they are installed.
CODECS = [str(TESTS / "e2e" / name) for name in ("test_mixed_load.py", "test_wire_bytes.py")]
DROP_IN = [str(TESTS / name) for name in ("e2e/test_mixed_load.py", "face/test_kafka_python_face.py")]
SANITIZE = [PYTHON, str(TESTS / "native" / "sanitize.py")]
SANITIZED = ["tests/native", "tests/fuzz/test_connection.py", "tests/unit/test_linked_compression.py"]
LINKED = [*CODECS, *(str(TESTS / name) for name in (
    "e2e/test_linked_codecs.py", "unit/test_held_interpreter.py", "unit/test_linked_compression.py",
))]

# Where a failure counts the first time.
JUDGED_ONCE = [
    "tests/chaos", "tests/e2e", "tests/fuzz", "tests/native", "tests/parity",
    *(f"tests/faults/test_{name}.py" for name in (
        "broker_faults", "chaos", "first_months", "forgetful_broker", "idempotence", "order",
    )),
]
AGAIN = [
    "--reruns=2", "--reruns-delay=3", "--max-suite-reruns=10", "--rerun-show-tracebacks",
    "--rerun-except=leaves behind",   # tests/leaks.py
    *(f"--rerun-exclude-path={path}" for path in JUDGED_ONCE),
]

# The tests of a file share what is made for it, and its brokers.
TWO_AT_A_TIME = ["-n", "2", "--dist", "loadfile", "--benchmark-disable"]

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"

FAILED = "failed"
# What pytest's exit status is where no test was left to run.
NO_TESTS = 5
BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"\n=== {time.monotonic() - BEGAN:.0f} s, {text}", flush=True)


def run(what: str, command: list[str], cwd: Path, said: Path | None = None, /, **variables: str) -> int:
    """Run a command and return its exit status; nothing is printed after it. `said`: where to its output goes."""
    say(f"{what}: {' '.join(command)}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(said.open("w")) if said else None
        done = subprocess.run(command, cwd=cwd, env=environment, stdout=out, stderr=out, check=False)
    return done.returncode


def check(what: str, command: list[str], **variables: str) -> None:
    """Run a command and end everything if it fails."""
    status = run(what, command, ROOT, **variables)
    if status:
        sys.exit(f"{what} failed with exit status {status}")


def lint() -> None:
    # cython-lint starts pycodestyle by its name, and zizmor has no other.
    path = os.pathsep.join([str(Path(PYTHON).parent), os.environ.get("PATH", "")])
    check("ruff", [PYTHON, "-m", "ruff", "check", "."])
    command = [PYTHON, "-m", "cython_lint.cython_lint", "--max-line-length", "120", "fastprod"]
    check("cython-lint", command, PATH=path)
    check("zizmor", ["zizmor", "--offline", "--no-progress", "--quiet", "."], PATH=path)
    actionlint()


def actionlint() -> None:
    """Check the workflows with actionlint, which no wheel brings: that on the PATH, or what Go gets and builds."""
    workflows = sorted(str(path) for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    with tempfile.TemporaryDirectory() as folder:
        command = shutil.which("actionlint")
        if command is None and shutil.which("go"):
            run("actionlint from its source", ["go", "install", ACTIONLINT], ROOT, GOBIN=folder)
            command = shutil.which("actionlint", path=folder)
        if command is None:
            say("actionlint is not on the PATH, and Go cannot get it: the workflows were not checked with it")
        else:
            check("actionlint", [command, *workflows])


def types() -> None:
    check("types", [PYTHON, "-m", "mypy"])


def docs() -> None:
    with tempfile.TemporaryDirectory() as folder:
        check("documents", [PYTHON, "-m", "mkdocs", "build", "--strict", "--site-dir", folder])


def allowed_skips() -> set[str]:
    """Test ids of `.ci/allowed_skips.txt`; a line is `id  # reason`."""
    lines = (ROOT / ".ci" / "allowed_skips.txt").read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()}


def counted(report: Path) -> tuple[int, int, list[str]]:
    """(tests that passed, those of them on a real broker, ids that did not run) of a JUnit report."""
    passed: set[str] = set()   # one that was run again is told of each time
    broker: set[str] = set()
    idle = []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("skipped") is not None:
            idle.append(name)
        elif case.find("failure") is None and case.find("error") is None:
            passed.add(name)
            properties = {item.get("name"): item.get("value") for item in case.iter("property")}
            if properties.get("real_broker") == "yes":
                broker.add(name)
    return len(passed), len(broker), idle


def suite(
    what: str, cwd: Path, arguments: list[str], totals: dict[str, str], said: Path | None = None, /, **variables: str
) -> None:
    """Run tests, and note under `what` how many there were, or why they failed."""
    report = cwd / f"{what.replace(' ', '-')}.xml"
    command = [PYTHON, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT),
               f"--junitxml={report}", *AGAIN, *arguments]
    status = run(what, command, cwd, said, FASTPROD_TEST_INSTALLED="1", **variables)
    if status:
        totals[what] = f"{FAILED} with exit status {status}"
        return
    passed, broker, idle = counted(report)
    unexpected = sorted(set(idle) - allowed_skips())
    if unexpected:
        names = ", ".join(unexpected)
        totals[what] = f"{FAILED}: skipped or expected to fail, and not in .ci/allowed_skips.txt: {names}"
        return
    totals[what] = f"{passed} tests, {broker} on a real Kafka"


def allow_one_without_tests(totals: dict[str, str]) -> None:
    """Tests that concern one twin only are none for the other; where both have none, the names were wrong."""
    without = [what for what, outcome in totals.items() if outcome == f"{FAILED} with exit status {NO_TESTS}"]
    if len(without) == 1:
        totals[without[0]] = "no tests"


def codec_libraries(away: Path) -> dict[str, str]:
    """Make liblz4 and libzstd, and return what has a build link them."""
    folder = away / "codec-libs"
    check("codec libraries", [PYTHON, str(ROOT / ".ci" / "codec_libs.py"), str(folder)])
    return {"FASTPROD_CODEC_LIBS": str(folder), "FASTPROD_LZ4": "require", "FASTPROD_ZSTD": "require"}


def linked(away: Path, libraries: dict[str, str], totals: dict[str, str]) -> None:
    """Test the codecs on a build that has them all linked. The installed package stays as it is."""
    home = away / "linked" / "site-packages"
    home.mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home)
    shutil.copytree(ROOT / "fastprod", home / "fastprod", ignore=shutil.ignore_patterns("*.so", "*.cpp", "__pycache__"))
    command = [PYTHON, "setup.py", "--quiet", "build_ext", "--inplace"]
    if run("a build with linked codecs", command, home, FASTPROD_REQUIRE_NATIVE="1", **libraries):
        totals["linked codecs"] = f"{FAILED}: it cannot be built"
        return
    suite("linked codecs", away, LINKED, totals, PYTHONPATH=str(home), FASTPROD_BACKEND="native")


def elsewhere(away: Path, libraries: dict[str, str], totals: dict[str, str]) -> None:
    """Compile for the platforms that are not here what `linked` has had Cython make."""
    source = away / "linked" / "site-packages" / "fastprod" / "_core.cpp"
    command = [PYTHON, str(ROOT / ".ci" / "platforms.py"), "--source", str(source)]
    status = run("other platforms", [*command, "--codecs", libraries["FASTPROD_CODEC_LIBS"]], ROOT)
    totals["other platforms"] = f"{FAILED} with exit status {status}" if status else "compiled"


def sanitized(what: str, arguments: list[str], totals: dict[str, str], **variables: str) -> None:
    """Run tests under sanitizers, and note whether all was well."""
    status = run(what, [*SANITIZE, *arguments], ROOT, **variables)
    totals[what] = f"{FAILED} with exit status {status}" if status else "no reports"


def budgets(totals: dict[str, str]) -> None:
    """Count instructions a record where valgrind is installed, and note whether they are within their budgets."""
    command = [PYTHON, str(ROOT / "benchmarks" / "budgets"), "check", "--where-possible"]
    status = run("instruction budgets", command, ROOT)
    totals["instruction budgets"] = f"{FAILED} with exit status {status}" if status else "see above"


def beside(away: Path, totals: dict[str, str]) -> None:
    """What compiles most of its time, and counts instructions, not seconds."""
    if hasattr(os, "nice"):
        os.nice(10)   # what runs at the same time looks at the clock
    libraries = codec_libraries(away)
    linked(away, libraries, totals)
    elsewhere(away, libraries, totals)
    sanitized("address and undefined", SANITIZED, totals, **libraries)
    sanitized("thread", ["--only", "thread", SANITIZED[0], SANITIZED[2]], totals, **libraries)
    budgets(totals)


@contextlib.contextmanager
def native_beside(away: Path, arguments: list[str], totals: dict[str, str]) -> Iterator[None]:
    """Run the native suite during the block, and show what it said at its end."""
    said = away / "native.txt"
    given = ("native", away, arguments, totals, said)
    thread = threading.Thread(target=suite, args=given, kwargs={"FASTPROD_BACKEND": "native"}, daemon=True)
    thread.start()
    yield
    thread.join()
    say("so far: " + "; ".join(f"{what}: {outcome}" for what, outcome in totals.items()))
    print(said.read_text(errors="replace"), end="", flush=True)


@contextlib.contextmanager
def other_half(away: Path, totals: dict[str, str]) -> Iterator[None]:
    """Have `beside` run in a process of its own, and show what it said at the end of the block."""
    said = away / "beside.txt"
    command = [PYTHON, __file__, "--beside"]
    say(f"at the same time, shown later: {' '.join(command)}")
    with said.open("w") as file:
        other = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield
        status = other.wait()
    finally:
        other.terminate()
        other.wait()
    text = said.read_text(errors="replace")
    print(text, flush=True)
    # Its last line sums it up.
    totals["beside"] = (f"{FAILED}: " if status else "") + text.strip().rpartition("\n")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--no-lint", action="store_true", help="leave out lint, types and documents")
    parser.add_argument("--only", choices=["lint", "types", "docs"], help="nothing but that")
    parser.add_argument("--beside", action="store_true", help="only what is run at the same time as the pure suite")
    parser.add_argument("--kafka", metavar="VERSION", help="let kafka_broker be three nodes of that release")
    parser.add_argument("tests", nargs="*", help="run only these test files or folders, native and pure")
    arguments = parser.parse_args()
    if arguments.only:
        {"lint": lint, "types": types, "docs": docs}[arguments.only]()
        return
    chosen = [str(Path(test).resolve()) for test in arguments.tests] or [str(TESTS)]
    if arguments.kafka:
        chosen += ["-o", f"fastprod_kafka_version={arguments.kafka}", "-o", "fastprod_kafka_nodes=3"]
    totals: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        away = Path(folder)
        pure = [*chosen, "-m", "not native_only", "-p", "no:cacheprovider"]
        native = [*chosen, "-m", "not pure_only", "-p", "no:cacheprovider"]
        if arguments.beside:
            beside(away, totals)
        else:
            if not arguments.no_lint:
                lint()
                types()
                docs()
            if arguments.tests:
                suite("pure", away, pure, totals, FASTPROD_BACKEND="pure")
                suite("native", away, native, totals, FASTPROD_BACKEND="native")
                allow_one_without_tests(totals)
            else:
                with native_beside(away, [*native, *TWO_AT_A_TIME], totals), other_half(away, totals):
                    suite("benchmarks once", away, [str(ROOT / "benchmarks"), "--benchmark-disable"], totals)
                    suite("cramjam alone", away, CODECS, totals, FASTPROD_TEST_HIDE="lz4,zstandard")
                    suite("without kafka-python", away, DROP_IN, totals, FASTPROD_TEST_HIDE="kafka")
                    suite("pure", away, pure, totals, FASTPROD_BACKEND="pure")
    failed = [f"{what} {outcome}" for what, outcome in totals.items() if outcome.startswith(FAILED)]
    if failed:
        sys.exit("; ".join(failed))
    if arguments.beside:
        print("; ".join(f"{what}: {outcome}" for what, outcome in totals.items()))


if __name__ == "__main__":
    main()
