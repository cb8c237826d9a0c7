"""How long a caller is willing to wait, and what it waits at."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from fastprod import failures

if TYPE_CHECKING or sys.version_info < (3, 14):
    Lock = threading.Lock
    RLock = threading.RLock
else:

    class RLock(type(threading.RLock())):
        """For `with`: a lock that is given back whenever a signal's handler raises.

        From CPython 3.14 on `with` enters by an ordinary call, behind which a handler may run: the lock is taken by
        then, and what is to give it back not yet in force. Behind this call, which is Python, none runs.
        """

        __slots__ = ()

        def __enter__(self):
            try:
                return self.acquire()
            except BaseException:
                # A nested one has it for sure, so what is taken back is what was just taken.
                if self._is_owned():
                    self.release()
                raise

    Lock = RLock   # only those that can be entered again tell whose they are


def seconds_of(timeout: Any) -> float:
    """Return a timeout in seconds, negative or infinite ones as well.

    Raises TypeError for what is no number and ValueError for NaN, of which no wait would ever end.
    """
    # float() reads numbers out of these.
    if isinstance(timeout, (str, bytes, bytearray)):
        raise failures.bad_timeout(timeout)
    try:
        seconds = float(timeout)
    except TypeError:
        raise failures.bad_timeout(timeout) from None
    except OverflowError:
        return float("inf") if timeout > 0 else float("-inf")
    if seconds != seconds:
        raise failures.not_a_timeout(timeout)
    return seconds


class Gate:
    """Shut until it is opened, once, for any number of waiters, who then look for themselves.

    A bare lock, because a signal's handler may raise at any call of the main thread: threading's
    Event and Condition are Python, and an exception in the wrong place there leaves their lock
    locked for good, and stuck at it whoever wakes.
    """

    __slots__ = ("_lock", "_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._open = False

    def open(self) -> None:
        """Let all pass, now and later."""
        self._open = True
        try:   # noqa: SIM105  # a handler may run in what is Python, as contextlib
            self._lock.release()
        except RuntimeError:
            pass   # by one whose time was over just now

    def wait(self, seconds: float) -> None:
        """Wait until it is open, at most `seconds`."""
        try:
            self._lock.acquire(timeout=seconds)
        finally:
            # Whether this call holds the lock it cannot know, where a handler raised behind the line above; but whoever
            # comes by once the gate is open leaves the lock free.
            if self._open:
                try:   # noqa: SIM105  # as above
                    self._lock.release()
                except RuntimeError:
                    pass   # another one has
