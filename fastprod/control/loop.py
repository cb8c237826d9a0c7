"""The control thread's event loop: sockets, timers and calls from other threads.

It waits in `select` and nowhere else. A handler that raises is logged and the loop goes on. One
pass at a time: code that is reached from inside a handler finds `busy` set and must not run the
loop again; delivery callbacks and log messages run between passes, where it may.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from fastprod.control.journal import Journal

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE

_DRAIN_BYTES: Final = 4096


class Timer:
    """A call that is due at `when` (monotonic seconds)."""

    __slots__ = ("_action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Make it do nothing; the action is let go at once. Harmless when it has run."""
        self._action = None

    @property
    def pending(self) -> bool:
        return self._action is not None

    def run(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Loop:
    """See the module's text. Only `wake`, `call_threadsafe` and `now` are for other threads."""

    def __init__(
        self, journal: Journal, selector: Callable[[], selectors.BaseSelector] | None = None
    ) -> None:
        self._journal = journal
        # poll() where there is one: epoll and kqueue descriptors are shared with a forked child,
        # which would change what the parent waits for. We have a handful of sockets.
        poll = getattr(selectors, "PollSelector", selectors.SelectSelector)
        self._selector: selectors.BaseSelector = (selector or poll)()
        self._timers: list[tuple[float, int, Timer]] = []
        self._ordinal = itertools.count()
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, READ, self._drain_wakes)
        self.busy = False

    @property
    def wake_fd(self) -> int:
        """The descriptor to send one byte to so that the loop wakes up (the plane's event_fd)."""
        return self._wake_write.fileno()

    @staticmethod
    def now() -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wake(self) -> None:
        """End the wait in progress, or the next one. Any thread."""
        # Full: it will wake anyway. Closed: nobody is left to be woken.
        with contextlib.suppress(OSError):
            self._wake_write.send(b"w")

    def call_threadsafe(self, action: Callable[[], None]) -> None:
        """Have the loop's thread call `action` soon. Any thread."""
        self._calls.append(action)
        self.wake()

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Have `action` called in `delay_s` seconds."""
        timer = Timer(self.now() + max(0.0, delay_s), action)
        heapq.heappush(self._timers, (timer.when, next(self._ordinal), timer))
        return timer

    def watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler(ready events)` whenever the socket is ready; replaces an earlier watch."""
        try:
            self._selector.modify(sock, events, handler)
        except KeyError:
            self._selector.register(sock, events, handler)

    def unwatch(self, sock: socket.socket) -> None:
        """Stop watching a socket; before it is closed. Harmless if it is not watched."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def run_once(self, max_wait_s: float) -> None:
        """Wait at most that long for something to do, then do all that is due."""
        if self.busy:
            raise RuntimeError("the control loop was entered from one of its own handlers")
        self.busy = True
        try:
            for key, ready in self._selector.select(self._wait_s(max_wait_s)):
                if self._is_watched(key):
                    self.guard(key.data, ready)
            self._run_calls()
            self._run_timers()
        finally:
            self.busy = False

    def close(self) -> None:
        """Let go of all descriptors. Sockets that are still watched are not closed."""
        self._timers.clear()
        self._calls.clear()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def inherited(self) -> None:
        """Close all descriptors in a forked child: while it holds a copy of a connection, closing
        the parent's does not end it."""
        for key in list((self._selector.get_map() or {}).values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.close()

    def _wait_s(self, most: float) -> float:
        if self._calls:
            return 0.0
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
        if self._timers:
            most = min(most, self._timers[0][0] - self.now())
        return max(0.0, most)

    def _is_watched(self, key: selectors.SelectorKey) -> bool:
        """Whether an earlier handler of this pass has left this watch as it was; a descriptor may
        even belong to another socket by now."""
        try:
            return self._selector.get_key(key.fileobj) is key
        except (KeyError, ValueError):
            return False

    def _run_calls(self) -> None:
        # Only what was there at the start: a call that adds a call must not keep us here.
        for _ in range(len(self._calls)):
            self.guard(self._calls.popleft())

    def _run_timers(self) -> None:
        now = self.now()
        due: list[Timer] = []
        while self._timers and self._timers[0][0] <= now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            self.guard(timer.run)

    def _drain_wakes(self, _ready: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(_DRAIN_BYTES)

    def guard(self, action: Callable[..., None], *args: object) -> None:
        """Call `action`; what it raises is logged and goes no further."""
        try:
            action(*args)
        except Exception as error:
            self._journal.error("Internal error in the control loop: %r", error, cause=error)
