"""What importing fastprod loads: little, and nothing that is slow and not needed yet.

.ci/import_time.py measures what it costs; here are the reasons why that is what it is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fastprod

HOME = Path(fastprod.__file__).parent.parent
# What the face and the planes need at once, named tuples too, whatever these bring along on this version of Python.
NEEDED = (
    "__future__, array, copy, importlib, logging, operator, selectors, socket, struct, threading, typing, weakref, zlib"
)
# Each of them costs a millisecond or more, and is needed later, or never.
LATER = {
    "ast", "asyncio", "cramjam", "dataclasses", "difflib", "importlib.metadata", "inspect", "ipaddress", "json",
    "kafka", "lz4", "pathlib", "ssl", "subprocess", "tempfile", "urllib.parse", "zstandard",
}
if fastprod.backend == "native":
    LATER |= {"fastprod.arrow_types", "random"}   # what the Python twin is made of


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads, in an interpreter that has what is needed already."""
    program = (
        f"import sys; sys.path.insert(0, {str(HOME)!r}); import {NEEDED}\n"
        "class Row(typing.NamedTuple): field: int\n"
        f"before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    )
    # -S: what is installed beside it may load modules when the interpreter starts.
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_package_loads_nothing() -> None:
    assert loaded_by("import fastprod") == {"fastprod", "fastprod._version"}


@pytest.mark.parametrize("name", [name for name in fastprod.__all__ if not name.startswith("_")])
def test_a_name_loads_nothing_that_is_slow(name: str) -> None:
    loaded = loaded_by(f"from fastprod import {name}")
    assert not LATER & loaded


def test_the_producer_s_engine_is_loaded_with_the_first_producer() -> None:
    assert not {name for name in loaded_by("from fastprod import KafkaProducer") if name.startswith("fastprod.control")}
