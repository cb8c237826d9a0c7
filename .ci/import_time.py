"""Measure what importing fastprod costs, in CPU time above the bare interpreter's, on an idle machine.

    python .ci/import_time.py [ROUNDS]

The programs take turns, and the medians are shown. The exit status is 1 where `import fastprod` costs more than 50 ms.
Run it where fastprod is installed as users have it: an editable install makes the bare interpreter start more slowly.
What the standard library's modules cost that every producer needs is shown as well.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile

LIMIT_MS = 50
ROUNDS = 41
BARE = "pass"
PACKAGE = "import fastprod"
PROGRAMS = (
    PACKAGE, "from fastprod import KafkaProducer", "import logging, selectors, socket, struct, threading, typing, zlib",
)


def cpu_ms(program: str, folder: str) -> float:
    """CPU time of a Python that runs the program, its own and the system's."""
    # As it is after an install: compiled once, and kept.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    spent: dict[str, list[float]] = {program: [] for program in (BARE, *PROGRAMS)}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for program, times in spent.items():
                times.append(cpu_ms(program, folder))
    medians = {program: statistics.median(times[1:]) for program, times in spent.items()}
    print(f"bare interpreter: {medians[BARE]:.1f} ms")
    for program in PROGRAMS:
        print(f"{program}: {medians[program] - medians[BARE]:.1f} ms more")
    return medians[PACKAGE] - medians[BARE] > LIMIT_MS


if __name__ == "__main__":
    sys.exit(main())
