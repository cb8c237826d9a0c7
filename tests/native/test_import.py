"""A module whose import was interrupted is imported again in the same process, with what the first try left in C."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.native_only

AGAIN = """
import sys

sys.modules["fastprod.columns"] = None
try:
    import fastprod._core
except ImportError:
    del sys.modules["fastprod.columns"]
else:
    raise SystemExit("the first import was to fail")

from fastprod._core import FutureRecordMetadata

told = []
future = FutureRecordMetadata.failed_with("t", 0, ValueError("mine"))
for add in (future.add_errback, future.add_both):
    add(lambda *given, **named: told.append((given[:-1], named)))
    add(lambda *given, **named: told.append((given[:-1], named)), 1, two=2)
future.add_callback(print, "never", end="")
assert told == [((), {}), ((1,), {"two": 2})] * 2, told
"""


def test_the_second_import_works() -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
