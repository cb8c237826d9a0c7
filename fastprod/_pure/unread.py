"""Failures that nobody has seen: counted, and those whose futures are gone kept to be told of."""

from __future__ import annotations

import collections
import contextlib

from fastprod.waiting import RLock


class UnreadFailures:
    """Of one plane."""

    __slots__ = ("_count", "_dropped", "lock")

    def __init__(self) -> None:
        # Entered again where a destructor runs inside it. Nobody waits for another one inside it.
        self.lock = RLock()
        self._count = 0
        self._dropped: collections.deque[tuple[int, BaseException]] = collections.deque()

    @property
    def count(self) -> int:
        """Failed records whose error no future and no errback has handed out yet."""
        return self._count

    def add(self, amount: int) -> None:
        with self.lock:
            self._count += amount

    def drop(self, amount: int, example: BaseException) -> None:
        """Nobody can look at these any more. Called by a destructor, on any thread: no lock."""
        self._dropped.append((amount, example))

    def take(self) -> tuple[int, BaseException | None]:
        """How many were dropped unseen since the last call, and one of them (None: none)."""
        count, example = 0, None
        with contextlib.suppress(IndexError):  # another thread may take them, too
            while True:
                amount, error = self._dropped.popleft()
                count += amount
                example = example or error
        return count, example


class Unread:
    """The failures of one batch. It lives as long as a future that could look at them, and only
    batches that failed have one: success pays nothing for it."""

    __slots__ = ("_all", "_error", "_left")

    def __init__(self, failures: UnreadFailures, records: int, error: BaseException) -> None:
        self._all = failures
        self._left = records
        self._error = error
        failures.add(records)

    def seen(self) -> None:
        """One future or errback has got its error. The lock of the failures is held."""
        if self._left > 0:
            self._left -= 1
            self._all.add(-1)

    def __del__(self) -> None:
        if self._left > 0:
            self._all.drop(self._left, self._error)
