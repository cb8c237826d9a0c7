"""Record batches of format v2, taken apart as a broker does that trusts nobody.

This reader shares no line with the one that the producer's own tests use: it follows Kafka's documentation of the
format, takes CRC-32C from the package `crc32c`, and opens bodies with the codecs' packages.
"""

from __future__ import annotations

import dataclasses
import importlib
import struct
import uuid
from dataclasses import dataclass
from typing import Final, NamedTuple

from fastprod.testing.scripted.bodies import plain_body

CORRUPT_MESSAGE: Final = 2
INVALID_RECORD: Final = 87
UNKNOWN_SERVER_ERROR: Final = -1
SEQUENCES: Final = 2**31
HEADER_SIZE: Final = 61
# baseOffset, batchLength, partitionLeaderEpoch, magic, crc, attributes, lastOffsetDelta, baseTimestamp, maxTimestamp,
# producerId, producerEpoch, baseSequence, count
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_MAGIC_AT: Final = 16
_CRC_FROM: Final = 21
# Of the oldest format, which a broker still checks first.
_SMALLEST_LENGTH: Final = 14
_CONTROL: Final = 0x20
_TRANSACTIONAL: Final = 0x10


class Record(NamedTuple):
    """A record. `offset` is its place in the batch until the batch is in a log."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Problem(NamedTuple):
    """What is wrong with a batch: the error code that a broker answers, and why (which it keeps to itself). `early`:
    found before the partition's log is looked at, so that the answer does not know where that starts."""

    code: int
    why: str
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a Produce request holds for one partition, or what lies in a log.

    `data`: all its bytes as they were sent. `problem`: what a broker has against it, None if nothing; fields behind the
    problem are then 0 and `records` is empty. `base_offset`: -1 until it is in a log. `codec`: 0 none, 1 gzip,
    2 snappy, 3 lz4, 4 zstd.
    """

    topic: str
    partition: int
    data: bytes
    base_offset: int = -1
    producer_id: int = -1
    epoch: int = -1
    sequence: int = -1
    count: int = 0
    attributes: int = 0
    base_timestamp_ms: int = -1
    max_timestamp_ms: int = -1
    records: tuple[Record, ...] = ()
    problem: Problem | None = None
    topic_id: uuid.UUID | None = None

    @property
    def codec(self) -> int:
        """Number of the codec."""
        return self.attributes & 7

    @property
    def transactional(self) -> bool:
        """Whether it is part of a transaction."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Producer id, epoch and first sequence."""
        return self.producer_id, self.epoch, self.sequence

    @property
    def last_sequence(self) -> int:
        """The last record's sequence; behind 2147483647 comes 0."""
        return (self.sequence + self.count - 1) % SEQUENCES

    @property
    def values(self) -> list[bytes | None]:
        """The values of its records."""
        return [record.value for record in self.records]

    def at(self, offset: int) -> Batch:
        """Return this batch as it lies in a log, its first record at `offset`."""
        records = tuple(each._replace(offset=offset + place) for place, each in enumerate(self.records))
        return dataclasses.replace(self, base_offset=offset, records=records)


class _Wrong(Exception):
    def __init__(self, code: int, why: str, early: bool = False) -> None:
        super().__init__(why)
        self.problem = Problem(code, why, early)


def read_batch(topic: str, partition: int, data: bytes | None, topic_id: uuid.UUID | None = None) -> Batch:
    """Take apart what a Produce request holds for a partition; what is wrong with it is in `problem`."""
    batch = Batch(topic=topic, partition=partition, data=data or b"", topic_id=topic_id)
    try:
        batch = _read_header(batch)
        _check_header(batch)
        return dataclasses.replace(batch, records=_read_records(batch))
    except _Wrong as error:
        return dataclasses.replace(batch, problem=error.problem)


def _read_header(bare: Batch) -> Batch:
    data = bare.data[: _size(bare.data)]
    _, _, _, _, _, attributes, _, first_ms, max_ms, producer_id, epoch, sequence, count = _HEADER.unpack_from(data)
    return dataclasses.replace(
        bare,
        data=data,
        producer_id=producer_id,
        epoch=epoch,
        sequence=sequence,
        count=count,
        attributes=attributes,
        base_timestamp_ms=first_ms,
        max_timestamp_ms=max_ms,
    )


