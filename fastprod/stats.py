"""What `KafkaProducer.stats()` returns: plain values, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_MICROSECOND_MS: Final = 0.001
# Buckets of the data plane's histogram: 16 of a microsecond, then eight to each doubling.
_LINEAR: Final = 16
_TO_A_DOUBLING: Final = 8


class Tally(NamedTuple):
    """So many `records`, and the `bytes` they take in their batches: encoded (key, value, headers
    and a few bytes of framing), before compression, without the batches' headers."""

    records: int
    bytes: int


class LatencyHistogram(NamedTuple):
    """How long a broker took to answer Produce requests, from the first byte written to the whole
    answer read. `counts[i]` requests took at least `lower_ms(i)` and less than `upper_ms(i)`; the
    bounds are fixed, and a bucket is at most an eighth of its lower bound (or 1 microsecond) wide.
    The last one holds whatever took longer. Histograms of the same producer can be subtracted,
    which leaves what lies between them.
    """

    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many requests were answered: an int."""
        return sum(self.counts)

    @property
    def p50_ms(self) -> float:
        """The median in ms; see `percentile_ms`."""
        return self.percentile_ms(50)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile in ms; see `percentile_ms`."""
        return self.percentile_ms(99)

    def percentile_ms(self, percent: float) -> float:
        """Return the upper bound in ms of the bucket that holds the request which `percent` of
        all were no slower than: at most 12.5 % more than it took. 0.0 where there was none.

        Raises ValueError for a percentage that is none.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent must be from 0 to 100, not {percent!r}")
        total = self.total
        if not total:
            return 0.0
        wanted = percent / 100 * total
        seen = 0
        last = 0
        for bucket, count in enumerate(self.counts):
            if not count:
                continue
            seen += count
            last = bucket
            if seen >= wanted:
                break
        return self.upper_ms(last)

    @staticmethod
    def lower_ms(bucket: int) -> float:
        """Return the least that a request in this bucket took, in ms."""
        if bucket < _LINEAR:
            return bucket * _MICROSECOND_MS
        shift = bucket // _TO_A_DOUBLING - 1
        return ((_TO_A_DOUBLING + bucket % _TO_A_DOUBLING) << shift) * _MICROSECOND_MS

    @staticmethod
    def upper_ms(bucket: int) -> float:
        """Return what every request in this bucket took less than, in ms (not so in the last)."""
        return LatencyHistogram.lower_ms(bucket + 1)

    def __sub__(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """Return what was counted since `earlier`."""
        pairs = zip(self.counts, earlier.counts, strict=True)
        return LatencyHistogram(tuple(mine - before for mine, before in pairs))


class BrokerStats(NamedTuple):
    """What went to one broker and came back: `requests` and `responses` count Produce requests and
    their answers, `request_bytes` and `response_bytes` what they took on the socket, sizes
    included. A request is counted when it is made, its retry is another one. `in_flight`: requests
    that are not answered yet; `throttled_ms`: what the broker asked us to pause, in all;
    `latency`: how long answers took.
    """

    requests: int
    responses: int
    request_bytes: int
    response_bytes: int
    in_flight: int
    throttled_ms: float
    latency: LatencyHistogram


class TopicStats(NamedTuple):
    """The `batches` sent to one topic and the `records` in them, those sent again counted again.
    `batch_bytes` and `batch_bytes_max` (the largest) are bytes of the wire, header included;
    `uncompressed_bytes` is what `batch_bytes` would be without compression. `records_retried`:
    sent again; `records_failed`: failed for good."""

    batches: int
    batch_bytes: int
    batch_bytes_max: int
    uncompressed_bytes: int
    records: int
    records_retried: int
    records_failed: int

    @property
    def batch_bytes_mean(self) -> float:
        """Bytes a batch; 0.0 before the first."""
        return self.batch_bytes / self.batches if self.batches else 0.0

    @property
    def records_per_batch(self) -> float:
        """Records a batch, on average; 0.0 before the first."""
        return self.records / self.batches if self.batches else 0.0


class ProducerStats(NamedTuple):
    """Where every record is that a producer has accepted, and what it took to get it there.

    `accepted` = `queued` + `in_flight` + `acknowledged` + `failed`, always, and exactly what was
    sent when the thread that sends looks. (A `send` whose future fails at once, such as one to a
    topic that does not exist, was never accepted.) `queued`: in a batch that is open, waits, or is
    to be sent again. `retried`: sent once more, counted each time. `unread_failures`: failed
    records whose error nobody has seen so far: no errback got it and nobody asked their future.
    `memory_used` and `memory_limit` (buffer_memory) are in bytes. `brokers` is by node id,
    `topics` by name.
    """

    accepted: Tally
    queued: Tally
    in_flight: Tally
    acknowledged: Tally
    failed: Tally
    retried: Tally
    unread_failures: int
    memory_used: int
    memory_limit: int
    brokers: Mapping[int, BrokerStats]
    topics: Mapping[str, TopicStats]
