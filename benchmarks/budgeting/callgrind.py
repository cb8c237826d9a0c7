"""Counts the instructions of a workload with valgrind's callgrind.

The count of a run is subtracted from that of one twice as long: starting Python and importing falls out. Hashes are not
salted, and the garbage collector is off in the workloads; so a count repeats to a part of a percent, on a busy machine
as on an idle one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from budgeting.responder import Responder
from budgeting.workloads import AFTER_SEND

_WORKLOADS = Path(__file__).resolve().parent / "workloads.py"
_COLLECTED = re.compile(r"Collected : (\d+)")
# Callgrind counts `rep movsb` once a byte, and glibc copies by it from a size on that depends on the processor. Never.
_TUNABLES = ":".join(f"glibc.cpu.x86_rep_{name}_threshold={1 << 40}" for name in ("movsb", "stosb"))
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "GLIBC_TUNABLES": _TUNABLES}
# Whole batches, and more of them than are in flight at once.
RECORDS = 48_000


class NotCounted(Exception):
    """A workload did not run, or was not counted."""


def is_there() -> bool:
    """Whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def instructions(workload: str, records: int = RECORDS) -> float:
    """Return the instructions a record takes; NotCounted where something fails."""
    with Responder() as responder:
        # Once without counting: the first run of all compiles the modules, which no later one does.
        _run([sys.executable], workload, 0, responder.port)
        counted = _a_record(workload, records, responder.port)
        return counted - _a_record(workload, records, 0) if workload in AFTER_SEND else counted


def _a_record(workload: str, records: int, port: int) -> float:
    once, twice = (_count(workload, number, port) for number in (records, 2 * records))
    return (twice - once) / records


def _count(workload: str, records: int, port: int) -> int:
    said = _run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable], workload, records, port
    )
    found = _COLLECTED.search(said)
    if found is None:
        raise NotCounted(f"callgrind did not say what it counted:\n{said}")
    return int(found[1])


def _run(program: list[str], workload: str, records: int, port: int) -> str:
    command = [*program, str(_WORKLOADS), workload, str(records), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_ENVIRONMENT})
    if done.returncode:
        raise NotCounted(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stderr
