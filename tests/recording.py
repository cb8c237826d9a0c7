"""What clients send through a broker's proxy, written down, and what comes back changed where a test wants it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastprod.testing import FaultProxy, Tap
from fastprod.testing import Request as Passed

PRODUCE, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 3, 18, 22


@dataclass(frozen=True, eq=False)
class Request(Passed):
    """A request as it passed, `at` that time (monotonic s)."""

    at: float = 0.0

    @property
    def size(self) -> int:
        """Without the four bytes of the size itself."""
        return len(self.payload)

    @property
    def acks(self) -> int:
        """Of a Produce request, behind a null transactional id."""
        return int.from_bytes(self.payload[self._settings : self._settings + 2], "big", signed=True)

    @property
    def timeout_ms(self) -> int:
        """Of a Produce request."""
        return int.from_bytes(self.payload[self._settings + 2 : self._settings + 6], "big")

    @property
    def _settings(self) -> int:
        """Where acks stand in a flexible request (v9 and up): behind the client id, no tags, no transactional id."""
        return 10 + len((self.client_id or "").encode()) + 1 + 1


@dataclass
class Connection:
    """One of a client's connections; times are monotonic s."""

    opened: float
    closed: float | None = None
    requests: list[Request] = field(default_factory=list)


Change = Callable[[Request, bytes], "bytes | None"]
"""Called with a request and the broker's response, both without their size; what it returns goes to the client. None:
nothing comes, the connection stays. ConnectionResetError: the connection is reset."""


class Relay(Tap):
    """The proxy in front of a broker, with a memory.

    `change`: see `Change`. `closed_door`: connections are reset at once. `produce_error`: an error code for the next
    `produce_errors_left` Produce responses.
    """

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._open: dict[int, Connection] = {}
        self.port = proxy.port
        self.address = proxy.address
        proxy.tap = self
        self.reset()

    def reset(self) -> None:
        """Forget what was seen and stop getting in the way."""
        self._requests: list[Request] = []
        self.connections: list[Connection] = []
        self.change: Change | None = None
        self.closed_door = False
        self.produce_error = 0
        self.produce_errors_left = 0
        self._silent = False
        self._proxy.heal()

    @property
    def silent(self) -> bool:
        """Whether responses are kept back."""
        return self._silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        self._silent = silent
        (self._proxy.hold if silent else self._proxy.release)("responses")

    def requests(self, api_key: int | None = None, client_id: str | None = None) -> list[Request]:
        """Return the requests of one API or all, of one client or all, in the order they came."""
        return [
            each
            for each in list(self._requests)
            if api_key in (None, each.api_key) and client_id in (None, each.client_id)
        ]

    def producing(self) -> list[Connection]:
        """Return the connections that Produce requests came over."""
        return [each for each in self.connections if any(one.api_key == PRODUCE for one in each.requests)]

    def cut(self) -> None:
        """Reset every connection that is open."""
        self._proxy.cut()

    def opened(self, connection: int) -> None:
        self._open[connection] = Connection(time.monotonic())
        self.connections.append(self._open[connection])
        if self.closed_door:
            raise ConnectionResetError

    def closed(self, connection: int) -> None:
        self._open.pop(connection).closed = time.monotonic()

    def request(self, request: Passed) -> bytes | None:
        seen = Request(request.connection, request.payload, time.monotonic())
        self._open[request.connection].requests.append(seen)
        self._requests.append(seen)
        return request.payload

    def response(self, request: Passed, payload: bytes) -> bytes | None:
        if request.api_key == PRODUCE and self.produce_errors_left > 0:
            self.produce_errors_left -= 1
            return _with_error(request, payload, self.produce_error)
        change = self.change
        return payload if change is None else change(Request(request.connection, request.payload), payload)


def _with_error(request: Passed, payload: bytes, error: int) -> bytes:
    """Put an error code into a Produce response (one topic, one partition)."""
    # Correlation id, no tags, one topic: its id (v13) or its name, one partition, its number.
    position = 4 + 1 + 1
    position += 16 if request.version >= 13 else payload[position]
    position += 1 + 4
    return payload[:position] + error.to_bytes(2, "big") + payload[position + 2 :]
