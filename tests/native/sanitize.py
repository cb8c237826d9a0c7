"""Run the tests that reach the compiled data plane under sanitizers, on an extension built for them.

    python tests/native/sanitize.py                     address and undefined behaviour, live objects counted
    python tests/native/sanitize.py --only thread       data races; slow, and CPython itself is not instrumented
    python tests/native/sanitize.py tests/parity        only these tests
    python tests/native/sanitize.py --planted           plant a bug of each kind, and demand that it is found
    python tests/native/sanitize.py --planted race      only that one

With the Python of an environment that has the `test` extra, one without a GIL as well. The package is copied and built
in a temporary folder, and the copy is put before the installed one, which stays as it is; bugs are planted in such a
copy. Any report of a sanitizer is a failure, whatever the tests say: what is not reported stands in `thread.supp`. A
test that waited in vain, or too long, is run again, twice at most, since everything takes many times longer here; not
one that found something wrong or left something behind. gcc on Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
# Everything that runs on the compiled plane and needs no Kafka.
TESTS = ["tests/parity", "tests/native", "tests/unit/test_both_planes.py", "tests/unit/test_both_futures.py",
         "tests/faults/test_idempotence.py"]
# Counts seconds, which a sanitizer stretches.
LEFT_OUT = "not times_out_in_time"
# By what tests/patience.py and our own timeouts say.
AGAIN = [
    "--reruns=2", "--reruns-delay=3", "--max-suite-reruns=10", "--rerun-show-tracebacks",
    r"--only-rerun=did not happen within|took [0-9.]+ s instead of|Timeout",
    "--rerun-except=something is left|leaves behind",
]  # fmt: skip
SANITIZERS = {"memory": "address,undefined", "thread": "thread"}
LIBRARIES = {"memory": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}
MARKS = ("ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "DEADLYSIGNAL")
SUPPRESSIONS = Path(__file__).resolve().parent / "thread.supp"


class Plant(NamedTuple):
    """A bug: `old` stands once in a file of `_native/`. `sign`: what the report says, or the test that fails."""

    name: str
    what: str
    file: str
    old: str
    new: str
    sign: str


PLANTS = [
    Plant("overflow", "memory", "pool.pxi", "memory = malloc(size)", "memory = malloc(size // 2)",
          "heap-buffer-overflow"),
    Plant("undefined", "memory", "murmur2.pxi", "k *= m\n        k ^= k >> 24",
          "k = <uint32_t>(<int32_t>k * <int32_t>m)\n        k ^= k >> 24", "signed integer overflow"),
    Plant("leak", "memory", "outbox.pxi",
          "    for i in range(batches.size()):\n        release(batches[i].batch)\n", "", "something is left"),
    Plant("race", "thread", "outbox.pxi",
          "    core.gate.lock()\n    outbox.totals.responses += 1\n    outbox.totals.latency_buckets",
          "    outbox.totals.responses += 1\n    core.gate.lock()\n    outbox.totals.latency_buckets", "data race"),
]  # fmt: skip
# Hashes keys, fills batches and counts what is left of them, beside threads that look at the counters.
PLANTED_TESTS = ["tests/parity/test_functions.py", "tests/native"]


def build(what: str, away: Path, plant: Plant | None) -> None:
    """Copy the package to `away` and build the extension there, with a bug if one is given."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, away)
    ignored = shutil.ignore_patterns("*.so", "*.cpp", "__pycache__")
    shutil.copytree(ROOT / "fastprod", away / "fastprod", ignore=ignored, dirs_exist_ok=True)
    if plant is not None:
        path = away / "fastprod" / "_native" / plant.file
        text = path.read_text(encoding="ascii")
        if text.count(plant.old) != 1:
            sys.exit(f"{plant.file}: {plant.old!r} is there {text.count(plant.old)} times")
        path.write_text(text.replace(plant.old, plant.new), encoding="ascii")
    environment = {
        **os.environ, "FASTPROD_SANITIZE": SANITIZERS[what], "FASTPROD_DEBUG": "1", "FASTPROD_REQUIRE_NATIVE": "1",
    }
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=away, env=environment, check=True)


