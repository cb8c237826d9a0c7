"""How one thread ends another's sleep in select."""

from __future__ import annotations

import contextlib
import socket

from fastprod.waiting import RLock


class Wakeup:
    """A byte in a socket for a thread that sleeps in select: one, until the sleeper says that it
    woke."""

    __slots__ = ("_sent", "_socket", "lock")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.lock = RLock()  # a handler in the middle of it may send
        self._sent = False

    def send(self) -> None:
        with self.lock:
            if self._sent:
                return
            # An error means full, and the sleeper wakes anyway, or closed, and nobody is left to
            # wake.
            with contextlib.suppress(OSError):
                self._socket.send(b"!")
            # Not before: a signal's handler may raise in between, and nobody would send any more.
            self._sent = True

    def seen(self) -> None:
        """The sleeper is awake and will look at everything now."""
        with self.lock:
            self._sent = False
