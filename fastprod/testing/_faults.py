"""What a proxy does to the bytes of one direction, and faults planned for a chosen byte."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

QUEUE_BYTES = 1 << 20

Way = Literal["requests", "responses", "both"]
"""Which bytes a fault is for: those of clients to the target, those that come back, or all."""


class Direction(Enum):
    """One of the two ways of a connection's bytes."""

    REQUESTS = "requests"
    RESPONSES = "responses"


def directions(way: Way) -> tuple[Direction, ...]:
    """Return what a `Way` stands for. ValueError if it is none."""
    if way == "both":
        return tuple(Direction)
    try:
        return (Direction(way),)
    except ValueError:
        raise ValueError(f"way={way!r}: supported are 'requests', 'responses' and 'both'") from None


@dataclass
class Conditions:
    """What happens to all bytes of a direction.

    `on_its_way`: most bytes queued of a connection; `piece`: most bytes written at once, 0 for any number.
    """

    delay_s: float = 0.0
    on_its_way: int = QUEUE_BYTES
    bytes_per_s: float = math.inf
    piece: int = 0
    held: bool = False
    swallowed: bool = False


class PlannedFault:
    """A fault that waits for its byte, as `FaultProxy.cut_at` and `stall_at` return it."""

    def __init__(self, direction: Direction, byte: int, api_key: int | None, stall: bool) -> None:
        self.direction = direction
        self.stall = stall
        self._left = byte
        self._byte = byte
        self._api_key = api_key
        self._on: object | None = None
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether it has happened."""
        return self._done.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait until it has happened, at most `timeout` s; say whether it has."""
        return self._done.wait(timeout)

    def strike(self, connection: object, size: int, begun: Iterable[tuple[int, int | None]]) -> int | None:
        """See `size` bytes pass on a connection; return after how many of them it is time, None if it is not yet.

        `begun`: (position, API key) of each request, or of each response to one, whose head is complete with them.
        """
        start = 0
        if self._on is None:
            starts = [0] if self._api_key is None else [at for at, api_key in begun if api_key == self._api_key]
            if not starts:
                return None
            self._on, start = connection, starts[0]
        if self._on is not connection:
            return None
        if start + self._left > size:
            self._left -= size - start
            return None
        self._done.set()
        return max(start + self._left, 0)

    def forget(self, connection: object) -> None:
        """Wait for another connection: this one is over."""
        if self._on is connection:
            self._on, self._left = None, self._byte
