"""`close_on_sigterm`: a service that is told to end delivers what it has accepted.

A signal's handler runs on the main thread, in the middle of anything, `send` and its locks included. So it waits for
nothing: it starts a thread that closes the producers, and returns. When they are closed that thread sends the signal
again, and now the handler does what would have been done without it.

    IDLE --SIGTERM: begin to close--> CLOSING --closed: SIGTERM again--> CLOSED --the handler before, or the end--> IDLE
"""

from __future__ import annotations

import _thread
import atexit
import collections
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Final

from fastprod import errors, waiting

if TYPE_CHECKING:
    from fastprod.faces.kafka_python import KafkaProducer

log = logging.getLogger(__name__)

_IDLE: Final = "idle"
_CLOSING: Final = "closing"
_CLOSED: Final = "closed"
# What `close` may take beyond its timeout: threads that end, serializers that are closed.
_MARGIN_S: Final = 1.0


def close_on_sigterm(*producers: KafkaProducer, timeout: float = 25.0) -> None:
    """Have SIGTERM close these producers, and end the process after that as it would have without.

    From the signal on they accept nothing more (`send` raises IllegalStateError) and deliver what they hold, side by
    side, for `timeout` seconds: choose less than whoever sends SIGTERM waits before it kills (Kubernetes 30 s, docker
    stop 10 s). The main thread goes on meanwhile, wherever it is. What could not be delivered is logged (logger
    `fastprod.faces.sigterm`) and stays in each producer's `undelivered()`. Then the handler that was there before is
    called, with the producers closed; where there was none the process ends by the signal (status -15, in a shell 143),
    even as process 1 of a container, which the system lets ignore it. Where SIGTERM was ignored, it is again.

    Another SIGTERM meanwhile changes nothing. Called again, it adds producers, and the newest `timeout` is for all. It
    keeps no producer alive; those that are closed by other means are left alone. A forked child inherits it, for what
    the child itself has sent. A program that leaves while they are closed waits for that.

    A server that goes on with its requests after SIGTERM (gunicorn, uvicorn) needs its producers for them: close them
    in its hook for the end of a worker instead.

    Raises RuntimeError outside the main thread, where no handler can be set, ValueError without producers or for a
    timeout that is none, and TypeError for one that is no number.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "close_on_sigterm() sets a signal handler, which only the main thread can do: call it there."
        )
    if not producers:
        raise ValueError("close_on_sigterm() needs the producers that SIGTERM is to close.")
    seconds = waiting.seconds_of(timeout)
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"Invalid timeout: {timeout}. It is in seconds, from 0 to {threading.TIMEOUT_MAX:.0f}.")
    global _current
    if _current is None or signal.getsignal(signal.SIGTERM) != _current.handle:
        _current = _Handler(_current)
    _current.timeout_s = seconds
    for each in producers:
        _current.producers.add(each)


class _Handler:
    """SIGTERM's handler. All but `_close` is for the main thread."""

    def __init__(self, replaced: _Handler | None) -> None:
        """`replaced`: the one that somebody put another handler in the place of."""
        self.timeout_s = 0.0
        self.producers: weakref.WeakSet[KafkaProducer] = weakref.WeakSet(replaced.producers if replaced else ())
        self._state = _IDLE
        self._process = 0  # in which it is not idle: a forked child begins anew
        self._previous = signal.signal(signal.SIGTERM, self.handle)
        atexit.register(self._at_exit)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What SIGTERM calls."""
        if self._process != os.getpid():
            self._process, self._state = os.getpid(), _IDLE
        if self._state == _CLOSED:
            self._state = _IDLE
            self._go_on(number, frame)
        elif self._state == _IDLE:
            self._state = _CLOSING
            # Not `threading`: it has locks of its own, and the main thread may hold one just now.
            _thread.start_new_thread(self._close, (list(self.producers), self.timeout_s))

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        """Do what the process would have done."""
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            # Process 1 of a container is spared by signals that it does not handle.
            os._exit(128 + number)

    def _close(self, producers: Iterable[KafkaProducer], timeout_s: float) -> None:
        enough = time.monotonic() + timeout_s + _MARGIN_S
        try:
            # Daemons: one that a serializer's close() holds up must not hold up the end.
            closing = [threading.Thread(target=_close_one, args=(each, timeout_s), daemon=True) for each in producers]
            for thread in closing:
                thread.start()
            for thread in closing:
                thread.join(max(0.0, enough - time.monotonic()))
        finally:
            self._state = _CLOSED
            _signal_main_thread()

    def _at_exit(self) -> None:
        """The program leaves by itself, for one because `send` raised. Engines have hooks of their own, with less
        patience; this one was registered after theirs, and so runs before."""
        while self._state != _IDLE and self._process == os.getpid():
            time.sleep(0.01)


_current: _Handler | None = None


def _signal_main_thread() -> None:
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)  # os.kill would end the process
    else:
        # To the process: the system gives it to the main thread, whose sleep it ends, unless that one blocks it.
        os.kill(os.getpid(), signal.SIGTERM)


def _close_one(producer: KafkaProducer, timeout_s: float) -> None:
    name = producer.config["client_id"]
    try:
        producer.close(timeout_s)
    except errors.KafkaTimeoutError:
        left = producer.undelivered()
        places = collections.Counter(f"{each.topic}-{each.partition}" for each in left)
        log.error(
            "%s: SIGTERM, and %s record(s) could not be delivered within %g s: %s. %s of them may have been written.",
            name,
            len(left),
            timeout_s,
            ", ".join(f"{count} of {place}" for place, count in sorted(places.items())),
            sum(each.maybe_written for each in left),
        )
    except Exception:
        log.exception("%s: SIGTERM, and closing it failed", name)
