"""What a test leaves behind: batches, buffers and futures that are still there when it and its fixtures have ended.

The compiled twin counts batches and buffers in every build, futures in a debug build (`FASTPROD_DEBUG=1`, which
tests/native/sanitize.py makes); the other one counts all three.
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter

import pytest

_BEFORE = pytest.StashKey[Counter[str]]()
_FAILED = pytest.StashKey[bool]()
# Producers that were dropped unclosed deliver for a second, and what is unreachable is a matter of the collector.
_PATIENCE_S = 20.0
_PAUSE_S = 0.05


def live_objects() -> Counter[str]:
    """Of each twin that is loaded."""
    found: Counter[str] = Counter()
    for name in ("fastprod._core", "fastprod._pure"):
        twin = sys.modules.get(name)
        if twin is not None:
            found.update({f"{what} of {name}": count for what, count in twin.live_objects().items()})
    return found


def remember(item: pytest.Item) -> None:
    """The test itself begins. What fixtures of a wider scope hold is there already, and theirs."""
    item.stash[_BEFORE] = live_objects()
    item.stash[_FAILED] = False   # it may be run again


def note_failure(item: pytest.Item) -> None:
    """Its traceback is kept, and with that its variables."""
    item.stash[_FAILED] = True


def check(item: pytest.Item) -> None:
    """The test has ended, its fixtures too, and its log was dropped. Fails if something is left. There may be less than
    before: the last test of a module also ends what the module's fixtures held."""
    before = item.stash.get(_BEFORE, None)
    if before is None or item.stash[_FAILED]:
        return
    if isinstance(item, pytest.Function):
        item.funcargs.clear()  # what fixtures returned; pytest lets it go a moment later
    deadline = time.monotonic() + _PATIENCE_S
    while left := live_objects() - before:
        gc.collect()
        if not live_objects() - before:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"{item.nodeid} leaves behind: {dict(left)}", pytrace=False)
        time.sleep(_PAUSE_S)
