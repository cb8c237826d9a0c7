"""The control thread: one loop that handles sockets, the data plane's events and callbacks.

A pass handles everything that is due and runs no foreign code. Between passes come log messages
and delivery callbacks, which are foreign; from there the loop may be entered again (`pump`), and
then runs passes only. Whatever raises, the loop goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastprod.control.journal import Journal
from fastprod.control.loop import Loop
from fastprod.control.seam import Plane
from fastprod.waiting import RLock

_LONGEST_WAIT_S: Final = 1.0
# After an internal error the next pass waits this long, so that one that repeats cannot spin.
_AFTER_ERROR_S: Final = 0.05
# Callbacks run this long before the next pass, one batch at least.
_CALLBACKS_S: Final = 0.01
_MOST_ERRORS_IN_A_ROW: Final = 100

Handler = Callable[..., None]


class ControlThread:
    """Runs `loop` and the plane's events in a daemon thread until `stop`."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        plane: Plane,
        journal: Journal,
        handlers: Mapping[int, Handler],
        on_broken: Callable[[BaseException], None],
        on_end: Callable[[], None],
    ) -> None:
        """`handlers`: event kind -> handler of its other items. `on_broken`: the loop fails over
        and over. `on_end`: the last thing that the thread does."""
        self._loop = loop
        self._plane = plane
        self._journal = journal
        self._handlers = handlers
        self._on_broken = on_broken
        self._on_end = on_end
        # Held while events are decided on: whoever gives up all batches must not do so between an
        # event and its verdict. Entered again where a destructor runs inside.
        self.deciding = RLock()
        self._stopping = False
        self._ended = False
        self._passing = False
        self._errors = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        # An ident is given to another thread once its own has ended.
        return not self._ended and threading.get_ident() == self._thread.ident

    def stop(self) -> None:
        """Have the thread run the callbacks that are due and end. Any thread, does not wait."""
        self._stopping = True
        self._loop.wake()

    def inherited(self) -> None:
        """This process is a forked child. If the fork came from a callback we are this thread, and
        its loop, which is the parent's business, must not go on."""
        self._stopping = self._ended = True

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def pump(self, seconds: float) -> None:
        """Run one pass of the loop, waiting at most `seconds`; control thread only."""
        if self._passing:
            # Reached from inside a pass: a destructor, a signal handler. It must not be entered.
            time.sleep(min(seconds, _AFTER_ERROR_S))
            return
        self._pass(seconds)

    def _run(self) -> None:
        self._journal.own()
        wait_s = 0.0
        while not self._stopping:
            try:
                self._pass(wait_s)
                self._journal.release()
                # A pass lets go of the interpreter, and beside a thread that computes it comes
                # back a switch interval (5 ms) later: too dear for the callbacks of one batch.
                left = self._plane.run_callbacks(_CALLBACKS_S)
                wait_s = 0.0 if left > 0 else _LONGEST_WAIT_S
                self._errors = 0
            except BaseException as error:
                wait_s = _AFTER_ERROR_S
                self._report(error)
        if not self._ended:
            self._finish()

    def _pass(self, wait_s: float) -> None:
        self._passing = True
        try:
            self._loop.run_once(wait_s)
            with self.deciding:
                for event in self._plane.take_events():
                    self._handle(event)
        finally:
            self._passing = False

    def _handle(self, event: tuple[Any, ...]) -> None:
        handler = self._handlers.get(event[0])
        if handler is None:
            self._journal.error("The data plane reported an event nobody knows: %r", event)
            return
        self._loop.guard(handler, *event[1:])

    def _report(self, error: BaseException) -> None:
        self._errors += 1
        self._journal.error("Internal error in the control thread: %r", error, cause=error)
        time.sleep(_AFTER_ERROR_S)
        if self._errors == _MOST_ERRORS_IN_A_ROW:
            self._loop.guard(self._on_broken, error)

    def _finish(self) -> None:
        try:
            while self._plane.run_callbacks() > 0:
                pass
        except BaseException as error:
            self._journal.error("Internal error while closing: %r", error, cause=error)
        self._loop.guard(self._on_end)
        self._journal.release()
        self._ended = True
