"""Base-128 numbers: zigzag in records (Kafka protocol guide, "Record"), plain in flexible requests
(KIP-482)."""

from __future__ import annotations

from typing import Final

_MIN32: Final = -(2**31)
_MAX32: Final = 2**31 - 1
_MIN64: Final = -(2**63)
_MAX64: Final = 2**63 - 1
_UMAX32: Final = 2**32 - 1

SMALL_LIMIT: Final = 8192


def _put(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# The encoded numbers from 0 to SMALL_LIMIT - 1: nearly all lengths, offset deltas and timestamp
# deltas of real records, and looking one up costs a tenth of encoding it.
SMALL: Final = tuple(_put(value << 1) for value in range(SMALL_LIMIT))


def encode_varint(value: int) -> bytes:
    """`value` (a signed 32-bit number) as a zigzag varint. ValueError when it does not fit."""
    if 0 <= value < SMALL_LIMIT:
        return SMALL[value]
    if not _MIN32 <= value <= _MAX32:
        raise ValueError(f"{value} does not fit a varint's signed 32 bits")
    return _put((value << 1) ^ (value >> 31))


def encode_varlong(value: int) -> bytes:
    """`value` (a signed 64-bit number) as a zigzag varint. ValueError when it does not fit."""
    if 0 <= value < SMALL_LIMIT:
        return SMALL[value]
    if not _MIN64 <= value <= _MAX64:
        raise ValueError(f"{value} does not fit a varlong's signed 64 bits")
    return _put((value << 1) ^ (value >> 63))


def encode_uvarint(value: int) -> bytes:
    """`value` (an unsigned 32-bit number) as a plain varint. ValueError when it does not fit."""
    if not 0 <= value <= _UMAX32:
        raise ValueError(f"{value} does not fit an unsigned varint's 32 bits")
    return _put(value)


def _take(data: bytes | bytearray | memoryview, position: int, bits: int) -> tuple[int, int]:
    size = len(data)
    if not 0 <= position < size:
        raise ValueError(f"varint at {position} is cut short: there are {size} bytes")
    result = 0
    for shift in range(0, bits, 7):
        if position + shift // 7 >= size:
            break
        byte: int = data[position + shift // 7]
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result >> bits:
                break
            return result, position + shift // 7 + 1
    raise ValueError(f"varint at {position} is cut short or longer than {bits} bits")


def decode_varint(data: bytes | bytearray | memoryview, position: int) -> tuple[int, int]:
    """The signed 32-bit number at `position` and the position after it. ValueError when it is cut
    short or too long."""
    raw, after = _take(data, position, 32)
    return (raw >> 1) ^ -(raw & 1), after


def decode_varlong(data: bytes | bytearray | memoryview, position: int) -> tuple[int, int]:
    """The signed 64-bit number at `position` and the position after it. ValueError when it is cut
    short or too long."""
    raw, after = _take(data, position, 64)
    return (raw >> 1) ^ -(raw & 1), after


def decode_uvarint(data: bytes | bytearray | memoryview, position: int) -> tuple[int, int]:
    """The unsigned 32-bit number at `position` and the position after it. ValueError when it is
    cut short or too long."""
    return _take(data, position, 32)
