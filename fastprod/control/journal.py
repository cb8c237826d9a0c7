"""Log messages of the control thread, written where foreign code can do no harm.

A logging handler is foreign code: one that itself sends to Kafka would enter the control loop
again in the middle of reading a socket. What the control thread has to say is therefore kept
until the loop is between two steps.

A stream is locked while it is written to, and in a child that is forked meanwhile it stays so: its
next message would be the last thing that a thread there does. So a fork waits until no message is
being written, and messages wait until it is over; neither for long, for a handler may hang.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import threading
import time
from typing import Final

# A handler that hangs must not let the backlog grow without bound.
_MOST_KEPT: Final = 1000
_PATIENCE_S: Final = 1.0
_PAUSE_S: Final = 0.001

# Threads that write, by their idents. No lock, which a signal's handler might leave locked.
_writing: set[int] = set()
_forking_until = 0.0   # monotonic s


class Journal:
    """Queues messages of the thread that owns it; other threads log at once."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._kept: collections.deque[tuple[int, str, tuple[object, ...], BaseException | None]]
        self._kept = collections.deque(maxlen=_MOST_KEPT)
        self._owner: int | None = None

    def own(self) -> None:
        """From now on messages of the calling thread wait for `release`."""
        self._owner = threading.get_ident()

    def debug(self, message: str, *args: object) -> None:
        self._write(logging.DEBUG, message, args)

    def info(self, message: str, *args: object) -> None:
        self._write(logging.INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        self._write(logging.WARNING, message, args)

    def error(self, message: str, *args: object, cause: BaseException | None = None) -> None:
        """`cause` is logged with its traceback."""
        self._write(logging.ERROR, message, args, cause)

    def release(self) -> None:
        """Write what was kept. A handler that raises loses its message and nothing else."""
        while self._kept:
            level, message, args, cause = self._kept.popleft()
            _begin_writing()
            try:
                with contextlib.suppress(Exception):
                    self._logger.log(level, message, *args, exc_info=cause)
            finally:
                _writing.discard(threading.get_ident())

    def _write(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        cause: BaseException | None = None,
    ) -> None:
        if not self._logger.isEnabledFor(level):
            return
        if threading.get_ident() == self._owner:
            self._kept.append((level, message, args, cause))
        else:
            self._logger.log(level, message, *args, exc_info=cause)


def _begin_writing() -> None:
    me = threading.get_ident()
    _writing.add(me)
    while time.monotonic() < _forking_until:
        _writing.discard(me)
        time.sleep(_PAUSE_S)
        _writing.add(me)


def _before_fork() -> None:
    global _forking_until
    until = _forking_until = time.monotonic() + _PATIENCE_S
    # A handler may fork.
    while _writing - {threading.get_ident()} and time.monotonic() < until:
        time.sleep(_PAUSE_S)


def _after_fork() -> None:
    global _forking_until
    _forking_until = 0.0


def _in_child() -> None:
    _writing.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
    )
