"""A hash that LZ4 frames are checked with, for tests that look at one."""

from __future__ import annotations

import struct


def xxh32(data: bytes) -> int:
    """xxHash32 with seed 0 for inputs below 16 bytes, from its specification."""
    p2, p3, p4, p5, mask = 2246822519, 3266489917, 668265263, 374761393, 0xFFFFFFFF
    value = (p5 + len(data)) & mask
    words, rest = divmod(len(data), 4)
    for (word,) in struct.iter_unpack("<I", data[: words * 4]):
        value = (value + word * p3) & mask
        value = (((value << 17) | (value >> 15)) & mask) * p4 & mask
    for byte in data[words * 4 :] if rest else b"":
        value = (value + byte * p5) & mask
        value = (((value << 11) | (value >> 21)) & mask) * 2654435761 & mask
    value = (value ^ (value >> 15)) * p2 & mask
    value = (value ^ (value >> 13)) * p3 & mask
    return value ^ (value >> 16)
