"""Counts how records ended, in the order they were sent, while more are being sent.

A thread looks at the oldest futures again and again. A callback a record would say the same at three times the cost of
sending it; and futures that nobody looks at until the end would pile up with the input.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fastprod import FutureRecordMetadata

# Bytes on their way are bounded by buffer_memory; this bounds what many tiny records cost beyond their bytes.
_MOST_WAITING = 200_000
_LOOK_S = 0.02
_PAUSE_S = 0.001


class Outcomes:
    """The records that were accepted and how many of them are acknowledged or failed so far.

    `on_failure` is called with the record's number and its error, from the thread that looks.
    """

    def __init__(self, on_failure: Callable[[int, BaseException], None]) -> None:
        self.accepted = 0
        self.acknowledged = 0
        self.failed = 0
        self._on_failure = on_failure
        self._waiting: deque[tuple[int, FutureRecordMetadata]] = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="fastprod-outcomes", daemon=True)

    @property
    def waiting(self) -> int:
        """Records that are neither acknowledged nor failed."""
        return len(self._waiting)

    def add(self, number: int, future: FutureRecordMetadata) -> None:
        """Take an accepted record; waits while very many of them are not acknowledged yet."""
        self._waiting.append((number, future))
        self.accepted += 1
        while len(self._waiting) > _MOST_WAITING:
            time.sleep(_PAUSE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count what is done by now, for the last time."""
        self._over.set()
        self._thread.join()
        self._settle()

    def _follow(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._settle()

    def _settle(self) -> None:
        waiting = self._waiting
        while waiting:
            number, future = waiting[0]
            if future.succeeded():
                self.acknowledged += 1
            elif future.is_done:
                self.failed += 1
                error = future.exception
                assert error is not None
                self._on_failure(number, error)
            else:
                return
            waiting.popleft()
