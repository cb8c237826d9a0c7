"""The one API the data plane speaks: Produce, versions 3 to 13 (Kafka protocol guide, "Produce
API"): the request writer and the response reader."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from fastprod._pure import layout
from fastprod._pure.record_batch import BytesLike
from fastprod._pure.varint import decode_uvarint, encode_uvarint

PRODUCE_KEY: Final = 0
OLDEST_VERSION: Final = 3
NEWEST_VERSION: Final = 13
LOG_START_FROM: Final = 5
THROTTLE_BY_CLIENT_FROM: Final = 6  # KIP-219: before, the broker delayed its answer instead
RECORD_ERRORS_FROM: Final = 8  # KIP-467
FLEXIBLE_FROM: Final = 9  # KIP-482: compact lengths, tagged fields
TOPIC_IDS_FROM: Final = 13  # KIP-516
LEADER_HINT_TAG: Final = 0  # KIP-951, inside a partition's answer
NODE_ENDPOINTS_TAG: Final = 0  # KIP-951, at the end of the response

_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_INT64: Final = struct.Struct(">q")
_NO_TAGS: Final = b"\x00"
_UUID_SIZE: Final = 16

LeaderHint = tuple[int, int, str | None, int]
PartitionAnswer = tuple[
    str | None,
    bytes | None,
    int,
    int,
    int,
    int,
    int,
    list[tuple[int, str | None]],
    str | None,
    LeaderHint | None,
]


class WireBatch(NamedTuple):
    """One partition's part of a request: header and body apart, so that bodies are not copied."""

    partition: int
    header: BytesLike
    body: BytesLike


TopicBatches = tuple[str, bytes | None, Sequence[WireBatch]]


def check_version(version: int) -> None:
    if not OLDEST_VERSION <= version <= NEWEST_VERSION:
        raise ValueError(f"Produce version {version} is not one of 3 to 13")


def _count(version: int, count: int) -> bytes:
    return encode_uvarint(count + 1) if version >= FLEXIBLE_FROM else _INT32.pack(count)


def _topic_name(version: int, topic: str, topic_id: bytes | None) -> bytes:
    if version >= TOPIC_IDS_FROM:
        if topic_id is None or len(topic_id) != _UUID_SIZE:
            raise ValueError(f"version {version} needs a topic id of 16 bytes, not {topic_id!r}")
        return topic_id
    name = topic.encode()
    if version >= FLEXIBLE_FROM:
        return encode_uvarint(len(name) + 1) + name
    return _INT16.pack(len(name)) + name


def write_request(
    version: int,
    correlation_id: int,
    client_id: str,
    acks: int,
    timeout_ms: int,
    topics: Sequence[TopicBatches],
) -> list[BytesLike]:
    """A whole Produce request as the pieces to send, in order; the first begins with its size."""
    flexible = version >= FLEXIBLE_FROM
    client = client_id.encode()
    head = bytearray(_INT16.pack(PRODUCE_KEY) + _INT16.pack(version))
    head += _INT32.pack(correlation_id)
    head += _INT16.pack(len(client)) + client
    if flexible:
        head += _NO_TAGS  # of the request header
        head += b"\x00"  # transactional_id: null
    else:
        head += _INT16.pack(-1)  # transactional_id: null
    head += _INT16.pack(acks)
    head += _INT32.pack(timeout_ms)
    head += _count(version, len(topics))
    pieces: list[BytesLike] = []
    for topic, topic_id, batches in topics:
        head += _topic_name(version, topic, topic_id)
        head += _count(version, len(batches))
        for batch in batches:
            head += _INT32.pack(batch.partition)
            head += _count(version, len(batch.header) + len(batch.body))  # records
            head += batch.header
            pieces += (head, batch.body)
            head = bytearray(_NO_TAGS if flexible else b"")  # of the partition
        if flexible:
            head += _NO_TAGS  # of the topic
    if flexible:
        head += _NO_TAGS  # of the request
    pieces.append(head)
    pieces.insert(0, _INT32.pack(sum(map(len, pieces))))
    return [piece for piece in pieces if len(piece)]


def encode_produce_request(
    version: int,
    correlation_id: int,
    client_id: str,
    acks: int,
    timeout_ms: int,
    topics: Sequence[tuple[str, bytes | None, Sequence[tuple[int, bytes]]]],
) -> bytes:
    """A whole Produce request with its 4-byte size, written by what writes the real ones.

    `topics`: a list of (name, topic_id or None, [(partition, batch bytes)]); version 3 to 13.
    """
    check_version(version)
    parts: list[TopicBatches] = []
    for topic, topic_id, partitions in topics:
        batches = []
        for partition, records in partitions:
            if len(records) < layout.BATCH_HEADER:
                raise ValueError(
                    f"a batch of {len(records)} bytes is shorter than its "
                    f"{layout.BATCH_HEADER}-byte header"
                )
            header, body = records[: layout.BATCH_HEADER], records[layout.BATCH_HEADER :]
            batches.append(WireBatch(partition, header, body))
        parts.append((topic, topic_id, batches))
    return b"".join(write_request(version, correlation_id, client_id, acks, timeout_ms, parts))


