"""One measurement: who sends how many records at what pace, over which link, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

VALUE_SIZE = 100
PARTITIONS = 6


class Contender(NamedTuple):
    """A producer and its settings; everything else is at its default. `batch_size`: of Java's, bytes."""

    name: str
    java: bool
    linger_ms: int
    batch_size: int | None = None


CONTENDERS = {
    one.name: one
    for one in (
        Contender("fastprod-0", False, 0),
        Contender("fastprod-5", False, 5),
        Contender("fastprod-100", False, 100),
        Contender("java-0", True, 0),
        Contender("java-5", True, 5),
        Contender("java-100", True, 100),
        Contender("java-5-1MB", True, 5, 1_000_000),
    )
}


class Link(NamedTuple):
    """`delay_ms`: what the proxy adds to a round trip, half of it each way. None: there is no proxy."""

    delay_ms: float | None

    def __str__(self) -> str:
        return "no proxy" if self.delay_ms is None else f"{self.delay_ms:g} ms"


@dataclass(frozen=True)
class Job:
    """`rate`: records/s, None for as many as it can. `warm_up`: records that are sent before and not measured.
    `burst_ms`: how much of the time's records are sent together where there is a rate."""

    contender: str
    bootstrap_servers: str
    topic: str
    records: int
    warm_up: int
    rate: float | None
    burst_ms: float


@dataclass(frozen=True)
class Outcome:
    """What the client says: records/s, and ms from the call of `send` to the callback."""

    rate: float
    average_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Run:
    """An outcome, and what was seen beside it. `void` says why it does not count.

    `in_request`: records a request, 0 where no proxy counted. `proxy_share`: of a core's time, taken by the proxy.
    """

    contender: str
    outcome: Outcome = Outcome(0, 0, 0, 0)
    in_request: float = 0.0
    proxy_share: float = 0.0
    void: str = ""
