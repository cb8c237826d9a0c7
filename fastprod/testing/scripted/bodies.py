"""Compressed bodies of record batches, opened by the codecs' own packages, with a broker's strictness.

Written apart from the code that compresses for the producer, so that neither hides a mistake of the other.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
_XERIAL: Final = b"\x82SNAPPY\x00"


def plain_body(codec: int, data: bytes) -> bytes:
    """Return what a body holds. ValueError for an unknown codec and for bytes that a broker does not take."""
    if codec >= len(CODECS):
        raise ValueError(f"there is no codec {codec}")
    openers: list[Callable[[bytes], bytes]] = [bytes, _gzip, _snappy, _lz4, _zstd]
    try:
        return openers[codec](data)
    except Exception as error:
        raise ValueError(f"the {CODECS[codec]} body cannot be read: {error}") from error


def _gzip(data: bytes) -> bytes:
    stream = zlib.decompressobj(31)
    plain = stream.decompress(data)
    if not stream.eof or stream.unused_data:
        raise ValueError("not exactly one member")
    return plain


def _snappy(data: bytes) -> bytes:
    snappy = importlib.import_module("cramjam").snappy
    if not data.startswith(_XERIAL):
        return bytes(snappy.decompress_raw(data))
    parts, at = [], 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        if not 0 <= size <= len(data) - at - 4:
            raise ValueError(f"a block of {size} bytes")
        parts.append(bytes(snappy.decompress_raw(data[at + 4 : at + 4 + size])))
        at += 4 + size
    return b"".join(parts)


def _lz4(data: bytes) -> bytes:
    # Java's reader knows one frame of independent blocks, format version 1.
    magic, flags = struct.unpack_from("<IB", data)
    if magic != 0x184D2204 or flags >> 6 != 1:
        raise ValueError("not an LZ4 frame of version 1")
    if not flags & 0x20:
        raise ValueError("the blocks are linked")
    package = _first("lz4.frame", "cramjam")
    if package.__name__ == "cramjam":
        return bytes(package.lz4.decompress(data))
    stream = package.LZ4FrameDecompressor()
    plain: bytes = stream.decompress(data)
    if not stream.eof or stream.unused_data:
        raise ValueError("not exactly one frame")
    return plain


def _zstd(data: bytes) -> bytes:
    package = _first("zstandard", "cramjam")
    if package.__name__ == "cramjam":
        return bytes(package.zstd.decompress(data))
    # As a stream: the frame need not say how much it holds.
    stream = package.ZstdDecompressor().decompressobj()
    plain: bytes = stream.decompress(data)
    if not stream.eof or stream.unused_data:
        raise ValueError("not exactly one frame")
    return plain


def _first(*names: str) -> Any:
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return importlib.import_module(names[-1])
