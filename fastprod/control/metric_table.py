"""The names of kafka-python's producer metrics and what each is made of.

A row: name, how it is computed, the counters it needs, what it says. Rates are a second, sizes
bytes, latencies and times ms (kafka-python calls its queue times ms and gives seconds; ours are
ms). Counters are those of the data plane's `counters()`; where a name is the same on the control
plane's own connections, both are added up.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Kind(enum.Enum):
    """RATE: counter a second. AVG: first counter over the second. MAX: largest; 0, not nothing,
    where only the second counter, if any, has grown. NOW: as it is."""

    RATE = enum.auto()
    AVG = enum.auto()
    MAX = enum.auto()
    NOW = enum.auto()


class Row(NamedTuple):
    name: str
    kind: Kind
    counters: tuple[str, ...]
    description: str


_TRAFFIC: Final = (
    Row("outgoing-byte-rate", Kind.RATE, ("request_bytes",), "Bytes sent per second."),
    Row("incoming-byte-rate", Kind.RATE, ("response_bytes",), "Bytes received per second."),
    Row("request-rate", Kind.RATE, ("requests",), "Requests sent per second."),
    Row("response-rate", Kind.RATE, ("responses",), "Responses received per second."),
    Row("request-size-avg", Kind.AVG, ("request_bytes", "requests"), "Mean bytes of a request."),
    Row("request-size-max", Kind.MAX, ("request_size_max",), "Bytes of the largest request."),
    Row("request-latency-avg", Kind.AVG, ("latency_ms", "responses"), "Mean latency in ms."),
    Row("request-latency-max", Kind.MAX, ("latency_max_ms",), "Longest latency in ms."),
    Row("throttle-time-avg", Kind.AVG, ("throttle_ms", "responses"), "Mean throttling in ms."),
    Row("throttle-time-max", Kind.MAX, ("throttle_max_ms", "responses"),
        "Longest throttling in ms."),
)  # fmt: skip

PRODUCER: Final = (
    Row("batch-size-avg", Kind.AVG, ("batch_bytes", "batches_sent"), "Mean bytes of a batch."),
    Row("batch-size-max", Kind.MAX, ("batch_size_max",), "Bytes of the largest batch."),
    Row("compression-rate-avg", Kind.AVG, ("compressed_bytes", "uncompressed_bytes"),
        "Compressed size over uncompressed size."),
    Row("record-queue-time-avg", Kind.AVG, ("queue_time_ms", "batches_sent"),
        "Mean time in ms that batches waited to be sent."),
    Row("record-queue-time-max", Kind.MAX, ("queue_time_max_ms",),
        "Longest time in ms that a batch waited to be sent."),
    Row("record-send-rate", Kind.RATE, ("records_sent",), "Records sent per second."),
    Row("records-per-request-avg", Kind.AVG, ("records_sent", "produce_requests"),
        "Mean number of records in a Produce request."),
    Row("byte-rate", Kind.RATE, ("batch_bytes",), "Bytes of batches sent per second."),
    Row("record-retry-rate", Kind.RATE, ("records_retried",), "Records sent again per second."),
    Row("record-error-rate", Kind.RATE, ("records_failed",), "Records failed per second."),
    Row("record-size-avg", Kind.AVG, ("record_bytes", "records_appended"),
        "Mean bytes of a record."),
    Row("record-size-max", Kind.MAX, ("record_size_max",), "Bytes of the largest record."),
    Row("requests-in-flight", Kind.NOW, ("requests_in_flight",),
        "Requests without an answer yet."),
    Row("metadata-age", Kind.NOW, ("metadata_age",), "Age of the metadata in seconds."),
    Row("connection-close-rate", Kind.RATE, ("connections_closed",),
        "Connections closed per second."),
    Row("connection-creation-rate", Kind.RATE, ("connections_opened",),
        "Connections made per second."),
    Row("connection-count", Kind.NOW, ("connections",), "Connections open now."),
    Row("network-io-rate", Kind.RATE, ("requests", "responses"), "Reads and writes per second."),
    *_TRAFFIC,
)  # fmt: skip

NODE: Final = _TRAFFIC

TOPIC: Final = (
    Row("record-send-rate", Kind.RATE, ("records_sent",), "Records sent per second."),
    Row("byte-rate", Kind.RATE, ("batch_bytes",), "Bytes of batches sent per second."),
    Row("compression-rate", Kind.AVG, ("compressed_bytes", "uncompressed_bytes"),
        "Compressed size over uncompressed size."),
    Row("record-retry-rate", Kind.RATE, ("records_retried",), "Records sent again per second."),
    Row("record-error-rate", Kind.RATE, ("records_failed",), "Records failed per second."),
)  # fmt: skip
