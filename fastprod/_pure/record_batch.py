"""Record batches, format v2 (Kafka protocol guide, "Record Batch")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from fastprod._pure import layout
from fastprod._pure.crc32c import crc32c
from fastprod._pure.varint import (
    SMALL,
    SMALL_LIMIT,
    decode_varint,
    decode_varlong,
    encode_varint,
    encode_varlong,
)

BytesLike = bytes | bytearray | memoryview
Compress = Callable[[BytesLike], bytes]
Header = tuple[str, BytesLike | None]
DecodedRecord = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

_NULL: Final = b"\x01"  # the length -1
_SIGN64: Final = 1 << 63


class Record:
    """A record on its way into a batch: what the caller gave, what serializers made of it, its
    bytes but for what depends on its place, and the memory that it holds until it has one."""

    __slots__ = (
        "charge",
        "framed",
        "key",
        "key_bytes",
        "timestamp",
        "value",
        "value_bytes",
    )

    def __init__(self, key: Any, value: Any) -> None:
        self.key = self.key_bytes = key
        self.value = self.value_bytes = value
        self.framed = b""
        self.timestamp = 0
        self.charge = 0


def flat(data: BytesLike | None) -> bytes | bytearray | None:
    """`data` as what can be joined: a memoryview of other items or with gaps becomes its bytes."""
    return data.tobytes() if isinstance(data, memoryview) else data


def frame_headers(headers: Sequence[Header]) -> bytes:
    """The headers in the record format, count first."""
    if not headers:
        return SMALL[0]
    parts: list[bytes | bytearray] = [encode_varint(len(headers))]
    for name, value in headers:
        text = str.encode(name)
        parts += (encode_varint(len(text)), text)
        raw = flat(value)
        if raw is None:
            parts.append(_NULL)
        else:
            parts += (encode_varint(len(raw)), raw)
    return b"".join(parts)


def frame_record(
    key: bytes | bytearray | None, value: bytes | bytearray | None, headers: bytes
) -> bytes:
    """Everything of a record that does not depend on its place in a batch: key, value, headers."""
    if key is None:
        if value is None:
            return _NULL + _NULL + headers
        return b"".join((_NULL, encode_varint(len(value)), value, headers))
    if value is None:
        return b"".join((encode_varint(len(key)), key, _NULL, headers))
    return b"".join((encode_varint(len(key)), key, encode_varint(len(value)), value, headers))


def place_record(framed: bytes, timestamp_delta: int, offset_delta: int) -> bytes:
    """A whole record: length, attributes, deltas and what `frame_record` made."""
    if 0 <= timestamp_delta < SMALL_LIMIT:
        timestamp = SMALL[timestamp_delta]
    else:
        # Wraps as the 64-bit field does: reading adds it back to the base modulo 2**64.
        wrapped = (timestamp_delta + _SIGN64) % (1 << 64) - _SIGN64
        timestamp = encode_varlong(wrapped)
    offset = SMALL[offset_delta] if offset_delta < SMALL_LIMIT else encode_varint(offset_delta)
    size = 1 + len(timestamp) + len(offset) + len(framed)
    length = SMALL[size] if size < SMALL_LIMIT else encode_varint(size)
    return b"".join((length, b"\x00", timestamp, offset, framed))


def batch_header(
    body: BytesLike,
    codec: int,
    count: int,
    base_timestamp: int,
    max_timestamp: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
) -> bytes:
    """The 61 bytes before a body as it is sent: base offset 0, leader epoch -1, CRC of it all.

    A new stamp for a new transmission is a new header; the body stays as it is.
    """
    stamp = layout.STAMP.pack(
        codec,
        count - 1,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    )
    preamble = layout.PREAMBLE.pack(
        0,
        layout.BATCH_HEADER + len(body) - layout.LEADER_EPOCH_AT,
        layout.NO_LEADER_EPOCH,
        layout.MAGIC,
        crc32c(body, crc32c(stamp)),
    )
    return preamble + stamp


def compressed_body(
    codec: int, compress: Compress | None, body: BytesLike
) -> tuple[int, BytesLike]:
    """The codec and the body to send: the compressed one only where it is smaller."""
    if codec and compress is not None:
        smaller = compress(body)
        if len(smaller) < len(body):
            return codec, smaller
    return 0, body


class RecordBatchBuilder:
    """One record batch built record by record, as the accumulator builds its batches.

    `limit`: the size in bytes, header included, above which `append` refuses; the first record
    always fits.
    """

    __slots__ = ("_base_timestamp", "_body", "_count", "_limit", "_max_timestamp")

    def __init__(self, limit: int = 1_000_000) -> None:
        if limit < 0:
            raise ValueError(f"limit must not be negative: {limit}")
        self._limit = limit
        self._body = bytearray()
        self._count = 0
        self._base_timestamp = self._max_timestamp = -1

    @property
    def count(self) -> int:
        """Records in the batch."""
        return self._count

    @property
    def size(self) -> int:
        """Bytes of the uncompressed batch, header included."""
        return layout.BATCH_HEADER + len(self._body)

    def append(
        self,
        timestamp_ms: int,
        key: BytesLike | None,
        value: BytesLike | None,
        headers: Sequence[Header],
    ) -> int | None:
        """Add a record and return its index, or None when there is no room left.

        `key`, `value`: bytes-like or None; `headers`: a list of (str, bytes-like or None) tuples.
        """
        framed = frame_record(flat(key), flat(value), frame_headers(headers))
        delta = timestamp_ms - self._base_timestamp if self._count else 0
        record = place_record(framed, delta, self._count)
        if self._count and self.size + len(record) > self._limit:
            return None
        self._body += record
        if self._count == 0:
            self._base_timestamp = self._max_timestamp = timestamp_ms
        self._max_timestamp = max(self._max_timestamp, timestamp_ms)
        self._count += 1
        return self._count - 1

    def build(
        self,
        codec: int = 0,
        compress: Compress | None = None,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
    ) -> bytes:
        """The whole batch: base offset 0, leader epoch -1; the compressed body only where it is
        smaller."""
        used, body = compressed_body(codec, compress, bytes(self._body))
        header = batch_header(
            body,
            used,
            self._count,
            self._base_timestamp,
            self._max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
        )
        return header + body


def _take_field(body: bytes, position: int, end: int) -> tuple[bytes | None, int]:
    size, position = decode_varint(body, position)
    if size < -1 or size > end - position:
        raise ValueError("a record's field is cut short")
    if size < 0:
        return None, position
    return body[position : position + size], position + size


def _take_headers(
    body: bytes, position: int, end: int, index: int
) -> tuple[list[tuple[str, bytes | None]], int]:
    headers: list[tuple[str, bytes | None]] = []
    count, position = decode_varint(body, position)
    if not 0 <= count <= end - position:
        raise ValueError(f"record {index} has a broken header count")
    for _ in range(count):
        name, position = _take_field(body, position, end)
        if name is None:
            raise ValueError(f"record {index} has a header without a name")
        value, position = _take_field(body, position, end)
        headers.append((name.decode(), value))
    return headers, position


def _take_record(record: bytes, base_timestamp: int, index: int) -> DecodedRecord:
    end = len(record)
    if end == 0 or record[0] != 0:
        raise ValueError(f"record {index} has unknown attributes")
    delta, position = decode_varlong(record, 1)
    timestamp = (base_timestamp + delta + _SIGN64) % (1 << 64) - _SIGN64
    offset, position = decode_varint(record, position)
    if offset != index:
        raise ValueError(f"record {index} has another offset delta")
    key, position = _take_field(record, position, end)
    value, position = _take_field(record, position, end)
    headers, position = _take_headers(record, position, end, index)
    if position != end:
        raise ValueError(f"record {index} has {end - position} bytes too many")
    return timestamp, key, value, headers


def decode_records(body: BytesLike, base_timestamp: int, count: int) -> list[DecodedRecord]:
    """The records of an uncompressed body: a list of (timestamp_ms, key, value, headers).

    `headers` is a list of (str, bytes or None). ValueError when the bytes are not exactly `count`
    records.
    """
    data = bytes(body)
    position = 0
    records = []
    for index in range(count):
        size, position = decode_varint(data, position)
        if not 0 <= size <= len(data) - position:
            raise ValueError(f"record {index} is cut short")
        records.append(_take_record(data[position : position + size], base_timestamp, index))
        position += size
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes follow the last record")
    return records


def record_upper_bound(framed_size: int) -> int:
    """What a record takes at most in a batch of its own; `framed_size`: of `frame_record`."""
    return layout.BATCH_HEADER + layout.RECORD_OVERHEAD + framed_size
