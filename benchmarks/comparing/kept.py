"""What the sink's checking mode has kept, decoded by aiokafka, and what should be there.

The sink itself has checked lengths, CRC-32C, sequences and the number of records of batches that are not compressed.
Here every record is compared with what was produced, and counted where a codec hides it from the sink.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from comparing.workload import page

Record = tuple[bytes, bytes]  # value, key
Kept = dict[tuple[str, int], list[Record]]

_COUNT_AT = 57


def read(path: Path) -> Kept:
    """Records by topic and partition, in the order of their arrival. ValueError for a batch that lies about itself."""
    found: Kept = defaultdict(list)
    for topic, partition, batch in _batches(path.read_bytes()):
        records = list(_records(batch))
        (told,) = struct.unpack_from(">i", batch, _COUNT_AT)
        if len(records) != told:
            raise ValueError(
                f"a batch of {topic}, partition {partition}, tells of {told} records and has {len(records)}"
            )
        found[topic, partition] += records
    return found


def difference(found: Kept, value_size: int, counts: list[int], partitions: int, hashes: bool) -> str:
    """What is wrong with it, in words; "" if nothing is.

    Streams of `counts` records were sent, each from the beginning of the page. `hashes`: the partition must be that of
    the key, and records of one stream in their order where they went to one topic; if not, each must at least be one of
    the page's.
    """
    values, keys = page(value_size)
    produced = list(zip(values, keys, strict=True))
    if not hashes:
        unknown = {record for records in found.values() for record in records} - set(produced)
        return f"a record that nobody sent: {_shown(unknown.pop())}" if unknown else ""
    wanted = Counter(record for count in counts for record in _stream(produced, count))
    got = Counter(record for records in found.values() for record in records)
    if got != wanted:
        lost, strange = wanted - got, got - wanted
        return "; ".join(
            f"{which.total()} records {what}, such as {_shown(next(iter(which)))}"
            for which, what in ((lost, "are missing"), (strange, "nobody sent"))
            if which
        )
    one_order = len(counts) <= 2 and len({topic for topic, _ in found}) == 1
    return _misplaced(found, partitions) or (_disordered(found, counts, partitions, produced) if one_order else "")


def _misplaced(found: Kept, partitions: int) -> str:
    for (topic, partition), records in found.items():
        for record in records:
            right = _partition(record[1], partitions)
            if right != partition:
                return f"{_shown(record)} is on partition {partition} of {topic} and belongs to {right}"
    return ""


def _disordered(found: Kept, counts: list[int], partitions: int, produced: list[Record]) -> str:
    """The first stream was sent and acknowledged before the second."""
    wanted = defaultdict(list)
    for count in counts:
        for record in _stream(produced, count):
            wanted[_partition(record[1], partitions)].append(record)
    for (topic, partition), records in found.items():
        for number, (record, right) in enumerate(zip(records, wanted[partition], strict=True)):
            if record != right:
                return f"record {number} of {topic}, partition {partition}, is {_shown(record)}, not {_shown(right)}"
    return ""


@cache
def _partition(key: bytes, partitions: int) -> int:
    from kafka.partitioner.default import murmur2

    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def _stream(produced: list[Record], count: int) -> Iterator[Record]:
    for number in range(count):
        yield produced[number % len(produced)]


def _records(batch: bytes) -> Iterator[Record]:
    from aiokafka.record.default_records import DefaultRecordBatch

    for record in DefaultRecordBatch(batch):
        yield bytes(record.value), bytes(record.key)


def _batches(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">H", data, at)
        topic = data[at + 2 : at + 2 + size].decode()
        at += 2 + size
        partition, _offset, length = struct.unpack_from(">iqi", data, at)
        yield topic, partition, data[at + 4 : at + 4 + 12 + length]
        at += 4 + 12 + length


def _shown(record: Record) -> str:
    value, key = record
    return f"key {key!r}, value {value[:40]!r} ({len(value)} bytes)"
