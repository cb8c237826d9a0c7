"""A TCP relay in front of a real broker that writes down what passes and can get in the way.

The broker advertises the relay's address, so all of a client's connections go through it. It is
used to see what an option does on the wire, and to make the network slow, silent or broken.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 18, 22


@dataclass(frozen=True)
class Request:
    """A request as it passed: `payload` without the 4 bytes of its size; `at`: monotonic s."""

    payload: bytes
    at: float

    @property
    def api_key(self) -> int:
        return int.from_bytes(self.payload[0:2], "big")

    @property
    def version(self) -> int:
        return int.from_bytes(self.payload[2:4], "big")

    @property
    def client_id(self) -> str | None:
        (size,) = struct.unpack_from(">h", self.payload, 8)
        return None if size < 0 else self.payload[10 : 10 + size].decode()

    @property
    def size(self) -> int:
        return len(self.payload)

    def _body(self) -> int:
        """Where the body of a flexible request begins: behind the client id and no tags."""
        return 10 + len((self.client_id or "").encode()) + 1

    @property
    def acks(self) -> int:
        """Of a Produce request (v9 and up), behind a null transactional id."""
        (acks,) = struct.unpack_from(">h", self.payload, self._body() + 1)
        return int(acks)

    @property
    def timeout_ms(self) -> int:
        """Of a Produce request (v9 and up)."""
        (timeout,) = struct.unpack_from(">i", self.payload, self._body() + 3)
        return int(timeout)


@dataclass
class Connection:
    """One of a client's connections; times are monotonic seconds."""

    client: socket.socket
    opened: float
    closed: float | None = None
    requests: list[Request] = field(default_factory=list)
    answers: int = 0


class TcpRelay:
    """Listens on 127.0.0.1 from its construction on; `target` is where it relays to.

    `silent` keeps responses back until it is cleared (`closed_door` resets connections at once
    instead of relaying them); `produce_error` puts an error code into every Produce response;
    `delay_s` is added to every response.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.target: tuple[str, int] | None = None
        self._heard = threading.Event()
        self._ended = False
        self._held: list[socket.socket] = []
        self.reset()
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Forget what was seen and stop getting in the way."""
        self.connections: list[Connection] = []
        self.closed_door = False
        self.produce_error = 0
        self.produce_errors_left = 0
        self.delay_s = 0.0
        self._heard.set()

    @property
    def silent(self) -> bool:
        return not self._heard.is_set()

    @silent.setter
    def silent(self, silent: bool) -> None:
        if silent:
            self._heard.clear()
        else:
            self._heard.set()

    def requests(self, api_key: int | None = None) -> list[Request]:
        """Return the requests so far, of one kind or all, in the order they came."""
        every = [request for each in self.connections for request in each.requests]
        chosen = [each for each in every if api_key is None or each.api_key == api_key]
        return sorted(chosen, key=lambda each: each.at)

    def producing(self) -> list[Connection]:
        """Return the connections that Produce requests came over."""
        return [c for c in self.connections if any(r.api_key == PRODUCE for r in c.requests)]

    def cut(self) -> None:
        """Reset every connection that is open."""
        for each in self.connections:
            if each.closed is None:
                _abort(each.client)

    def stop(self) -> None:
        """Take no more connections and end those there are."""
        self._ended = True
        self._heard.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(client, time.monotonic())
            self.connections.append(connection)
            if self.closed_door or self.target is None:
                connection.closed = time.monotonic()
                _abort(client)
                continue
            threading.Thread(target=self._relay, args=(connection,), daemon=True).start()

    def _relay(self, connection: Connection) -> None:
        assert self.target is not None
        try:
            server = socket.create_connection(self.target)
        except OSError:
            connection.closed = time.monotonic()
            _abort(connection.client)
            return
        back = threading.Thread(target=self._relay_back, args=(connection, server), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            for payload in _frames(connection.client):
                connection.requests.append(Request(payload, time.monotonic()))
                server.sendall(struct.pack(">i", len(payload)) + payload)
        connection.closed = time.monotonic()
        _abort(server)

    def _relay_back(self, connection: Connection, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for payload in _frames(server):
                # Responses come in the order of the requests that have one.
                asked = [r for r in connection.requests if r.api_key != PRODUCE or r.acks != 0]
                request = asked[connection.answers]
                connection.answers += 1
                answer = self._changed(request, payload)
                if self.delay_s:
                    time.sleep(self.delay_s)
                self._heard.wait()
                connection.client.sendall(struct.pack(">i", len(answer)) + answer)
        _abort(connection.client)

    def _changed(self, request: Request, payload: bytes) -> bytes:
        """Return a Produce response (one topic, one partition) with an error in it."""
        if request.api_key != PRODUCE or self.produce_errors_left <= 0:
            return payload
        self.produce_errors_left -= 1
        # Correlation id, no tags, one topic: its id (v13) or its name, one partition, its number.
        position = 4 + 1 + 1
        position += 16 if request.version >= 13 else payload[position]
        position += 1 + 4
        damaged = bytearray(payload)
        struct.pack_into(">h", damaged, position, self.produce_error)
        return bytes(damaged)


def _frames(sock: socket.socket) -> Iterator[bytes]:
    while True:
        head = _exactly(sock, 4)
        if head is None:
            return
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


def _abort(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()
