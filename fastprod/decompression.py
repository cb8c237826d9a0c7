"""Bodies of our own batches, read again: to split them or to hand them back.

Every function returns at most `max_size` bytes and raises ValueError for more, and for bytes that
are broken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

from fastprod.codecs import GZIP, LZ4, NONE, SNAPPY, ZSTD, BytesLike, import_package

_XERIAL_MAGIC: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_SIZE: Final = 16


def decompress(codec: int, data: BytesLike, max_size: int) -> bytes:
    """Return the plain body of a batch.

    `codec`: its number in a batch's attributes; `data`: the compressed body; `max_size`: bytes.
    Raises ValueError for an unknown codec, for broken bytes and where more than `max_size` bytes
    come out; RuntimeError where no package for the codec is installed.
    """
    readers: dict[int, Callable[[memoryview, int], bytes]] = {
        NONE: _read_plain,
        GZIP: _read_gzip,
        SNAPPY: _read_snappy,
        LZ4: _read_lz4,
        ZSTD: _read_zstd,
    }
    reader = readers.get(codec)
    if reader is None:
        raise ValueError(f"There is no codec {codec}; codecs are 0 to 4.")
    return reader(memoryview(data).cast("B"), max_size)


def _read_plain(data: memoryview, max_size: int) -> bytes:
    if len(data) > max_size:
        raise _too_much(max_size)
    return bytes(data)


def _read_gzip(data: memoryview, max_size: int) -> bytes:
    stream = zlib.decompressobj(31)
    try:
        plain = stream.decompress(data, max_size + 1)
    except zlib.error as error:
        raise _broken("gzip", error) from error
    if len(plain) > max_size:
        raise _too_much(max_size)
    # The output may be whole before the trailer with the checksum has been read.
    if not stream.eof:
        raise _broken("gzip", "cut short")
    return plain


def _read_snappy(data: memoryview, max_size: int) -> bytes:
    snappy = import_package("snappy", "cramjam").snappy
    if bytes(data[:8]) != _XERIAL_MAGIC:
        return _snappy_block(snappy, data, max_size)
    parts: list[bytes] = []
    position, room = _XERIAL_HEADER_SIZE, max_size
    while position < len(data):
        if position + 4 > len(data):
            raise _broken("snappy", "cut short")
        (size,) = struct.unpack_from(">i", data, position)
        position += 4
        if not 0 < size <= len(data) - position:
            raise _broken("snappy", f"a block of {size} bytes")
        parts.append(_snappy_block(snappy, data[position : position + size], room))
        room -= len(parts[-1])
        position += size
    return b"".join(parts)


def _snappy_block(snappy: Any, block: memoryview, max_size: int) -> bytes:
    try:
        # The length stands in front: it is looked at before anything of that size is made.
        if snappy.decompress_raw_len(block) > max_size:
            raise _too_much(max_size)
        return bytes(snappy.decompress_raw(block))
    except ValueError:
        raise
    except Exception as error:
        raise _broken("snappy", error) from error


def _read_lz4(data: memoryview, max_size: int) -> bytes:
    package = import_package("lz4", "lz4.frame", "cramjam")
    if package.__name__ != "lz4.frame":
        return _into_bounded("lz4", package.lz4.decompress_into, data, max_size)
    stream = package.LZ4FrameDecompressor()
    try:
        plain: bytes = stream.decompress(bytes(data), max_length=max_size + 1)
    except Exception as error:
        raise _broken("lz4", error) from error
    if len(plain) > max_size:
        raise _too_much(max_size)
    if not stream.eof:
        raise _broken("lz4", "cut short")
    return plain


def _read_zstd(data: memoryview, max_size: int) -> bytes:
    package = import_package("zstd", "zstandard", "cramjam")
    if package.__name__ != "zstandard":
        return _into_bounded("zstd", package.zstd.decompress_into, data, max_size)
    try:
        announced = package.frame_content_size(data)
        if announced > max_size:
            raise _too_much(max_size)
        plain: bytes = package.ZstdDecompressor().decompress(data, max_output_size=max_size)
    except package.ZstdError as error:
        raise _broken("zstd", error) from error
    return plain


def _into_bounded(
    name: str, decompress_into: Callable[[memoryview, bytearray], int], data: memoryview, limit: int
) -> bytes:
    """Let a function write into a buffer of the size that is allowed, and no further."""
    room = bytearray(limit + 1)
    try:
        size = decompress_into(data, room)
    except Exception as error:
        raise _broken(name, error) from error
    if size > limit:
        raise _too_much(limit)
    return bytes(memoryview(room)[:size])


def _too_much(max_size: int) -> ValueError:
    return ValueError(f"The compressed body holds more than the {max_size} bytes that are allowed.")


def _broken(name: str, why: object) -> ValueError:
    return ValueError(f"The {name} body is broken ({why}).")
