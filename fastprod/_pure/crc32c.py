"""CRC-32C (Castagnoli, RFC 3720), the checksum of a record batch, at the speed of Python's long
integers.

A table of 256 entries costs 70 ns a byte in Python; a batch would take longer to check than to
build. But a CRC is a remainder of polynomials over GF(2), and a Python int is such a polynomial
whose shift and exclusive or run in C over all of its bits. The remainder is found by folding: the
generator P divides

    x^6777 + x^484 + x^100 + 1

so x^6777 may be replaced by x^484 + x^100 + 1, and the upper part of a long polynomial, wherever it
begins, by three shifted copies of itself further down. In GF(2) the square of a sum is the sum of
the squares, so the same holds with all exponents doubled, and doubled again: a megabyte is halved
by the largest of these that fits, the rest by the next one, until some 40 bytes are left for the
tables. About 5 ns a byte, whatever the length, and 10 us for the small end.

Bits are reflected, as in all of CRC-32C: bit 0 of the first byte is the highest power, so "upper
part" means the low end of the integer.
"""

from __future__ import annotations

import struct
from typing import Final

_POLYNOMIAL: Final = 0x82F63B78
_MASK32: Final = 0xFFFFFFFF
_MASK64: Final = 0xFFFFFFFFFFFFFFFF

# Sparse multiples of the generator: the highest power, and the lower ones beside x^0 in falling
# order. `tests/unit/test_pure_record_batch.py` divides each by the generator.
_SMALLEST: Final = (247, (49, 47, 40, 38, 15, 3))
_SMALL: Final = (563, (109, 58, 53, 31))
_LARGE: Final = (6777, (484, 100))

# Longer stretches than this are checked piece by piece: the integers then stay in the cache.
_PIECE: Final = 1 << 18
# Below this many bytes the tables are faster than folding.
_FOLD_FROM: Final = 80


def _tables() -> tuple[tuple[int, ...], ...]:
    first = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        first.append(crc)
    tables = [first]
    for _ in range(7):
        tables.append([crc >> 8 ^ first[crc & 0xFF] for crc in tables[-1]])
    return tuple(tuple(table) for table in tables)


_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7 = _tables()


def _doubled(multiple: tuple[int, tuple[int, ...]], times: int) -> tuple[int, tuple[int, ...]]:
    return multiple[0] << times, tuple(power << times for power in multiple[1])


FOLDS: Final = tuple(
    sorted(
        [_SMALLEST]
        + [_doubled(_SMALL, times) for times in range(4)]
        + [_doubled(_LARGE, times) for times in range(10)],
        reverse=True,
    )
)


def _fold(message: int, bits: int) -> tuple[int, int]:
    """A shorter polynomial with the same remainder, and its length in bits."""
    for top, powers in FOLDS:
        while bits > top + (top >> 2):
            upper_bits = bits - top
            upper = message & ((1 << upper_bits) - 1)
            bits = max(top, upper_bits + powers[0])
            shift = bits - upper_bits
            message = message >> upper_bits << bits - top ^ upper << shift
            for power in powers:
                message ^= upper << shift - power
    return message, bits


def _short(crc: int, data: bytes | bytearray | memoryview) -> int:
    """Eight bytes a step by eight tables, then byte by byte."""
    words = len(data) >> 3
    for word in struct.unpack_from(f"<{words}Q", data):
        crc ^= word
        crc = (
            _T7[crc & 0xFF]
            ^ _T6[crc >> 8 & 0xFF]
            ^ _T5[crc >> 16 & 0xFF]
            ^ _T4[crc >> 24 & 0xFF]
            ^ _T3[crc >> 32 & 0xFF]
            ^ _T2[crc >> 40 & 0xFF]
            ^ _T1[crc >> 48 & 0xFF]
            ^ _T0[crc >> 56]
        )
    for byte in data[words << 3 :]:
        crc = crc >> 8 ^ _T0[(crc ^ byte) & 0xFF]
    return crc


def _long(crc: int, data: bytes | bytearray | memoryview) -> int:
    message, bits = _fold(int.from_bytes(data, "little") ^ crc, len(data) << 3)
    # Zeros above the highest power change nothing; they make the length a whole number of words.
    padding = -bits & 63
    return _short(0, (message << padding).to_bytes(bits + padding >> 3, "little"))


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """CRC-32C of `data` (bytes-like), continuing `value`, the CRC-32C of what came before it."""
    view = memoryview(data)
    if view.format != "B" or not view.c_contiguous:
        view = memoryview(view.tobytes())
    crc = value ^ _MASK32
    for start in range(0, len(view), _PIECE):
        piece = view[start : start + _PIECE]
        crc = (_short if len(piece) < _FOLD_FROM else _long)(crc, piece)
    return crc ^ _MASK32


def _product(a: int, b: int) -> int:
    """a * b modulo the generator; bit 31 is the coefficient of x^0."""
    result = 0
    while a:
        if a & 0x80000000:
            result ^= b
        a = a << 1 & _MASK32
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result


def crc32c_combine(first: int, second: int, second_length: int) -> int:
    """CRC-32C of two stretches of bytes from the CRC of each and the length of the second in
    bytes."""
    if second_length < 0:
        raise ValueError(f"second_length must not be negative: {second_length}")
    power = 0x00800000  # x^8
    while second_length:
        if second_length & 1:
            first = _product(first, power)
        power = _product(power, power)
        second_length >>= 1
    return first ^ second


def crc32c_implementation() -> str:
    """What computes the CRC here: "python"."""
    return "python"
