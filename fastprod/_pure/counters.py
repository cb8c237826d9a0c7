"""What the plane counts; the names are those of DESIGN.md, "Counters"."""

from __future__ import annotations

from typing import Final

PLANE: Final = (
    "records_appended",
    "record_bytes",
    "record_size_max",
    "batches_sent",
    "batch_bytes",
    "batch_size_max",
    "uncompressed_bytes",
    "compressed_bytes",
    "records_sent",
    "records_acked",
    "records_failed",
    "records_retried",
    "queue_time_ms",
    "queue_time_max_ms",
    "requests",
    "responses",
    "request_bytes",
    "request_size_max",
    "response_bytes",
    "latency_ms",
    "latency_max_ms",
    "throttle_ms",
    "throttle_max_ms",
    "requests_in_flight",
    "connections",
    "connections_opened",
    "connections_closed",
    "bytes_queued",
    "records_queued",
    "memory_used",
    "callbacks_waiting",
)
TOPIC: Final = (
    "records_sent",
    "batch_bytes",
    "uncompressed_bytes",
    "compressed_bytes",
    "records_retried",
    "records_failed",
    "batches_sent",
    "largest_batch",
)
NODE: Final = (
    "requests",
    "responses",
    "request_bytes",
    "request_size_max",
    "response_bytes",
    "latency_ms",
    "latency_max_ms",
    "throttle_ms",
    "throttle_max_ms",
    "in_flight",
)


LATENCY_BUCKETS: Final = 208


def latency_bucket(micros: int) -> int:
    """The bucket of a round trip; fastprod/stats.py tells its bounds."""
    shift = max(micros.bit_length() - 4, 0)
    return min(8 * shift + (micros >> shift), LATENCY_BUCKETS - 1)


class Counters:
    """Sums and maxima by name. Whoever writes or reads holds the core's lock."""

    __slots__ = ("values",)

    def __init__(self, names: tuple[str, ...]) -> None:
        self.values: dict[str, float] = dict.fromkeys(names, 0.0)

    def add(self, name: str, amount: float) -> None:
        self.values[name] += amount

    def top(self, name: str, amount: float) -> None:
        """Raise a maximum."""
        if amount > self.values[name]:
            self.values[name] = amount

    def look(self) -> dict[str, float]:
        """A copy; nothing begins anew."""
        return dict(self.values)

    def take(self) -> dict[str, float]:
        """A copy; the maxima begin anew."""
        copy = dict(self.values)
        for name in self.values:
            if "_max" in name:
                self.values[name] = 0.0
        return copy
