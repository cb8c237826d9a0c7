"""Compresses the bodies of record batches; `decompress` is the way back.

What the bytes must look like, and why, is said at each codec. A codec's package is imported when
the codec is first asked for.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

from fastprod.codecs import (
    CODECS,
    BytesLike,
    Compress,
    check_level,
    codec_number,
    import_package,
    library_level,
    try_import,
)
from fastprod.decompression import decompress

__all__ = [
    "CODECS",
    "BytesLike",
    "Compress",
    "check_level",
    "codec_number",
    "compressor",
    "decompress",
    "library_level",
    "versions",
]

_XERIAL_HEADER: Final = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
_XERIAL_CHUNK: Final = 32 * 1024
# liblz4's codes for blocks of up to 64 kB and 1 MB. The fast compressor has a finer table for blocks
# of 64 kB, and what other clients write has them; high compression (from level 3 on) finds more in
# larger ones. 4 MB would make every consumer set aside as much a batch for next to no gain.
_LZ4_BLOCK_64KB: Final = 4
_LZ4_BLOCK_1MB: Final = 6
_LZ4_HIGH: Final = 3


def compressor(name: str, level: int | None = None) -> Compress:
    """Return the function that compresses the body of a batch.

    It takes anything bytes-like and may be called from several threads at once; the packages
    release the interpreter lock while they work. Raises KafkaConfigurationError for an unknown
    codec or level and RuntimeError, which names the pip command, where no package for the codec is
    installed.
    """
    effort = library_level(name, check_level(name, level))
    makers: dict[str, Callable[[int], Compress]] = {
        "gzip": _gzip,
        "snappy": _snappy,
        "lz4": _lz4,
        "zstd": _zstd,
    }
    return makers[name](effort)


def versions() -> dict[str, str]:
    """Return, for each codec, the package that does it and its version, as `--version` prints."""
    found = {"gzip": f"zlib {zlib.ZLIB_RUNTIME_VERSION}"}
    for codec, package in (("snappy", None), ("lz4", "lz4.frame"), ("zstd", "zstandard")):
        module = try_import(package) or try_import("cramjam")
        if module is None:
            found[codec] = "not installed"
            continue
        home = importlib.import_module(module.__name__.partition(".")[0])
        found[codec] = f"{home.__name__} {getattr(home, '__version__', '?')}"
    return found


def _gzip(effort: int) -> Compress:
    def compress(data: BytesLike) -> bytes:
        # wbits 31: one member with the header and trailer of RFC 1952.
        return zlib.compress(data, effort, 31)

    return compress


def _snappy(effort: int) -> Compress:
    """Raw snappy blocks in the stream format of the xerial library, which Java clients write."""
    snappy = import_package("snappy", "cramjam").snappy

    def compress(data: BytesLike) -> bytes:
        view = memoryview(data).cast("B")
        parts = [_XERIAL_HEADER]
        for start in range(0, len(view), _XERIAL_CHUNK):
            block = bytes(snappy.compress_raw(view[start : start + _XERIAL_CHUNK]))
            parts += (struct.pack(">i", len(block)), block)
        return b"".join(parts)

    return compress


def _lz4(effort: int) -> Compress:
    """One LZ4 frame of independent blocks.

    Brokers and Java consumers reject linked blocks, which both packages write unless told
    otherwise. The content size is left out: they would only skip it.
    """
    package = import_package("lz4", "lz4.frame", "cramjam")
    if package.__name__ == "lz4.frame":
        from_lz4 = package.compress
        block_size = _LZ4_BLOCK_64KB if effort < _LZ4_HIGH else _LZ4_BLOCK_1MB

        def compress(data: BytesLike) -> bytes:
            frame: bytes = from_lz4(
                data,
                compression_level=effort,
                block_size=block_size,
                block_linked=False,
                store_size=False,
            )
            return frame

        return compress
    lz4 = package.lz4
    # Here 2 and up is high compression, and the default is 4.
    effort = 1 if effort <= 2 else effort

    def compress_with_cramjam(data: BytesLike) -> bytes:
        stream = lz4.Compressor(level=effort, block_linked=False, content_checksum=False)
        # It takes nothing but bytes.
        stream.compress(data if isinstance(data, bytes) else bytes(data))
        return bytes(stream.finish())

    return compress_with_cramjam


def _zstd(effort: int) -> Compress:
    """One zstd frame. No level makes a window above the 2**27 bytes that Java consumers take."""
    package = import_package("zstd", "zstandard", "cramjam")
    if package.__name__ == "zstandard":
        # A compressor object is worth keeping (it owns its tables) but must not be used by two
        # threads at once. Not thread-local: a native thread has a new local for every entry.
        idle: list[Any] = []

        def compress(data: BytesLike) -> bytes:
            try:
                mine = idle.pop()
            except IndexError:
                mine = package.ZstdCompressor(level=effort)
            frame: bytes = mine.compress(data)
            idle.append(mine)
            return frame

        return compress
    zstd = package.zstd

    def compress_with_cramjam(data: BytesLike) -> bytes:
        return bytes(zstd.compress(data, level=effort))

    return compress_with_cramjam
