"""One client's connection: frames in, answers out in the order of the requests."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastprod.testing.scripted.node import Node

_CHUNK = 256 * 1024
_LARGEST_FRAME = 100 * 1024 * 1024


class Turn:
    """A request's place in the row of answers. `data` is None until there is one."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.close = False
        self.stall = False


class Connection:
    """What is done to it is done by the thread of its node; methods without an underscore may be called by any."""

    def __init__(self, node: Node, sock: socket.socket, number: int) -> None:
        self.node = node
        self.number = number
        self.socket = sock
        self.closed = False
        self._received = bytearray()
        self._turns: deque[Turn] = deque()
        self._unsent = bytearray()
        self._stalled = False
        self._last = False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def turn(self) -> Turn:
        """Give the request that has just come its place."""
        self._turns.append(Turn())
        return self._turns[-1]

    def answer(self, turn: Turn, data: bytes, close: bool, stall: bool, delay_s: float) -> None:
        """Send an answer when its turn comes, and not before `delay_s` seconds."""

        def give() -> None:
            turn.data, turn.close, turn.stall = data, close, stall
            self._flush()

        self.node.run(give if delay_s <= 0 else lambda: self.node.later(delay_s, give))

    def hang_up(self) -> None:
        """Close it; answers given before this and not yet on their way are sent if the socket takes them at once."""
        self.node.run(self.close)

    def close(self) -> None:
        """Close it now. Only for the thread of its node."""
        if not self.closed:
            self.closed = True
            self.node.forget(self)
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def on_readable(self) -> None:
        """Read what is there and hand whole frames to the node."""
        try:
            data = self.socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        while not self.closed and not self._last and self._next_frame():
            pass

    def on_writable(self) -> None:
        """Go on sending."""
        self._flush()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for the socket."""
        return bool(self._unsent)

    def _next_frame(self) -> bool:
        have = len(self._received)
        if have < 6:
            return False
        size, api = struct.unpack_from(">ih", self._received)
        if not 8 <= size <= _LARGEST_FRAME:
            self.node.malformed(f"a request of {size} bytes: {bytes(self._received[:16])!r}")
            self.close()
            return False
        if self.node.cuts(api, min(have, size + 4)):
            self.close()
            return False
        if have < size + 4:
            return False
        frame = bytes(memoryview(self._received)[4 : size + 4])
        del self._received[: size + 4]
        self.node.handle(self, frame)
        return True

    def _flush(self) -> None:
        if self.closed or self.node.paused:
            return
        while self._turns and self._turns[0].data is not None and not self._stalled and not self._last:
            turn = self._turns.popleft()
            assert turn.data is not None
            self._unsent += turn.data
            self._stalled, self._last = turn.stall, turn.close
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if self._last and not self._unsent:
            self.close()
            return
        self.node.watch(self)
