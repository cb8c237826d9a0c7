"""A TCP relay in front of a broker that writes down whole requests and responses and may change what comes back.

The broker advertises the relay's address, so every connection of a client leads through it. Of the protocol it knows
the four bytes of a frame's size, the head of a request, and the correlation id by which a response belongs to one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 18, 22
_HEAD = struct.Struct(">hhih")


class Instead(Enum):
    """What may happen in place of a response."""

    CUT = "the connection is reset"
    DROP = "nothing comes, the connection stays"


@dataclass(eq=False)
class Request:
    """A request as it passed. `payload`: without the four bytes of its size. `connection`: counts from 0."""

    connection: int
    payload: bytes
    api_key: int
    version: int
    correlation_id: int
    client_id: str
    response: bytes | None = None
    """As the broker gave it, before any change; None so far, or with acks=0 for ever."""


Change = Callable[[Request, bytes], "bytes | Instead"]


class Relay:
    """Listens on 127.0.0.1 from construction on; `target` is where it relays to.

    `change`: called with each request and the broker's response, both without their size, on the thread of that
    connection; what it returns goes to the client. Blocking in it delays that connection's responses.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.target: tuple[str, int] | None = None
        self._lock = threading.Lock()
        self._connections = 0
        self._open: set[socket.socket] = set()
        self._requests: list[Request] = []
        self.change: Change | None = None
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Forget what was seen and change nothing more."""
        with self._lock:
            self._requests.clear()
            self.change = None

    def requests(self, api_key: int, client_id: str | None = None) -> list[Request]:
        """The requests of one API, of all clients or one, in the order they came."""
        with self._lock:
            return [
                each
                for each in self._requests
                if each.api_key == api_key and client_id in (None, each.client_id)
            ]

    def close(self) -> None:
        """Take no more connections and reset those there are."""
        with contextlib.suppress(OSError):
            # Closing alone would leave the thread in accept().
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            _reset(sock)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, self._connections), daemon=True).start()
            self._connections += 1

    def _serve(self, client: socket.socket, number: int) -> None:
        assert self.target is not None
        try:
            server = socket.create_connection(self.target)
        except OSError:
            _reset(client)
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(sock)
        pending: dict[int, Request] = {}
        threading.Thread(target=self._down, args=(client, server, pending), daemon=True).start()
        with contextlib.suppress(OSError):
            for payload in _frames(client):
                request = _request(number, payload)
                pending[request.correlation_id] = request
                with self._lock:
                    self._requests.append(request)
                server.sendall(struct.pack(">i", len(payload)) + payload)
        # The broker has what came before: it ends the connection, and with it the other thread.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket, pending: dict[int, Request]) -> None:
        with contextlib.suppress(OSError):
            for payload in _frames(server):
                request = pending.pop(int.from_bytes(payload[:4], "big"))
                request.response = payload
                change = self.change
                answer = payload if change is None else change(request, payload)
                if answer is Instead.CUT:
                    break
                if not isinstance(answer, Instead):
                    client.sendall(struct.pack(">i", len(answer)) + answer)
        for sock in (client, server):
            _reset(sock)
            self._open.discard(sock)


def _request(connection: int, payload: bytes) -> Request:
    api_key, version, correlation_id, size = _HEAD.unpack_from(payload)
    client_id = payload[_HEAD.size : _HEAD.size + max(size, 0)].decode()
    return Request(connection, payload, api_key, version, correlation_id, client_id)


def _frames(sock: socket.socket) -> Iterator[bytes]:
    while (head := _exactly(sock, 4)) is not None:
        payload = _exactly(sock, int.from_bytes(head, "big"))
        if payload is None:
            return
        yield payload


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        received = sock.recv(min(size - len(parts), 1 << 20))
        if not received:
            return None
        parts += received
    return bytes(parts)


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not close() alone: another thread may be inside recv() on it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
