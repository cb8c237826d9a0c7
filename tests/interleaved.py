"""Two threads at the same thing, the second between any two instructions of the first.

Where an interpreter has no GIL they may be anywhere, and where it has one at any call. What one does under a lock, the
other waits for.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# A thread that has not ended by then waits for the one that is traced.
BLOCKED_S = 0.02


class Between:
    """In the block, and from `arm` on: before the instruction of that number, 1 being the first, that this thread comes
    by in files whose paths begin like `path`, another one calls `other`. `reached`: it came by as many."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.reached = False
        self._left = 0
        self._thread = threading.Thread()
        self._tracer_before = sys.gettrace()

    def arm(self, number: int, other: Callable[[], object]) -> None:
        self._left = number
        self._thread = threading.Thread(target=other)

    def __enter__(self) -> Between:
        sys.settrace(self._entered)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracer_before)
        if self.reached:
            self._thread.join(20)
            assert not self._thread.is_alive()

    def _entered(self, frame: FrameType, _event: str, _arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(self._path):
            return None
        frame.f_trace_opcodes = True
        return self._traced

    def _traced(self, _frame: FrameType, event: str, _arg: Any) -> Callable[..., Any]:
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                self.reached = True
                self._thread.start()
                self._thread.join(BLOCKED_S)
        return self._traced


Case = tuple[Callable[[], object], Callable[[], object], Callable[[], object]]


def everywhere(path: str, case: Callable[[], Case]) -> None:
    """`case()` sets out anew, and returns what the first thread does, what the second does, and what checks it."""
    for number in itertools.count(1):
        with Between(path) as between:
            # From 3.12 on a function's instructions are shown from the second time on.
            for step in case():
                step()
            act, other, check = case()
            between.arm(number, other)
            act()
        if not between.reached:
            assert number > 4
            return
        check()
