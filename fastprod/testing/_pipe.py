"""One direction of a proxied connection: a bounded queue between two sockets that do not block.

What the sink does not take stays in the queue, and a full queue is not filled further: so the source feels the sink's
back-pressure. Nothing here waits; `due` says when to come again.
"""

from __future__ import annotations

import math
import socket
import struct
import sys
from collections import deque

from fastprod.testing._faults import Conditions, Direction

_READ_BYTES = 1 << 18
# With a slow direction a client should feel it, and not a queue of many seconds.
_QUEUE_S = 0.25
_SMALLEST_QUEUE = 4096
# How much a slow direction sends at once: small enough to look even, large enough not to spin.
_PORTION_S = 0.01
# Small pieces of one connection must not keep the others waiting.
_WRITES_AT_ONCE = 256
# A reset throws away what the sink's kernel has not taken yet, so it waits for that; not for ever, as a sink may be
# frozen.
_TAKEN_S = 5.0
_LOOK_S = 0.001


class Pipe:
    """Bytes on their way from `source` to `sink`, under the proxy's `conditions` for their direction.

    `ended`: nothing more comes from the source; `aborted`: and it did not end in order, or the connection is to be cut.
    `broken`: the sink takes nothing more. `stalled`: nothing passes any more. `lossy`: something was swallowed, so that
    the connection is of no use any more.
    """

    def __init__(
        self, direction: Direction, source: socket.socket, sink: socket.socket, conditions: Conditions
    ) -> None:
        self.direction = direction
        self.source = source
        self.sink = sink
        self.conditions = conditions
        self.ended = self.aborted = self.broken = self.stalled = self.lossy = self.finished = False
        self.blocked = False
        self.due: float | None = None
        self._queue: deque[tuple[float, memoryview]] = deque()
        self._size = 0
        self._allowance = 0.0
        self._allowed_at = 0.0
        self._reset_by: float | None = None

    @property
    def swallows(self) -> bool:
        """Whether what comes is thrown away: once something was lost, nothing behind it may arrive."""
        return self.conditions.swallowed or self.stalled or self.lossy

    @property
    def wants_data(self) -> bool:
        """Whether to read from the source."""
        if self.ended or self.broken:
            return False
        return self.swallows or self._size < min(
            self.conditions.on_its_way, max(_SMALLEST_QUEUE, self.conditions.bytes_per_s * _QUEUE_S)
        )

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do for this direction."""
        return self.finished or self.broken

    def read(self) -> bytes:
        """Take what the source has; empty if there is nothing to pass on."""
        try:
            data = self.source.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            self.ended = self.aborted = True
            return b""
        if not data:
            self.ended = True
        elif self.swallows:
            self.lossy = True
            return b""
        return data

    def put(self, data: bytes, now: float) -> None:
        """Queue bytes for the sink."""
        if data:
            self._queue.append((now + self.conditions.delay_s, memoryview(data)))
            self._size += len(data)

    def cut(self) -> None:
        """End the connection when what is queued has been sent."""
        self.ended = self.aborted = True

    def flush(self, now: float) -> None:
        """Send what is due, as far as the sink takes it; end the direction if everything was sent and none will come.

        `now`: monotonic s.
        """
        self.due = None
        for _ in range(_WRITES_AT_ONCE):
            if self.conditions.held or self.blocked or self.broken:
                return
            if not self._queue:
                self._finish(now)
                return
            at, data = self._queue[0]
            size = self._portion(len(data), now)
            if at > now or not size:
                self.due = at if at > now else now + _PORTION_S
                return
            try:
                sent = self.sink.send(data[:size])
            except (BlockingIOError, InterruptedError):
                self.blocked = True
                return
            except OSError:
                self.broken = True
                self._queue.clear()
                return
            self._allowance -= sent
            self._size -= sent
            if sent == len(data):
                self._queue.popleft()
            else:
                self._queue[0] = (at, data[sent:])
        self.due = now

    def _portion(self, size: int, now: float) -> int:
        """Return how many of `size` bytes may be sent at once now; 0 if it is too early for any."""
        if self.conditions.piece:
            size = min(size, self.conditions.piece)
        rate = self.conditions.bytes_per_s
        if rate == math.inf:
            self._allowance = 0.0
            return size
        # What was not used is not saved up for more than two portions.
        earned = self._allowance + (now - self._allowed_at) * rate
        self._allowance = min(earned, max(1.0, 2 * _PORTION_S * rate))
        self._allowed_at = now
        portion = min(size, max(1, int(_PORTION_S * rate)))
        return min(size, int(self._allowance)) if self._allowance >= portion else 0

    def _finish(self, now: float) -> None:
        """Pass the end on, unless a fault keeps it."""
        if not self.ended or self.finished or self.swallows:
            return
        if not self.aborted:
            self.finished = True
            try:
                self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.broken = True
            return
        if self._reset_by is None:
            self._reset_by = now + _TAKEN_S
        if now < self._reset_by and _on_its_way(self.sink):
            self.due = now + _LOOK_S
        else:
            self.finished = True


if sys.platform == "linux":
    import fcntl
    import termios

    def _on_its_way(sock: socket.socket) -> bool:
        """Say whether the other side's kernel has not taken all bytes yet (SIOCOUTQ, which has TIOCOUTQ's number)."""
        try:
            answer = fcntl.ioctl(sock, termios.TIOCOUTQ, struct.pack("i", 0))
        except OSError:
            return False
        return bool(struct.unpack("i", answer)[0])

else:

    def _on_its_way(sock: socket.socket) -> bool:
        """Nothing tells, elsewhere."""
        return False
