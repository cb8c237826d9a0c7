"""Break the product in a copy, one change at a time, and demand that the tests that name the behaviour fail.

    python tests/conformance/mutate.py [ITEM ...] [--native] [--pure]

Run with the environment that the tests run in; a mutation of the compiled twin takes a build of its own. `wrap` as an
item builds the compiled twin with partitions that begin near the last sequence, and demands that item 58 passes there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mutations import ALL, Mutation

ROOT = Path(__file__).resolve().parents[2]
# What `test_sequence_wrap.py` wants to be one before its NEXT.
FIRST_SEQUENCE = 2**31 - 4
_BEGIN = "    partition.next_sequence = "
WRAP = ("_native/accumulator.pxi", f"{_BEGIN}0\n", f"{_BEGIN}{FIRST_SEQUENCE}\n")


def copy(folder: Path) -> None:
    """Copy what git knows, and what was built."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    for name in [*names, *(str(each.relative_to(ROOT)) for each in ROOT.glob("fastprod/_core*.so"))]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def replace(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / "fastprod" / file
    text = path.read_text(encoding="ascii")
    if text.count(old) != 1:
        raise ValueError(f"{file}: {old!r} is there {text.count(old)} times")
    path.write_text(text.replace(old, new), encoding="ascii")


def build(folder: Path) -> None:
    """Build the compiled twin in place, without optimising, which is the quickest."""
    environment = {**os.environ, "FASTPROD_REQUIRE_NATIVE": "1", "FASTPROD_DEBUG": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"it does not build:\n{done.stdout}{done.stderr}")


def outcomes(folder: Path, backend: str, tests: str, **environment: str) -> dict[str, bool]:
    """Run tests ("file: expression") in the copy; which of them passed."""
    file, _, chosen = tests.partition(": ")
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    # A path to this folder in the environment goes before the installed product.
    variables = {**os.environ, "FASTPROD_BACKEND": backend, "PYTHONPATH": str(folder), **environment}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "--timeout=90",
         f"tests/conformance/{file}.py", "-k", chosen],
        cwd=folder, env=variables, capture_output=True, check=False,
    )  # fmt: skip
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            found[str(case.get("name"))] = case.find("failure") is None and case.find("error") is None
    return found


def check(mutation: Mutation, folder: Path) -> list[str]:
    """Make the change in a fresh copy; the tests that passed all the same."""
    copy(folder)
    replace(folder, mutation.file, mutation.old, mutation.new)
    environment = {}
    if mutation.backend == "native":
        if mutation.item == 58:
            replace(folder, *WRAP)
            environment["FASTPROD_TEST_FIRST_SEQUENCE"] = str(FIRST_SEQUENCE)
        build(folder)
    found = outcomes(folder, mutation.backend, mutation.tests, **environment)
    return [name for name, passed in found.items() if passed] if found else ["nothing was run"]


def wrap() -> list[str]:
    """Item 58 on the compiled twin; the tests that failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        replace(folder, *WRAP)
        build(folder)
        start = {"FASTPROD_TEST_FIRST_SEQUENCE": str(FIRST_SEQUENCE)}
        found = outcomes(folder, "native", "test_sequence_wrap: wrap", **start)
        return [name for name, passed in found.items() if not passed] if len(found) >= 7 else ["not all of it was run"]


def main(arguments: list[str]) -> int:
    items = {each for each in arguments if not each.startswith("-")}
    failed = 0
    if "wrap" in items:
        bad = wrap()
        failed += bool(bad)
        print("wrap:", bad or "passed", flush=True)
    twins = {each[2:] for each in arguments if each.startswith("--")} or {"native", "pure"}
    for mutation in ALL:
        if mutation.backend not in twins or (items and str(mutation.item) not in items):
            continue
        with tempfile.TemporaryDirectory() as name:
            try:
                survived = check(mutation, Path(name))
            except ValueError as error:
                survived = [str(error)]
        failed += bool(survived)
        print(f"{mutation.item} {mutation.file} {mutation.old.strip()[:60]!r}:", survived or "seen to fail", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
