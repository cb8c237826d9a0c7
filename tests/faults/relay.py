"""A TCP relay in front of a broker that breaks connections at a chosen byte, holds bytes back and slows them down.

The broker advertises the relay's address, so every connection of a client leads through it. Of the protocol it knows
one thing: which connections have carried a Produce request, so that a fault can be aimed at them.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from enum import Enum

PRODUCE = 0
_READ = 65536
_HOLD_LOOK_S = 0.01


class Way(Enum):
    """The direction of bytes: requests go up, responses come down."""

    UP = "up"
    DOWN = "down"


@dataclass
class Fault:
    """Hits the first Produce connection on which `after` more bytes have passed in that direction.

    `stall`: the connection stays open and nothing passes any more, either way; otherwise it is reset.
    """

    way: Way
    after: int = 0
    stall: bool = False
    done: bool = False


@dataclass
class _Sniffer:
    """Follows the frames of a request stream; only sizes and API keys are looked at."""

    produces: int = 0
    _left: int = 0
    _head: bytes = b""

    def feed(self, chunk: bytes) -> None:
        while chunk:
            if self._left:
                taken = min(self._left, len(chunk))
                self._left -= taken
                chunk = chunk[taken:]
                continue
            need = 6 - len(self._head)
            self._head += chunk[:need]
            chunk = chunk[need:]
            if len(self._head) == 6:
                size, api_key = struct.unpack(">ih", self._head)
                self.produces += api_key == PRODUCE
                self._left = size - 2
                self._head = b""


@dataclass(eq=False)
class _Link:
    client: socket.socket
    server: socket.socket
    sniffer: _Sniffer = field(default_factory=_Sniffer)
    stalled: bool = False

    def reset(self) -> None:
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class Relay:
    """Listens on 127.0.0.1 from construction on; `target` is where it relays to.

    `holding`: bytes are kept back, in both directions, and go on when it is false again. `delay_s`: added to every
    piece that comes down. `piece`: bytes that are passed down at once, 0 for as they come.
    """

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        self.port = 0
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._faults: list[Fault] = []
        self._listener: socket.socket | None = None
        self.reset()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def produces(self) -> int:
        """How many Produce requests came since `reset`."""
        return self._gone_produces + sum(link.sniffer.produces for link in list(self._links))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def reset(self) -> None:
        """Get out of the way: no faults, nothing held, everything at full speed, everybody welcome."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True, name="relay").start()
        self._faults = []
        self._gone_produces = 0
        self.holding = False
        self.delay_s = 0.0
        self.piece = 0
        for link in list(self._links):
            link.sniffer.produces = 0
            if link.stalled:
                link.reset()

    def add(self, fault: Fault) -> Fault:
        """Have the fault happen; it is `done` when it did."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def cut(self) -> int:
        """Reset every connection; return how many there were."""
        links = list(self._links)
        for link in links:
            link.reset()
        return len(links)

    def refuse(self) -> None:
        """End every connection and have new ones refused, as when nobody listens, until `reset`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            listener.close()
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._open, args=(client,), daemon=True).start()

    def _open(self, client: socket.socket) -> None:
        assert self.target is not None
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        link = _Link(client, server)
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(link)
        threading.Thread(target=self._pump, args=(link, Way.DOWN), daemon=True).start()
        self._pump(link, Way.UP)

    def _pump(self, link: _Link, way: Way) -> None:
        source, sink = (link.client, link.server) if way is Way.UP else (link.server, link.client)
        with contextlib.suppress(OSError):
            while chunk := source.recv(_READ):
                if way is Way.UP:
                    link.sniffer.feed(chunk)
                self._wait(link)
                passing, fault = self._hit(link, way, chunk)
                self._pass(sink, way, passing)
                if fault is not None and not fault.stall:
                    break
                if fault is not None:
                    link.stalled = True
                    self._wait(link)
        link.reset()
        with self._lock:
            if link in self._links:
                self._links.remove(link)
                self._gone_produces += link.sniffer.produces

    def _wait(self, link: _Link) -> None:
        while (self.holding or link.stalled) and link.client.fileno() >= 0:
            time.sleep(_HOLD_LOOK_S)

    def _hit(self, link: _Link, way: Way, chunk: bytes) -> tuple[bytes, Fault | None]:
        """Return what passes of the chunk, and the fault that ends it."""
        if not link.sniffer.produces:
            return chunk, None
        with self._lock:
            for fault in self._faults:
                if fault.way is not way or fault.done:
                    continue
                if fault.after < len(chunk):
                    fault.done = True
                    return chunk[: fault.after], fault
                fault.after -= len(chunk)
                break
        return chunk, None

    def _pass(self, sink: socket.socket, way: Way, chunk: bytes) -> None:
        if way is Way.UP:
            sink.sendall(chunk)
            return
        size = self.piece or len(chunk) or 1
        for start in range(0, len(chunk), size):
            if self.delay_s:
                time.sleep(self.delay_s)
            sink.sendall(chunk[start : start + size])
