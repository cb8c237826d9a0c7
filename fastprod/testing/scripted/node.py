"""One node: a port, its connections, and the one thread that serves them."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from fastprod.testing.scripted.connection import Connection

HOST: Final = "127.0.0.1"
_BACKLOG: Final = 128
_numbers = itertools.count(1)


class Handler(Protocol):
    """Who a node works for. Every method is called by the node's thread."""

    def handle(self, connection: Connection, frame: bytes) -> None: ...
    def cuts(self, api: int, size: int) -> bool: ...
    def malformed(self, what: str) -> None: ...
    def failed(self, error: BaseException) -> None: ...


class _Thread(threading.Thread):
    """A node's thread: told apart so that one node never waits for another, or for itself."""


class Node:
    """Listens from the start. `id`: its number; `port`: kept even while connections are refused."""

    def __init__(self, node_id: int, handler: Handler) -> None:
        self.id = node_id
        self.connections: set[Connection] = set()
        self.paused = False
        self._handler = handler
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ended = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self._listening = False
        self._listen()
        self._thread = _Thread(target=self._serve, name=f"scripted-broker-{node_id}", daemon=True)
        self._thread.start()

    def run(self, call: Callable[[], None]) -> None:
        """Have the node's thread do something and wait until it has; without waiting if a node's thread asks."""
        if threading.current_thread() is self._thread:
            call()
            return
        if isinstance(threading.current_thread(), _Thread):
            self._post(call)
            return
        done = threading.Event()

        def then() -> None:
            try:
                call()
            finally:
                done.set()

        self._post(then)
        # Posted behind its end, it is never run; then there is nothing left that it could be done to.
        while self._thread.is_alive() and not done.wait(0.1):
            pass

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have it do something in a while. Only for the node's thread."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(_numbers), call))

    def refuse_connections(self) -> None:
        """Refuse new connections. The port stays ours: it is bound, and nobody listens."""

        def refuse() -> None:
            if self._listening:
                self._listening = False
                self._unregister(self._listener)
                self._listener.close()
                self._listener = _bound(self.port)

        self.run(refuse)

    def accept_connections(self) -> None:
        """Take connections again."""
        self.run(self._listen)

    def pause(self) -> None:
        """Read, write and accept nothing; what clients send stays in the sockets."""

        def pause() -> None:
            self.paused = True
            for each in (self._listener, *(connection.socket for connection in self.connections)):
                self._unregister(each)

        self.run(pause)

    def resume(self) -> None:
        """Go on where it was paused."""

        def resume() -> None:
            if not self.paused:
                return
            self.paused = False
            if self._listening:
                self._selector.register(self._listener, selectors.EVENT_READ)
            for connection in list(self.connections):
                self._selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.on_writable()

        self.run(resume)

    def drop_connections(self) -> None:
        """Close every connection."""
        self.run(self._drop)

    def end(self) -> None:
        """Close everything and wait for the thread."""

        def end() -> None:
            self._ended = True

        self._post(end)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def handle(self, connection: Connection, frame: bytes) -> None:
        """Hand a request on; an error in it, which is the script's, ends its connection."""
        try:
            self._handler.handle(connection, frame)
        except BaseException as error:
            self._handler.failed(error)
            connection.close()

    def cuts(self, api: int, size: int) -> bool:
        """Say whether a request of which so much has come is to be cut off now."""
        return self._handler.cuts(api, size)

    def malformed(self, what: str) -> None:
        """Note bytes that no client should send."""
        self._handler.malformed(what)

    def watch(self, connection: Connection) -> None:
        """Watch a connection for what it waits for."""
        if self.paused:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_to_write else 0)
        self._selector.modify(connection.socket, events, connection)

    def forget(self, connection: Connection) -> None:
        """Watch a connection no more."""
        self._unregister(connection.socket)
        self.connections.discard(connection)

    def _post(self, call: Callable[[], None]) -> None:
        self._calls.append(call)
        # A full pipe wakes as well as a new byte does, and one that is closed has nobody to wake.
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._listener.listen(_BACKLOG)
            if not self.paused:
                self._selector.register(self._listener, selectors.EVENT_READ)

    def _serve(self) -> None:
        while not self._ended:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self._selector.select(timeout):
                if key.fileobj is self._wake_reader:
                    with contextlib.suppress(OSError):
                        self._wake_reader.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data is not None:   # else a listener that a connection's request has closed meanwhile
                    self._attend(key.data, events)
            self._run_calls()
        self._close()

    def _unregister(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def _attend(self, connection: Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE and not connection.closed:
            connection.on_writable()
        if events & selectors.EVENT_READ and not connection.closed:
            connection.on_readable()

    def _run_calls(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._calls.append(heapq.heappop(self._timers)[2])
        while self._calls:
            try:
                self._calls.popleft()()
            except BaseException as error:
                self._handler.failed(error)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        connection = Connection(self, sock, next(_numbers))
        self.connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _drop(self) -> None:
        for connection in list(self.connections):
            connection.close()

    def _close(self) -> None:
        self._drop()
        self._listener.close()
        self._run_calls()
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()


def _bound(port: int) -> socket.socket:
    """A socket at that port (0: any free one) that does not listen yet."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    sock.setblocking(False)
    return sock
