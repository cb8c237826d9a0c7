"""What one measurement is told and what it answers. Both cross a process boundary as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

# What every client may hold in its queue, bytes: the same for all, and enough for a tenth of a second of the fastest.
QUEUE_BYTES = 128 << 20
# And where everything is accepted before the broker takes any of it.
DRAIN_QUEUE_BYTES = 512 << 20
# Delivered before the clock starts, so that the connection, the producer id and the interpreter are warm.
FIRST_RECORDS = 1_000

# The words between a measurement's process and its parent, each at the start of a line.
READY = "ready"
FILLED = "filled"
OUTCOME = "outcome "


@dataclass(frozen=True)
class Job:
    """One measurement: `records` records of `value_size` bytes, by one contender, to one empty topic.

    `queue_bytes`: what the client may hold. `busy`: a CPU-bound Python thread runs beside. `drain`: the broker stands
    still while the records are accepted, and the clock is the broker's log; otherwise the clock runs from the first
    send to the last acknowledgement.
    """

    contender: str
    bootstrap_servers: str
    topic: str
    records: int
    value_size: int
    compression: str | None
    queue_bytes: int = QUEUE_BYTES
    busy: bool = False
    drain: bool = False

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The way back."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """What the client says of itself: `sent` and `acknowledged` leave out the `first` ones, delivered before.

    Seconds are wall-clock and of the CPU (user and system, every thread of the process); `peak_rss` is in bytes.
    """

    sent: int
    acknowledged: int
    first: int
    seconds: float
    cpu_seconds: float
    peak_rss: int

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The way back."""
        return cls(**json.loads(text))
