"""Fuzz what the compiled data plane parses, guided by coverage, sanitized for addresses and undefined behaviour:

    python -m fuzz.compiled response [libFuzzer's options]      the parser of Produce responses
    python -m fuzz.compiled connection [libFuzzer's options]    a connection with requests in flight
    python -m fuzz.compiled coverage                            which lines the inputs that were kept reach

Needs clang with libFuzzer and llvm-cov (Debian: clang, libclang-rt-14-dev, llvm), Cython, and a shared libpython. What
is built and what is found interesting is kept in `found/`; README.md tells more.
"""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from .corpus import PRODUCE, Recorded, recorded

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOUND = HERE / "found"
FIRST = 3   # version of Produce
# Undefined behaviour ends the run, as a crash does. Cython calls methods by pointers of a more general type.
SANITIZED = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize=function", "-fno-sanitize-recover=undefined"]
COUNTED = ["-O0", "--coverage"]
# What reads bytes of a broker, by file: everything else there writes, or is told of by these.
PARSERS = {
    "varint.pxi": ["take_uvarint"],
    "endian.pxi": ["get16", "get32", "get64"],
    "produce.pxi": [
        "taken", "taken_uvarint", "taken16", "taken32", "taken64", "taken_count", "taken_text", "skip_tags",
        "taken_answer_tags", "taken_answer", "taken_endpoints", "read_response",
    ],
    "outbox.pxi": ["claimed_by", "lose_with_answered", "handle_answer", "hold_back", "read_some", "park"],
}  # fmt: skip


def built(entry: str, flags: list[str], folder: Path) -> Path:
    """The fuzzer of an entry of `target.pyx`, built in the folder where it is older than its sources."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [HERE / "target.pyx", HERE / "driver.cc", *(ROOT / "fastprod").glob("_native/*"),
               ROOT / "fastprod" / "_core.pyx"]
    fuzzer, translated, compiled = folder / entry, folder / "target.cpp", folder / "target.o"
    newest = max(each.stat().st_mtime for each in sources)
    include = ["-I", sysconfig.get_path("include"), "-I", str(ROOT / "fastprod" / "_native")]
    common = ["clang++", "-std=c++17", "-g", "-fno-omit-frame-pointer", *flags]
    if not compiled.exists() or compiled.stat().st_mtime < newest:
        # #line directives: reports and coverage are of the .pxi files, named as from fastprod/.
        subprocess.run(
            [sys.executable, "-m", "cython", "-3", "--cplus", "--line-directives", "-I", str(ROOT / "fastprod"),
             str(HERE / "target.pyx"), "-o", str(translated)], cwd=ROOT / "fastprod", check=True,
        )  # fmt: skip
        command = [*common, "-fsanitize=fuzzer-no-link", *include, "-c", str(translated), "-o", str(compiled)]
        subprocess.run(command, cwd=ROOT / "fastprod", check=True)
    if not fuzzer.exists() or fuzzer.stat().st_mtime < compiled.stat().st_mtime:
        where, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
        subprocess.run(
            [*common, "-fsanitize=fuzzer", *include, f"-DFUZZ_ENTRY=fuzz_{entry}", str(HERE / "driver.cc"),
             str(compiled), f"-L{where}", f"-lpython{version}", f"-Wl,-rpath,{where}", "-o", str(fuzzer)],
            cwd=folder, check=True,
        )  # fmt: skip
    return fuzzer


def seeds(entry: str, response: Recorded) -> Iterator[bytes]:
    """A recorded response as `target.pyx` takes it."""
    version = bytes([response.version - FIRST])
    if entry == "response":
        yield version + response.payload
        return
    yield from (version + bytes([answers, piece]) + response.payload for answers, piece in ((1, 0), (2, 7), (3, 0)))
    framed = len(response.payload).to_bytes(4, "big") + bytes(4) + response.payload[4:]
    yield version + bytes(2) + framed


def fuzz(entry: str, fuzzer: Path, options: list[str]) -> int:
    corpus = FOUND / entry
    corpus.mkdir(parents=True, exist_ok=True)
    for number, response in enumerate(recorded(PRODUCE)):
        for way, data in enumerate(seeds(entry, response)):
            (corpus / f"seed-{number}-{way}").write_bytes(data)
    # The embedded interpreter is that of no environment; its allocator would hide overflows.
    paths = [str(ROOT), *site.getsitepackages()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONMALLOC": "malloc"}
    command = [str(fuzzer), "-detect_leaks=0", "-max_len=1000", f"-artifact_prefix={FOUND}/", *options, str(corpus)]
    return subprocess.run(command, env=environment, check=False).returncode


def lines_of(file: str, functions: list[str]) -> set[int]:
    """The numbers of the lines of these functions in a .pxi file."""
    found: set[int] = set()
    inside = False
    for number, line in enumerate((ROOT / "fastprod" / "_native" / file).read_text().splitlines(), 1):
        if line[:1].strip():
            begins = re.match(r"cdef .*?(\w+)\(", line)
            inside = begins is not None and begins[1] in functions
        if inside:
            found.add(number)
    return found


def coverage() -> int:
    """Replay what both fuzzers kept in a build that counts lines; the share that was reached."""
    folder = FOUND / "counted"
    for old in folder.glob("*.gcda"):
        old.unlink()
    for entry in ("response", "connection"):
        if fuzz(entry, built(entry, COUNTED, folder), ["-runs=0"]):
            return 1
    sources = folder / "_native"
    if not sources.exists():
        sources.symlink_to(ROOT / "fastprod" / "_native")
    subprocess.run(["llvm-cov", "gcov", "target.gcda"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    reached = known = 0
    for file, functions in PARSERS.items():
        wanted = lines_of(file, functions)
        report = next(folder.glob(f"*{file}.gcov"))
        for line in report.read_text().splitlines():
            count, number, text = line.split(":", 2)
            if int(number) in wanted and count.strip() != "-":
                known += 1
                reached += count.strip() not in ("#####", "=====")
                if count.strip() in ("#####", "====="):
                    print(f"not reached: {file}:{number.strip()}: {text}")
    print(f"{reached} of {known} lines, {100 * reached / known:.1f} %")
    return 0 if reached >= 0.95 * known else 1


def main() -> None:
    if sys.argv[1:2] not in (["response"], ["connection"], ["coverage"]):
        sys.exit(__doc__)
    entry, options = sys.argv[1], sys.argv[2:]
    if entry == "coverage":
        sys.exit(coverage())
    sys.exit(fuzz(entry, built(entry, SANITIZED, FOUND / "sanitized"), options))


if __name__ == "__main__":
    main()
