"""Run the tests that reach the compiled data plane under sanitizers, on an extension built for them.

    python tests/native/sanitize.py                     address and undefined behaviour, live objects counted
    python tests/native/sanitize.py --only thread       data races; slow, and CPython itself is not instrumented
    python tests/native/sanitize.py tests/parity        only these tests

With the Python of an environment that has the `test` extra and setuptools and Cython (`pip install -e '.[test]'`
needs those only while it builds, so: `pip install 'setuptools>=77' 'Cython>=3.3,<3.4'`). The package is copied and
built in a temporary folder, and the copy is put before the installed one, which stays as it is. Any report of a
sanitizer is a failure, whatever the tests say. gcc on Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Everything that runs on the compiled plane and needs no Kafka.
TESTS = ["tests/parity", "tests/native", "tests/unit/test_both_planes.py", "tests/faults/test_idempotence.py"]
# Counts seconds, which a sanitizer stretches.
LEFT_OUT = "not times_out_in_time"
SANITIZERS = {"memory": "address,undefined", "thread": "thread"}
LIBRARIES = {"memory": ["libasan.so", "libubsan.so"], "thread": ["libtsan.so"]}
MARKS = ("ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "DEADLYSIGNAL")
OURS = "_core"


def build(what: str, away: Path) -> None:
    """Copy the package to `away` and build the extension there."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, away)
    ignored = shutil.ignore_patterns("*.so", "*.cpp", "__pycache__")
    shutil.copytree(ROOT / "fastprod", away / "fastprod", ignore=ignored, dirs_exist_ok=True)
    environment = {
        **os.environ, "FASTPROD_SANITIZE": SANITIZERS[what], "FASTPROD_DEBUG": "1", "FASTPROD_REQUIRE_NATIVE": "1",
    }
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=away, env=environment, check=True)


def library(name: str) -> str:
    """Where gcc keeps it: it must be there before Python starts."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"gcc does not know where {name} is")
    return path


def environment_of(what: str, away: Path) -> dict[str, str]:
    reports = away / "report"
    # Leaks: the interpreter never frees all it has, so live objects are counted by the tests instead.
    common = f"log_path={reports}"
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(map(library, LIBRARIES[what])),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(away),
        "FASTPROD_BACKEND": "native",
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode=66:{common}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{common}",
        "TSAN_OPTIONS": f"exitcode=0:halt_on_error=0:{common}",
    }


def reports(away: Path, told: list[str]) -> list[str]:
    """What the sanitizers have written about our code, from any process. A race in which no frame is ours is one of
    CPython with itself: the thread sanitizer does not see its locks."""
    texts = [path.read_text(errors="replace") for path in sorted(away.glob("report*"))]
    texts += told
    single = [each for text in texts for each in text.split("==================")]
    return [each for each in single if OURS in each and any(mark in each for mark in MARKS)]


def run(what: str, away: Path, tests: list[str], options: list[str]) -> bool:
    """Build where that was not done before, and test; return whether all was well."""
    if not list((away / "fastprod").glob("_core*.so")):
        print(f"=== building with -fsanitize={SANITIZERS[what]} in {away}", flush=True)
        build(what, away)
    for old in away.glob("report*"):
        old.unlink()
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys",
        "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-k", LEFT_OUT, *options,
        *(str(ROOT / test) for test in tests),
    ]
    print(f"=== {' '.join(command)}", flush=True)
    # Not from the root: the package that is imported must be the copy.
    status, said = echoed(command, away, environment_of(what, away))
    found = reports(away, said)
    print(*found, sep="\n")
    print(f"=== {what}: tests ended with {status}, {len(found)} reports", flush=True)
    return status == 0 and not found


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
    parser.add_argument("tests", nargs="*", default=TESTS, help="test files or folders, from the root")
    given = parser.parse_args()
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
