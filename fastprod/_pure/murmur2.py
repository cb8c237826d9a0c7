"""The hash by which Kafka's Java producer, and so everybody, maps keys to partitions."""

from __future__ import annotations

import functools
import struct
from typing import Final

_M: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_MASK: Final = 0xFFFFFFFF
_WORDS: Final = tuple(struct.Struct(f"<{count}I") for count in range(17))


def _hash(data: bytes | bytearray | memoryview) -> int:
    """The hash as an unsigned 32-bit number. Only what can carry into the low 32 bits of a later
    step is masked away."""
    size = len(data)
    h = _SEED ^ size
    count = size >> 2
    words = _WORDS[count] if count < 17 else struct.Struct(f"<{count}I")
    for k in words.unpack_from(data):
        k = k * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    tail = size & 3
    if tail:
        h = (h ^ int.from_bytes(data[size - tail :], "little")) * _M & _MASK
    h ^= h >> 13
    h = h * _M & _MASK
    return h ^ h >> 15


def _flat(data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    return data.tobytes() if isinstance(data, memoryview) else data


def murmur2(data: bytes | bytearray | memoryview) -> int:
    """Kafka's murmur2 of `data` (bytes-like) as the signed 32-bit number that Java gives."""
    h = _hash(_flat(data))
    return h - 0x100000000 if h & 0x80000000 else h


# Hashing a key of ten bytes costs two microseconds in Python, as much as framing its record. The
# keys of a stream come back again and again, so the last few thousand short ones are remembered.
_remembered: Final = functools.lru_cache(maxsize=8192)(_hash)
_LONGEST_REMEMBERED: Final = 64


def partition_for_key(key: bytes | bytearray | memoryview, partitions: int) -> int:
    """The partition of `partitions` that Java's producer gives a record with this key
    (bytes-like)."""
    if not 1 <= partitions <= 0x7FFFFFFF:
        raise ValueError(f"partitions must be from 1 to 2147483647, not {partitions}")
    if type(key) is bytes and len(key) <= _LONGEST_REMEMBERED:
        return (_remembered(key) & 0x7FFFFFFF) % partitions
    return (_hash(_flat(key)) & 0x7FFFFFFF) % partitions
