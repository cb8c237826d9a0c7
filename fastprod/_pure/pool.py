"""Memory for batches: a hard budget, charged by size class, waited for in arrival order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from fastprod import failures
from fastprod._pure import layout
from fastprod._pure.delivery import Host
from fastprod.waiting import Gate, RLock


class Holder(Protocol):
    """Who memory is taken for: a record on its way, or a batch. It is charged in one go with the
    pool, with no call in between in which a signal's exception could come: what was taken is
    known to somebody at any time."""

    charge: int


class _Waiter:
    """A sender in line. `granted` is set under the pool's lock by whoever frees memory."""

    __slots__ = ("gate", "granted", "inside", "size")

    def __init__(self, size: int, inside: bool) -> None:
        self.size = size
        self.inside = inside
        self.granted = False
        self.gate = Gate()


class BufferPool:
    """Counts the bytes that batches hold; never more than `budget`.

    `charged` are bytes of batches that are open, queued, in flight, or ended but still in a
    request. `owed` are bytes that registered callbacks take, and those that an ended batch held
    until its callbacks have run. The latter are free, but senders other than the control thread act
    as if they were not, so that results cannot pile up without bound. The control thread runs those
    callbacks and must not wait for itself: it looks at `charged` alone and passes the line, whose
    members may all be waiting for what it decides.
    """

    def __init__(
        self, budget: int, batch_size: int, host: Host, on_pressure: Callable[[], None]
    ) -> None:
        self.budget = budget
        self.charged = 0
        self.owed = 0
        self.closed = False
        self._largest_class = max(batch_size, layout.BATCH_HEADER + 1) - layout.BATCH_HEADER
        self._host = host
        host.pool = self
        self._on_pressure = on_pressure
        self.lock = RLock()
        self._line: deque[_Waiter] = deque()

    @property
    def pressed(self) -> bool:
        """Whether somebody waits for memory: partial batches then leave."""
        return bool(self._line)

    def size_class(self, size: int) -> int:
        """What a buffer of `size` bytes is charged: a power of two up to the batch size, exactly
        its size beyond that or where the budget ends."""
        if size > self._largest_class:
            return size
        size_class = max(layout.SIZE_CLASS_MIN, 1 << (size - 1).bit_length())
        size_class = min(size_class, self._largest_class)
        return size_class if size_class <= self.budget else size

    def try_take(self, size: int, holder: Holder) -> bool:
        """Take `size` bytes for `holder` if they are there and nobody waits in line."""
        with self.lock:
            if self._line or self.charged + self.owed + size > self.budget:
                return False
            self.charged += size
            holder.charge += size
            return True

    def take(self, size: int, timeout_s: float, holder: Holder) -> None:
        """Take `size` bytes for `holder`, waiting up to `timeout_s` in line.

        Raises KafkaTimeoutError when they do not come in time, IllegalStateError once the producer
        is closing.
        """
        if self.try_take(size, holder):
            return
        inside = self._host.on_control_thread()
        waiter = _Waiter(size, inside)
        try:
            with self.lock:
                if inside:
                    self._line.appendleft(waiter)
                else:
                    self._line.append(waiter)
                self._grant()
            self._on_pressure()
            self._wait(waiter, time.monotonic(), timeout_s)
            holder.charge += size
        except BaseException:
            # Also a signal's KeyboardInterrupt: the place in line goes, and so does a grant that
            # came just before.
            with self.lock:
                if waiter.granted:
                    self.charged -= size
                elif waiter in self._line:
                    self._line.remove(waiter)
                self._grant()
            raise

    def _wait(self, waiter: _Waiter, began: float, timeout_s: float) -> None:
        engine = self._host.engine
        while not waiter.granted:
            if self.closed:
                raise failures.closed()
            waited = time.monotonic() - began
            if waited >= timeout_s:
                troubles = dict(self._host.troubles)
                raise failures.buffer_full(waiter.size, self.budget, waited * 1000, troubles)
            slice_s = min(layout.SIGNAL_SLICE, timeout_s - waited)
            if waiter.inside and engine is not None:
                engine.pump(min(slice_s, 0.005))
            else:
                waiter.gate.wait(slice_s)

    def _grant(self) -> None:
        """Serve the line from its front, as far as memory goes. The lock is held."""
        while self._line:
            waiter = self._line[0]
            owed = 0 if waiter.inside else self.owed
            if self.charged + owed + waiter.size > self.budget:
                return
            self.charged += waiter.size
            waiter.granted = True
            self._line.popleft()
            waiter.gate.open()

    def charge(self, size: int) -> None:
        """Take `size` bytes whether they are there or not."""
        with self.lock:
            self.charged += size

    def give(self, size: int, holder: Holder) -> None:
        """Return `size` of the bytes that `holder` has."""
        with self.lock:
            self.charged -= size
            holder.charge -= size
            self._grant()

    def owe(self, size: int) -> None:
        """Callbacks, or a batch that held its bytes until they have run, take `size` bytes."""
        with self.lock:
            self.owed += size

    def settle(self, size: int) -> None:
        """They have run."""
        with self.lock:
            self.owed -= size
            self._grant()

    def close(self) -> None:
        """Everybody in line gets an error."""
        self.closed = True
        with self.lock:
            while self._line:
                self._line.popleft().gate.open()
