"""Kafka's frames in a stream of bytes: where each begins, and what its head says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

# Requests: size, API key, version, correlation id. Responses: size, correlation id.
REQUEST_HEAD, RESPONSE_HEAD = 12, 8
_SIZE = 4
# A broker refuses requests above 100 MB (socket.request.max.bytes). What seems larger is no Kafka: TLS, for example.
_LARGEST = 1 << 28

Kept = TypeVar("Kept")


@dataclass(frozen=True, eq=False)
class Request:
    """A request as it passed: `payload` is without the four bytes of its size; `connection` counts from 0."""

    connection: int
    payload: bytes

    @property
    def api_key(self) -> int:
        """Which request it is: 0 is Produce, 3 Metadata, 18 ApiVersions, 22 InitProducerId."""
        return int.from_bytes(self.payload[0:2], "big")

    @property
    def version(self) -> int:
        """The version of the request's layout."""
        return int.from_bytes(self.payload[2:4], "big")

    @property
    def correlation_id(self) -> int:
        """The number by which its response is told."""
        return int.from_bytes(self.payload[4:8], "big")

    @property
    def client_id(self) -> str | None:
        """Who sent it."""
        size = int.from_bytes(self.payload[8:10], "big", signed=True)
        return None if size < 0 else self.payload[10 : 10 + size].decode()


class Heads:
    """Follows a stream piece by piece and finds the heads of its frames. A stream that is not Kafka's has none."""

    def __init__(self, head_size: int) -> None:
        self._head_size = head_size
        self._head = b""
        self._left = 0
        self._foreign = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return (position, head) of each head that is complete with `data`.

        The position is that of the frame in `data`; negative if it began before.
        """
        found: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data) and not self._foreign:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            part = data[at : at + self._head_size - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == self._head_size:
                self._left = int.from_bytes(self._head[:_SIZE], "big") - (self._head_size - _SIZE)
                self._foreign = not 0 <= self._left <= _LARGEST
                found.append((at - self._head_size, self._head))
                self._head = b""
        return [] if self._foreign else found


class Whole:
    """Puts a stream's frames together."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are whole with `data`, without their sizes. ValueError if this is no Kafka."""
        self._data += data
        while len(self._data) >= _SIZE:
            end = _SIZE + int.from_bytes(self._data[:_SIZE], "big")
            if end > _LARGEST:
                raise ValueError("not a stream of Kafka frames")
            if len(self._data) < end:
                return
            frame = bytes(self._data[_SIZE:end])
            del self._data[:end]
            yield frame


class Pending(Generic[Kept]):
    """What is kept of requests until their responses, which come in the same order. Some have none (acks=0)."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Kept]] = deque()

    def add(self, correlation_id: int, kept: Kept) -> None:
        """Keep something of a request."""
        self._waiting.append((correlation_id, kept))

    def take(self, correlation_id: int) -> Kept | None:
        """Return what was kept of the request with that id, and forget those before it; None if there is none."""
        if all(number != correlation_id for number, _ in self._waiting):
            return None
        while True:
            number, kept = self._waiting.popleft()
            if number == correlation_id:
                return kept


def framed(payload: bytes) -> bytes:
    """Put the size in front of a payload."""
    return len(payload).to_bytes(_SIZE, "big") + payload
