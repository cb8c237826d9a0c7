"""Steps that no other thread forks in the middle of.

What another thread has locked at a fork stays locked in the child for good: the stream that it
writes a log message to, the module that it imports. A thread of the child that comes by stops
there, and if that is the control thread, so does every send. So forks wait for such steps, and such
steps for forks. Neither for long, for a step may hang, or wait for the thread that forks.
"""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Final

_FORK_S: Final = 1.0
_PAUSE_S: Final = 0.001

# Ident of a thread -> until when a fork waits for it, monotonic s. No lock, which the handler of a
# signal might leave locked; what it leaves here, or in the other one, expires.
_busy: dict[int, float] = {}
_forking_until = 0.0


class Unforked:
    """`with Unforked(seconds):` no other thread forks in the block, as long as it takes no longer
    than that. May be nested, in any thread."""

    __slots__ = ("_outer", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        me = threading.get_ident()
        self._outer = _busy.get(me)
        _busy[me] = time.monotonic() + self._seconds
        # In a block within another one: who forks waits for this thread already.
        while self._outer is None and time.monotonic() < _forking_until:
            del _busy[me]
            time.sleep(_PAUSE_S)
            _busy[me] = time.monotonic() + self._seconds

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        me = threading.get_ident()
        if self._outer is None:
            _busy.pop(me, None)
        else:
            _busy[me] = self._outer


def _before_fork() -> None:
    global _forking_until
    me = threading.get_ident()
    while True:
        now = time.monotonic()
        _forking_until = now + _FORK_S
        # The thread that forks may itself be in such a step, as a log's handler is.
        if all(thread == me or until < now for thread, until in list(_busy.items())):
            return
        time.sleep(_PAUSE_S)


def _after_fork() -> None:
    global _forking_until
    _forking_until = 0.0


def _in_child() -> None:
    me = threading.get_ident()
    for thread in list(_busy):
        if thread != me:
            del _busy[thread]
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
    )
