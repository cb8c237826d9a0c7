"""Signals that come while a call of the main thread blocks."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from patience import check_time

# Whether a call waits in native code already is not to be seen from outside; it has this long to get there.
_BLOCKED_AFTER_S = 0.3

Way = Callable[[int], None]


def to_the_process(number: int) -> None:
    """As a terminal and `kill` do: it interrupts the main thread's system call."""
    os.kill(os.getpid(), number)


def to_another_thread(number: int) -> None:
    """The main thread's system call goes on: it must come back to Python by itself."""
    signal.raise_signal(number)


# os.kill ends the process on Windows.
WAYS: list[Way] = [to_another_thread] if sys.platform == "win32" else [to_the_process, to_another_thread]


class _Sender:
    """Sends a signal, once, from a thread of its own, unless the call that it is for has ended by then."""

    def __init__(self, number: int, way: Way) -> None:
        self.sent_at = 0.0
        self._number = number
        self._way = way
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        if not self._over.wait(_BLOCKED_AFTER_S):
            self.sent_at = time.monotonic()
            self._way(self._number)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def _handled(number: int, handler: Callable[[], None], way: Way) -> Iterator[_Sender]:
    """Send the signal into the block. `handler` is called there only: what it raises must not hit the test itself."""
    inside = True

    def handle(*_: object) -> None:
        if inside:
            handler()

    before = signal.signal(number, handle)
    sender = _Sender(number, way)
    try:
        yield sender
    finally:
        inside = False
        sender.stop()
        signal.signal(number, before)


def interrupt(what: str, call: Callable[[], Any], way: Way) -> None:
    """Call `call`, which blocks, and have Ctrl-C end it, in time."""

    def ctrl_c() -> None:
        raise KeyboardInterrupt

    with _handled(signal.SIGINT, ctrl_c, way) as sender:
        try:
            result = call()
        except KeyboardInterrupt:
            took = time.monotonic() - sender.sent_at
        else:
            raise AssertionError(f"{what} did not block, or Ctrl-C was lost: it returned {result!r}")
    check_time(f"Ctrl-C in {what}", took, 0)


def serve(what: str, call: Callable[[], Any], number: int, handler: Callable[[], None], way: Way) -> Any:
    """Call `call`, which blocks, and have a signal's handler run meanwhile, in time. Return what `call` returns."""
    served: list[float] = []

    def handle() -> None:
        served.append(time.monotonic())
        handler()

    with _handled(number, handle, way) as sender:
        try:
            return call()
        finally:
            sender.stop()
            assert sender.sent_at, f"{what} did not block"
            assert len(served) == 1, f"the handler ran {len(served)} times during {what}"
            check_time(f"a handler during {what}", served[0] - sender.sent_at, 0)
