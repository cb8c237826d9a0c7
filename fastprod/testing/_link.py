"""One proxied connection: a client's socket, one to the target, and the two directions between them."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping

from fastprod.testing._faults import Conditions, Direction, PlannedFault
from fastprod.testing._frames import REQUEST_HEAD, RESPONSE_HEAD, Heads, Pending, Request, Whole, framed
from fastprod.testing._pipe import Pipe
from fastprod.testing.tap import Tap

_LOGGER = logging.getLogger("fastprod.testing")
_LINGER_NOT = struct.pack("ii", 1, 0)


class Link:
    """A connection, from its acceptance on. Only the proxy's thread touches it.

    Args:
        number: counts the proxy's connections from 0.
        family, target: where to connect to.
        planned: the proxy's planned faults; the list itself, as it changes.
        counts: the proxy's numbers of requests by API key, which the connection's are added to.
    """

    def __init__(
        self,
        number: int,
        client: socket.socket,
        family: socket.AddressFamily,
        target: tuple[str, int],
        conditions: Mapping[Direction, Conditions],
        planned: list[PlannedFault],
        counts: Counter[int],
        tap: Tap | None,
    ) -> None:
        self.number = number
        self.client = client
        self.server = socket.socket(family, socket.SOCK_STREAM)
        self.up = Pipe(Direction.REQUESTS, client, self.server, conditions[Direction.REQUESTS])
        self.down = Pipe(Direction.RESPONSES, self.server, client, conditions[Direction.RESPONSES])
        self._planned = planned
        self._counts = counts
        self._heads = {self.up: Heads(REQUEST_HEAD), self.down: Heads(RESPONSE_HEAD)}
        self._api_keys: Pending[int] = Pending()
        self._tap = tap
        self._frames = {self.up: Whole(), self.down: Whole()}
        self._requests: Pending[Request] = Pending()
        self._connecting = True
        self._told = False
        for sock in (client, self.server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failed = self.server.connect_ex(target)
        if failed not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._connected(failed)

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        """Both directions."""
        return self.up, self.down

    @property
    def open(self) -> bool:
        """Whether the client has it open, as far as is known here."""
        return not self.up.ended

    @property
    def lossy(self) -> bool:
        """Whether bytes of it were swallowed."""
        return self.up.lossy or self.down.lossy

    def interest(self, sock: socket.socket) -> int:
        """Return what to wait for on one of the sockets, as flags of `selectors`."""
        into, out = (self.up, self.down) if sock is self.client else (self.down, self.up)
        if self._connecting:
            return selectors.EVENT_WRITE if sock is self.server else into.wants_data * selectors.EVENT_READ
        return into.wants_data * selectors.EVENT_READ | out.blocked * selectors.EVENT_WRITE

    def on_event(self, sock: socket.socket, events: int, now: float) -> None:
        """Handle what a socket is ready for."""
        into, out = (self.up, self.down) if sock is self.client else (self.down, self.up)
        if events & selectors.EVENT_WRITE:
            if self._connecting and sock is self.server:
                self._connected(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            out.blocked = False
        if events & selectors.EVENT_READ and into.wants_data and not (self._connecting and sock is self.server):
            data = into.read()
            if data:
                self._take(into, data, now)

    def flush(self, now: float) -> bool:
        """Send what can be sent; False when the connection is over."""
        for pipe in self.pipes:
            if not (self._connecting and pipe is self.up):
                pipe.flush(now)
        if any(pipe.finished and pipe.aborted for pipe in self.pipes):
            return False
        return not all(pipe.over for pipe in self.pipes)

    def due(self) -> float | None:
        """Return when to flush again without any event, monotonic s."""
        return min((pipe.due for pipe in self.pipes if pipe.due is not None), default=None)

    def tell_opened(self) -> bool:
        """Tell the tap that it is there; False if that does not want it."""
        return self._tap is None or _tell(self._tap.opened, self.number)

    def tell_closed(self) -> None:
        """Tell the tap, once, that nothing more comes from the client."""
        if self._tap is not None and not self._told:
            self._told = True
            _tell(self._tap.closed, self.number)

    def reset(self) -> None:
        """Reset both connections, so that nobody takes it for an orderly end; what is queued is lost."""
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self.close()

    def close(self) -> None:
        """Close both sockets."""
        self.client.close()
        self.server.close()

    def _connected(self, failed: int) -> None:
        self._connecting = False
        if failed:
            self.up.broken = True
            self.down.cut()

    def _take(self, pipe: Pipe, data: bytes, now: float) -> None:
        if self._tap is not None:
            data = self._tapped(self._tap, pipe, data)
        if not data or pipe.ended:
            pipe.put(data, now)
            return
        fault, passing = self._strike(pipe, data)
        pipe.put(data[:passing], now)
        if fault is None:
            return
        if fault.stall:
            for each in self.pipes:
                each.stalled = True
        else:
            pipe.cut()

    def _strike(self, pipe: Pipe, data: bytes) -> tuple[PlannedFault | None, int]:
        """Return the planned fault whose time has come with `data`, and how much of that still passes."""
        begun: list[tuple[int, int | None]] = []
        for at, head in self._heads[pipe].feed(data):
            if pipe is self.up:
                api_key = int.from_bytes(head[4:6], "big")
                self._api_keys.add(int.from_bytes(head[8:12], "big"), api_key)
                self._counts[api_key] += 1
                begun.append((at, api_key))
            else:
                begun.append((at, self._api_keys.take(int.from_bytes(head[4:8], "big"))))
        for fault in self._planned:
            passing = fault.strike(self, len(data), begun) if fault.direction is pipe.direction else None
            if passing is not None:
                self._planned.remove(fault)
                return fault, passing
        return None, len(data)

    def _tapped(self, tap: Tap, pipe: Pipe, data: bytes) -> bytes:
        """Show whole frames to the tap; return what passes on in their place."""
        passing = []
        try:
            for payload in self._frames[pipe].feed(data):
                if pipe is self.up:
                    request = Request(self.number, payload)
                    self._requests.add(request.correlation_id, request)
                    changed = tap.request(request)
                else:
                    answered = self._requests.take(int.from_bytes(payload[:4], "big"))
                    changed = payload if answered is None else tap.response(answered, payload)
                if changed is not None:
                    passing.append(framed(changed))
        except ConnectionError:
            pipe.cut()
        except Exception:
            _LOGGER.exception("a tap failed; the connection is reset")
            pipe.cut()
        return b"".join(passing)


def _tell(what: Callable[[int], None], connection: int) -> bool:
    """Tell a tap of a connection; False if it raises."""
    try:
        what(connection)
    except ConnectionError:
        return False
    except Exception:
        _LOGGER.exception("a tap failed; the connection is reset")
        return False
    return True
