"""A signal's handler that raises, at any place where it can run.

Handlers run in the main thread where a call has ended, a function begins or a loop goes round.
"""

from __future__ import annotations

import dis
import functools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CALLS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "CALL_METHOD", "JUMP_BACKWARD"}


@functools.cache
def places(code: CodeType) -> set[int]:
    """The instructions before which a handler may run: behind a call or a jump back, and cleaned up after alike."""
    guards = dis.Bytecode(code).exception_entries

    def guarded_by(offset: int) -> list[int]:
        return [each.target for each in guards if each.start <= offset < each.end]

    found = set()
    before = None
    for each in dis.get_instructions(code):
        if before is not None and before.opname in CALLS and guarded_by(before.offset) == guarded_by(each.offset):
            found.add(each.offset if before.opname != "JUMP_BACKWARD" else before.argval)
        before = each
    return found


class Strike:
    """Raises KeyboardInterrupt at the place of that number, 1 being the first, that the block comes by in the files
    whose paths begin like one of `paths` (and in `threading`). `place`: where that was; None: not that far. `rehearse`:
    is called before. From 3.12 on a function's places are shown from the second time on that it is traced."""

    def __init__(self, number: int, *paths: str, rehearse: Callable[[], object] | None = None) -> None:
        self.place: str | None = None
        self._number = number
        self._left = 0
        self._rehearse = rehearse
        self._paths = (*paths, threading.__file__)
        # Whoever counts lines goes on counting them afterwards.
        self._tracer_before = sys.gettrace()

    def __enter__(self) -> Strike:
        sys.settrace(self._entered)
        if self._rehearse is not None:
            self._rehearse()
        self._left = self._number
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._tracer_before)

    def _entered(self, frame: FrameType, _event: str, _arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(self._paths):
            return None
        self._come_by(frame)
        frame.f_trace_opcodes = True
        return self._traced

    def _traced(self, frame: FrameType, event: str, _arg: Any) -> Callable[..., Any]:
        if event == "opcode" and frame.f_lasti in places(frame.f_code):
            self._come_by(frame)
        return self._traced

    def _come_by(self, frame: FrameType) -> None:
        self._left -= 1
        if self._left == 0:
            self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            raise KeyboardInterrupt
