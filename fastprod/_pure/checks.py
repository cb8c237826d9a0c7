"""What an argument must be before a record is accepted."""

from __future__ import annotations

import time
from typing import Any, Final

from fastprod import failures
from fastprod._pure.record_batch import BytesLike, Header

_MAX_FIELD: Final = 0x7FFFFFFF
_MIN_TIMESTAMP: Final = -(1 << 63)
_MAX_TIMESTAMP: Final = (1 << 63) - 1


def check_headers(headers: Any) -> None:
    if not isinstance(headers, list):
        raise failures.headers_not_a_list(headers)
    for index, header in enumerate(headers):
        if (
            not isinstance(header, tuple)
            or len(header) != 2
            or not isinstance(header[0], str)
            or not isinstance(header[1], bytes)
        ):
            raise failures.bad_header(index, header)


def size_of(what: str, data: BytesLike | None) -> int:
    """What RecordMetadata says of it: bytes, of a memoryview of larger items as well."""
    if data is None:
        return -1
    if type(data) not in (bytes, bytearray, memoryview):
        raise failures.not_bytes(what, data)
    length = data.nbytes if type(data) is memoryview else len(data)
    if length > _MAX_FIELD:
        raise failures.too_long(what, length)
    return length


def timestamp_of(timestamp_ms: Any) -> int:
    if timestamp_ms is None:
        return time.time_ns() // 1_000_000
    if type(timestamp_ms) is not int:
        raise failures.bad_timestamp(timestamp_ms)
    if not _MIN_TIMESTAMP <= timestamp_ms <= _MAX_TIMESTAMP:
        raise failures.timestamp_out_of_range(timestamp_ms)
    return timestamp_ms


def header_size_of(headers: list[Header]) -> int:
    return sum(len(str.encode(name)) + len(value or b"") for name, value in headers)