class _Cursor:
    """Reads one response. Every length is checked against what is left before it is used."""

    __slots__ = ("data", "flexible", "position", "version")

    def __init__(self, data: bytes, version: int) -> None:
        self.data = data
        self.position = 0
        self.version = version
        self.flexible = version >= FLEXIBLE_FROM

    def raw(self, size: int) -> bytes:
        start = self.position
        if not 0 <= size <= len(self.data) - start:
            raise ValueError(f"cut short: {size} bytes wanted at {start} of {len(self.data)}")
        self.position = start + size
        return self.data[start : self.position]

    def int16(self) -> int:
        return int(_INT16.unpack(self.raw(2))[0])

    def int32(self) -> int:
        return int(_INT32.unpack(self.raw(4))[0])

    def int64(self) -> int:
        return int(_INT64.unpack(self.raw(8))[0])

    def uvarint(self) -> int:
        value, self.position = decode_uvarint(self.data, self.position)
        return value

    def count(self) -> int:
        """An array's length; null counts as empty. No element is shorter than a byte."""
        count = self.uvarint() - 1 if self.flexible else self.int32()
        if not -1 <= count <= len(self.data) - self.position:
            raise ValueError(f"an array of {count} elements at {self.position}")
        return max(count, 0)

    def text(self) -> str | None:
        size = self.uvarint() - 1 if self.flexible else self.int16()
        if size == -1:
            return None
        # A text only explains; bytes that are no UTF-8 must not cost the connection.
        return self.raw(size).decode("utf-8", "replace")

    def tags(self) -> dict[int, bytes]:
        if not self.flexible:
            return {}
        found: dict[int, bytes] = {}
        for _ in range(self.uvarint()):
            tag = self.uvarint()
            found[tag] = self.raw(self.uvarint())
        return found


def _read_hint(tags: dict[int, bytes], version: int) -> tuple[int, int] | None:
    raw = tags.get(LEADER_HINT_TAG)
    if raw is None or len(raw) < 8:
        return None
    cursor = _Cursor(raw, version)
    return cursor.int32(), cursor.int32()


def _read_endpoints(tags: dict[int, bytes], version: int) -> dict[int, tuple[str | None, int]]:
    """Addresses by node. Broken ones are left out: they are a hint, and metadata tells as well."""
    endpoints: dict[int, tuple[str | None, int]] = {}
    cursor = _Cursor(tags.get(NODE_ENDPOINTS_TAG, b"\x00"), version)
    try:
        for _ in range(cursor.count()):
            node = cursor.int32()
            host = cursor.text()
            port = cursor.int32()
            cursor.text()  # rack
            cursor.tags()
            endpoints[node] = (host, port)
    except ValueError:
        pass
    return endpoints


class _Answer(NamedTuple):
    topic: str | None
    topic_id: bytes | None
    partition: int
    error_code: int
    base_offset: int
    log_append_time: int
    log_start_offset: int
    record_errors: list[tuple[int, str | None]]
    message: str | None
    hint: tuple[int, int] | None


def _read_answer(cursor: _Cursor, topic: str | None, topic_id: bytes | None) -> _Answer:
    partition = cursor.int32()
    error_code = cursor.int16()
    base_offset = cursor.int64()
    log_append_time = cursor.int64()
    log_start_offset = cursor.int64() if cursor.version >= LOG_START_FROM else -1
    record_errors: list[tuple[int, str | None]] = []
    message = None
    if cursor.version >= RECORD_ERRORS_FROM:
        for _ in range(cursor.count()):
            index = cursor.int32()
            record_errors.append((index, cursor.text()))
            cursor.tags()
        message = cursor.text()
    return _Answer(
        topic,
        topic_id,
        partition,
        error_code,
        base_offset,
        log_append_time,
        log_start_offset,
        record_errors,
        message,
        _read_hint(cursor.tags(), cursor.version),
    )


def _with_endpoint(
    answer: _Answer, endpoints: dict[int, tuple[str | None, int]]
) -> PartitionAnswer:
    if answer.hint is None:
        return (*answer[:9], None)
    host, port = endpoints.get(answer.hint[0], (None, -1))
    return (*answer[:9], (*answer.hint, host, port))


def _read_response(cursor: _Cursor) -> tuple[int, int, list[PartitionAnswer]]:
    correlation_id = cursor.int32()
    cursor.tags()
    answers = []
    for _ in range(cursor.count()):
        topic, topic_id = None, None
        if cursor.version >= TOPIC_IDS_FROM:
            topic_id = cursor.raw(_UUID_SIZE)
        else:
            topic = cursor.text()
        answers += [_read_answer(cursor, topic, topic_id) for _ in range(cursor.count())]
        cursor.tags()
    throttle_ms = cursor.int32()
    endpoints = _read_endpoints(cursor.tags(), cursor.version)
    if cursor.position != len(cursor.data):
        raise ValueError(f"{len(cursor.data) - cursor.position} bytes follow the response")
    return correlation_id, throttle_ms, [_with_endpoint(answer, endpoints) for answer in answers]


def decode_produce_response(
    version: int, payload: BytesLike
) -> tuple[int, int, list[PartitionAnswer]]:
    """(correlation_id, throttle_ms, answers) of a Produce response without its size; see DESIGN.md
    for an answer.

    ValueError when the bytes are not exactly one response of this version (3 to 13).
    """
    check_version(version)
    try:
        return _read_response(_Cursor(bytes(payload), version))
    except ValueError as error:
        raise ValueError(
            f"{len(payload)} bytes are not a Produce response of version {version}: {error}"
        ) from error
