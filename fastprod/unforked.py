"""Steps that no other thread forks in the middle of.

What another thread has locked at a fork stays locked in the child for good: the stream that it
writes a log message to, the module that it imports. A thread of the child that comes by stops
there, and if that is the control thread, so does every send. So forks wait for such steps, and such
steps for forks, each with a limit: a step may hang, or wait for the thread that forks.

An exception that a signal's handler raises while a fork waits ends that wait, and is printed: so it
is with all hooks of a fork.
"""

from __future__ import annotations

import logging  # noqa: F401  # its hook takes its lock before a fork, and must do so behind this one's wait
import os
import threading
import time
from types import TracebackType
from typing import Final

_FORK_S: Final = 1.0
_PAUSE_S: Final = 0.001

# Ident of a thread -> until when others wait for its step, or for its fork; monotonic s. No lock,
# which a signal's handler might leave locked: what one leaves here expires.
_busy: dict[int, float] = {}
_forking: dict[int, float] = {}


class Unforked:
    """`with Unforked(seconds):` no other thread forks in the block, as long as it takes no longer
    than that. May be nested, in any thread. Waits a second at most for forks under way."""

    __slots__ = ("_outer", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        me = threading.get_ident()
        now = time.monotonic()
        outer = _busy.get(me, 0.0)
        self._outer = outer if outer > now else 0.0
        _busy[me] = max(outer, now + self._seconds)
        if self._outer:
            return   # who forks waits for this thread already
        latest = now + _FORK_S
        while time.monotonic() < latest and _awaited(_forking, me):
            _busy.pop(me, None)
            time.sleep(_PAUSE_S)
            _busy[me] = time.monotonic() + self._seconds

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        me = threading.get_ident()
        if self._outer:
            _busy[me] = self._outer
        else:
            _busy.pop(me, None)


def _awaited(others: dict[int, float], me: int) -> bool:
    """Whether a thread besides this one is to be waited for."""
    now = time.monotonic()
    # A copy: others change it, and a finalizer may have them do so between two steps of `items`.
    return any(until > now for thread, until in others.copy().items() if thread != me)


def _before_fork() -> None:
    me = threading.get_ident()
    while True:
        _forking[me] = time.monotonic() + _FORK_S
        if not _awaited(_busy, me):
            return
        time.sleep(_PAUSE_S)


def _after_fork() -> None:
    _forking.pop(threading.get_ident(), None)


def _in_child() -> None:
    me = threading.get_ident()
    mine = _busy.get(me)   # a log's handler may fork
    _busy.clear()
    if mine is not None:
        _busy[me] = mine
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
    )
