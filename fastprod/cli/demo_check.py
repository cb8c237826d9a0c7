"""The demo's judge: reads everything back with another client and compares it with what was sent.

Nothing here uses the producer's own code: the consumer is confluent-kafka's, and the partition of a key is computed
anew from the published definition of murmur2.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from fastprod.cli.demo_flights import Flight
from fastprod.cli.failure import CommandError

_PATIENCE_S: Final = 60.0
_AT_ONCE: Final = 10_000
_EXAMPLES: Final = 3


class Written(NamedTuple):
    """Where and when a record was written, as its future said."""

    partition: int
    offset: int
    timestamp_ms: int


class Found(NamedTuple):
    """A record as the consumer read it."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Partition(NamedTuple):
    """What was read from one partition; offsets are -1 where it is empty."""

    number: int
    records: int
    first_offset: int
    last_offset: int


class Verdict(NamedTuple):
    """What the comparison came to: `problems` is kind -> how many, with a few examples of each."""

    partitions: list[Partition]
    problems: dict[str, int]
    examples: list[str]


class _Complaints:
    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.examples: list[str] = []

    def add(self, kind: str, example: str) -> None:
        self.count[kind] += 1
        if self.count[kind] <= _EXAMPLES:
            self.examples.append(f"{kind}: {example}")


def compare(
    sent: Sequence[Flight], written: Sequence[Written | None], found: Iterable[Found], partitions: int
) -> Verdict:
    """Compare every record sent with what its future said and with what was read, byte by byte."""
    complaints = _Complaints()
    expected = _expected(sent, written, partitions, complaints)
    read: dict[int, list[int]] = {number: [] for number in range(partitions)}
    for record in found:
        place = f"partition {record.partition}, offset {record.offset}"
        index = expected.get(record.partition, {}).pop(record.offset, None)
        read.setdefault(record.partition, []).append(record.offset)
        if index is None:
            complaints.add("read but never acknowledged there, or read twice", place)
            continue
        flight = sent[index]
        for what, is_there, should_be in (
            ("key", record.key, flight.key),
            ("value", record.value, flight.value),
            ("timestamp", record.timestamp_ms, flight.timestamp_ms),
        ):
            if is_there != should_be:
                complaints.add(f"{what} differs", f"{place}: {is_there!r:.80} instead of {should_be!r:.80}")
    for partition, left in expected.items():
        for offset, index in left.items():
            complaints.add("acknowledged but not read", f"record {index} at partition {partition}, offset {offset}")
    table = [
        Partition(number, len(offsets), min(offsets, default=-1), max(offsets, default=-1))
        for number, offsets in sorted(read.items())
    ]
    return Verdict(table, dict(complaints.count), complaints.examples)


def _expected(
    sent: Sequence[Flight], written: Sequence[Written | None], partitions: int, complaints: _Complaints
) -> dict[int, dict[int, int]]:
    """Return partition -> offset -> index of the record that is to be there, checking what the futures said."""
    expected: dict[int, dict[int, int]] = {number: {} for number in range(partitions)}
    last = dict.fromkeys(range(partitions), -1)
    homes: dict[bytes, int] = {}
    for index, (flight, place) in enumerate(zip(sent, written, strict=True)):
        if place is None:
            complaints.add("not acknowledged", f"record {index}")
            continue
        home = homes.get(flight.key)
        if home is None:
            home = homes[flight.key] = partition_of(flight.key, partitions)
        if place.partition != home:
            complaints.add("wrong partition", f"record {index}: {place.partition} instead of {home}")
        if place.timestamp_ms != flight.timestamp_ms:
            complaints.add("wrong timestamp in the future", f"record {index}: {place.timestamp_ms}")
        if place.offset <= last.get(place.partition, -1):
            complaints.add("out of order", f"record {index}: offset {place.offset} in partition {place.partition}")
        last[place.partition] = place.offset
        expected.setdefault(place.partition, {})[place.offset] = index
    return expected


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's default partitioner gives a key: murmur2 without its sign, modulo."""
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    value = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        value = value * factor & mask ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return ((value ^ value >> 15) & 0x7FFFFFFF) % partitions


def read_back(servers: str, topic: str, partitions: int) -> Iterator[Found]:
    """Yield every record of the topic, all partitions from the beginning to the end offsets of this moment.

    CommandError where the broker stops answering before that.
    """
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "fastprod-demo",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "check.crcs": True,
        }
    )
    try:
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        ends = [consumer.get_watermark_offsets(place, timeout=_PATIENCE_S) for place in places]
        left = sum(high - low for low, high in ends)
        consumer.assign(places)
        deadline = time.monotonic() + _PATIENCE_S
        while left > 0:
            messages = consumer.consume(min(left, _AT_ONCE), timeout=1.0)
            if messages:
                deadline = time.monotonic() + _PATIENCE_S
            elif time.monotonic() > deadline:
                raise CommandError(f"reading back stopped with {left} records to go: no answer for {_PATIENCE_S:.0f} s")
            for message in messages:
                error = message.error()
                if error is not None:
                    raise CommandError(f"reading back failed: {error}")
                left -= 1
                yield _found(message)
    finally:
        consumer.close()


def _found(message: Any) -> Found:
    return Found(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value())