def _size(data: bytes) -> int:
    """Return the size of the one batch in there. Like a broker, overlook what may be the beginning of another one."""
    size = _whole_batch(data)
    if size is None:
        raise _Wrong(INVALID_RECORD, f"no whole batch in {len(data)} bytes", early=True)
    if data[_MAGIC_AT] != 2:
        raise _Wrong(INVALID_RECORD, f"format {data[_MAGIC_AT]} instead of 2", early=True)
    if _whole_batch(data[size:]) is not None:
        raise _Wrong(INVALID_RECORD, f"more than one batch in {len(data)} bytes", early=True)
    if size < HEADER_SIZE:
        raise _Wrong(CORRUPT_MESSAGE, f"a batch of {size} bytes", early=True)
    return size


def _whole_batch(data: bytes) -> int | None:
    """Return the size of the batch that the bytes begin with, None if not all of it is there."""
    if len(data) <= _MAGIC_AT:
        return None
    (length,) = struct.unpack_from(">i", data, 8)
    if length < _SMALLEST_LENGTH or data[_MAGIC_AT] > 2:
        raise _Wrong(CORRUPT_MESSAGE, f"a batch of length {length} and format {data[_MAGIC_AT]}", early=True)
    return length + 12 if length + 12 <= len(data) else None


def _check_header(batch: Batch) -> None:
    """Check what a broker checks before it looks at the records, in its order."""
    base, _, _, _, crc, _, last_delta, *_ = _HEADER.unpack_from(batch.data)
    if base != 0:
        raise _Wrong(INVALID_RECORD, f"base offset {base} instead of 0")
    if _crc32c(batch.data[_CRC_FROM:]) != crc:
        raise _Wrong(CORRUPT_MESSAGE, "the CRC does not fit", early=True)
    if batch.attributes & _CONTROL:
        raise _Wrong(INVALID_RECORD, "a control batch from a client")
    if batch.count <= 0 or last_delta + 1 != batch.count:
        raise _Wrong(INVALID_RECORD, f"{batch.count} records up to offset delta {last_delta}")
    if batch.producer_id >= 0 and batch.sequence < 0:
        raise _Wrong(INVALID_RECORD, f"producer id {batch.producer_id} with sequence {batch.sequence}")


def _read_records(batch: Batch) -> tuple[Record, ...]:
    try:
        body = plain_body(batch.codec, batch.data[HEADER_SIZE:])
    except ValueError as error:
        raise _Wrong(UNKNOWN_SERVER_ERROR, str(error)) from error
    try:
        reader = _Reader(body)
        records = tuple(_read_record(reader, batch.base_timestamp_ms, place) for place in range(batch.count))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise _Wrong(INVALID_RECORD, str(error)) from error
    if reader.at != len(body):
        raise _Wrong(INVALID_RECORD, f"{len(body) - reader.at} bytes behind the last record")
    return records


def _read_record(reader: _Reader, base_ms: int, place: int) -> Record:
    size = reader.varint()
    end = reader.at + size
    reader.take(1)
    timestamp_ms = base_ms + reader.varint(64)
    offset = reader.varint()
    key = reader.field()
    value = reader.field()
    headers = []
    for _ in range(reader.varint()):
        name = reader.field()
        if name is None:
            raise ValueError(f"record {place} has a header without a key")
        headers.append((name.decode(), reader.field()))
    if reader.at != end:
        raise ValueError(f"record {place} gives its size as {size} and ends {reader.at - end:+} bytes from there")
    if offset != place:
        # Stricter than a broker, which keeps what it is given and lets consumers find out.
        raise ValueError(f"record {place} gives its offset delta as {offset}")
    return Record(offset, timestamp_ms, key, value, tuple(headers))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self.at:
            raise ValueError(f"{size} bytes wanted at {self.at} of {len(self._data)}")
        self.at += size
        return self._data[self.at - size : self.at]

    def varint(self, bits: int = 32) -> int:
        raw = shift = 0
        while True:
            byte = self._data[self.at]
            self.at += 1
            raw |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                raise ValueError(f"a varint of more than {bits} bits at {self.at}")
        return (raw >> 1) ^ -(raw & 1)

    def field(self) -> bytes | None:
        size = self.varint()
        return None if size == -1 else self.take(size)


def _crc32c(data: bytes) -> int:
    return int(importlib.import_module("crc32c").crc32c(data))
