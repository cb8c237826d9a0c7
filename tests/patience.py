"""How long a test waits, and how late is too late, stated once for all tests.

A wait is kept within STRICT_S on an idle machine. Tests run on busy ones, so they fail from SLACK_S on and print what
it really was; FASTPROD_TEST_SLACK_S=0.5 holds them to the promise. A test that could not tell right from wrong with as
much slack names its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

STRICT_S = 0.5
SLACK_S = float(os.environ.get("FASTPROD_TEST_SLACK_S", STRICT_S + 2.5))
# A wait may end this much early: clocks of different resolution, milliseconds rounded down.
EARLY_S = 0.05


def check_time(
    what: str,
    took_s: float,
    limit_s: float,
    *,
    at_least_s: float = 0.0,
    slack_s: float = SLACK_S,
    early_s: float = EARLY_S,
) -> None:
    """Fail if `took_s` is over `limit_s` with `slack_s`, or more than `early_s` under `at_least_s`."""
    over = took_s - limit_s
    verdict = "kept" if over < STRICT_S else "LATE"
    print(f"[time] {what}: {took_s:.3f} s for {limit_s:.3f} s, {over:+.3f} s ({verdict} within {STRICT_S} s)")
    assert over < slack_s, f"{what} took {took_s:.3f} s instead of {limit_s:.3f} s"
    assert took_s >= at_least_s - early_s, f"{what} took only {took_s:.3f} s instead of {at_least_s:.3f} s"


@contextlib.contextmanager
def in_time(what: str, limit_s: float, **bounds: float) -> Iterator[None]:
    """Fail if the block takes longer than `limit_s`, or less than it must; `bounds` as for `check_time`."""
    began = time.monotonic()
    yield
    check_time(what, time.monotonic() - began, limit_s, **bounds)


def eventually(condition: Callable[[], Any], what: str = "it", seconds: float = 30.0) -> Any:
    """Return what `condition` returns once it is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.005)