def library(name: str) -> str:
    """Where gcc keeps it: it must be there before Python starts."""
    try:
        found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        sys.exit("the sanitizers need gcc, which is not there")
    path = found.stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"gcc has no {name}: install its sanitizers' libraries (Debian: libgcc-12-dev)")
    return path


def environment_of(what: str, away: Path) -> dict[str, str]:
    reports = away / "report"
    # Leaks: the interpreter never frees all it has, so live objects are counted by the tests instead.
    common = f"log_path={reports}"
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(map(library, LIBRARIES[what])),
        # So that Python's objects are looked after as well. Without a GIL there is no malloc, but its own checks.
        "PYTHONMALLOC": "debug" if sysconfig.get_config_var("Py_GIL_DISABLED") else "malloc",
        "PYTHONPATH": str(away),
        "FASTPROD_BACKEND": "native",
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode=66:{common}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{common}",
        "TSAN_OPTIONS": f"exitcode=0:halt_on_error=0:suppressions={SUPPRESSIONS}:{common}",
    }


def reports(away: Path, told: list[str]) -> list[str]:
    """What the sanitizers have written, from any process."""
    texts = [path.read_text(errors="replace") for path in sorted(away.glob("report*"))]
    texts += told
    single = [each for text in texts for each in text.split("==================")]
    return [each for each in single if any(mark in each for mark in MARKS)]


def run(what: str, away: Path, tests: list[str], options: list[str], plant: Plant | None = None) -> bool:
    """Build where that was not done before, and test; return whether all was well, or the planted bug was found."""
    if not list((away / "fastprod").glob("_core*.so")):
        print(f"=== building with -fsanitize={SANITIZERS[what]} in {away}", flush=True)
        build(what, away, plant)
    for old in away.glob("report*"):
        old.unlink()
    results = away / "results.xml"
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys", f"--junitxml={results}",
        "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-k", LEFT_OUT, *(AGAIN if plant is None else []),
        *options, *(str(ROOT / test) for test in tests),
    ]
    print(f"=== {' '.join(command)}", flush=True)
    # Not from the root: the package that is imported must be the copy.
    status, said = echoed(command, away, environment_of(what, away))
    found = reports(away, said)
    if plant is not None:
        # A leak is no report: the tests count live objects.
        seen = [*found, results.read_text() if status and results.exists() else ""]
        well = any(plant.sign in each for each in seen)
        print(f"=== planted {plant.name}: {plant.sign if well else 'NOT'} found", flush=True)
        return well
    print(*found, sep="\n")
    print(f"=== {what}: tests ended with {status}, {len(found)} reports", flush=True)
    return status == 0 and not found


def planted(name: str, options: list[str]) -> bool:
    """Plant each bug, or the one of that name, in a copy of its own; whether all were found."""
    found = []
    for plant in PLANTS:
        if name not in ("all", plant.name):
            continue
        with tempfile.TemporaryDirectory(prefix="fastprod-sanitize-") as folder:
            found.append(run(plant.what, Path(folder), PLANTED_TESTS, ["-x", "--tb=line", *options], plant))
    return all(found)


def echoed(command: list[str], away: Path, environment: dict[str, str]) -> tuple[int, list[str]]:
    """Run it; return its exit status and the lines of its standard error, where reports of undefined behaviour go
    whatever log_path says."""
    said = []
    with subprocess.Popen(
        command, cwd=away, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            said.append(line)
    return process.returncode, said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(SANITIZERS), default="memory", help="which sanitizers (%(default)s)")
    parser.add_argument("--folder", type=Path, help="build here, or use what was built here before")
    parser.add_argument("--pytest", default="", help="more options for pytest, as one argument: --pytest='-x -s'")
    parser.add_argument("--planted", nargs="?", const="all", choices=["all", *(plant.name for plant in PLANTS)],
                        help="plant bugs and demand that they are found")
    parser.add_argument("tests", nargs="*", default=TESTS, help="test files or folders, from the root")
    given = parser.parse_args()
    if given.planted:
        sys.exit(0 if planted(given.planted, shlex.split(given.pytest)) else 1)
    with contextlib.ExitStack() as stack:
        if given.folder is None:
            away = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastprod-sanitize-")))
        else:
            away = given.folder.resolve()
            away.mkdir(parents=True, exist_ok=True)
        well = run(given.only, away, given.tests, shlex.split(given.pytest))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
