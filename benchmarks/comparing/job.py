"""What one measurement is told and what it answers. Both cross a process boundary as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

# What every client may hold in its queue, bytes: the same for all, and enough for a tenth of a second of the fastest.
QUEUE_BYTES = 128 << 20
# And where everything is accepted before the server takes any of it.
DRAIN_QUEUE_BYTES = 512 << 20
# Delivered before the clock starts, so that the connection, the producer id and the interpreter are warm.
_FIRST_RECORDS = 1_000
_FIRST_BYTES = 16 << 20

# What is measured: records as fast as they go; one at a time, each acknowledged before the next; one now and then,
# until it is at the server; memory while the server stands still; how fast what was accepted leaves when it goes on.
THROUGHPUT, LATENCY, ARRIVAL, MEMORY, DRAIN = "throughput", "latency", "arrival", "memory", "drain"
STALLED = (MEMORY, DRAIN)

# The words between a measurement's process and its parent, each at the start of a line.
READY = "ready"
FILLED = "filled"
OUTCOME = "outcome "


class Case(NamedTuple):
    """What is sent. `value_size` in bytes; `level`: of the codec, None for its default; `busy`: how many CPU-bound
    Python threads run beside; `records`: how many, None for as many as take some seconds."""

    value_size: int = 100
    partitions: int = 6
    topics: int = 1
    threads: int = 1
    compression: str | None = None
    level: int | None = None
    busy: int = 0
    records: int | None = None

    @property
    def first_records(self) -> int:
        """How many records a client delivers before its clock starts."""
        return min(_FIRST_RECORDS, _FIRST_BYTES // self.value_size)

    def __str__(self) -> str:
        codec = self.compression or "none"
        level = "" if self.level is None else f" level {self.level}"
        count = "" if self.records is None else f"{self.records:,} records, "
        return (
            f"{count}values of {self.value_size:,} bytes, {_many(self.partitions, 'partition')}, "
            f"{_many(self.topics, 'topic')}, {_many(self.threads, 'thread')}, compression {codec}{level}"
            + (f", beside {_many(self.busy, 'CPU-bound thread')}" if self.busy else "")
        )


@dataclass(frozen=True)
class Job:
    """One measurement: `records` records of a case, by one contender, to empty topics.

    `queue_bytes`: what the client may hold. In the kinds that are STALLED the server stands still while the records are
    accepted; in the others the clock runs from the first send to the last acknowledgement.
    """

    contender: str
    bootstrap_servers: str
    topics: tuple[str, ...]
    records: int
    case: Case
    kind: str = THROUGHPUT
    queue_bytes: int = QUEUE_BYTES

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self) | {"case": self.case._asdict()})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The way back."""
        found = json.loads(text)
        return cls(**{**found, "topics": tuple(found["topics"]), "case": Case(**found["case"])})


@dataclass(frozen=True)
class Outcome:
    """What the client says of itself: `sent` and `acknowledged` leave out the `first` ones, delivered before.

    Seconds are wall-clock and of the CPU (user and system, every thread of the process); `peak_rss` is in bytes, and
    `queued_rss` what the process grew by while the records were accepted. `latency_ms`: p50, p99, p99.9.
    """

    sent: int
    acknowledged: int
    first: int
    seconds: float
    cpu_seconds: float
    peak_rss: int
    queued_rss: int = 0
    latency_ms: tuple[float, ...] = ()

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The way back."""
        found = json.loads(text)
        return cls(**{**found, "latency_ms": tuple(found["latency_ms"])})


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
