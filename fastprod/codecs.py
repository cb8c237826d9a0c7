"""The codecs of record batches: numbers, levels and the packages that do them.

| Codec | Package | Levels of `compression_level` (None: the codec's default) |
|---|---|---|
| gzip | zlib (standard library) | -1 or 1..9; -1 is zlib's default, 6 |
| snappy | cramjam | has none |
| lz4 | lz4, else cramjam | 1..17; 1 and 2 fast, 3..12 high compression, 13..17 act as 12 |
| zstd | zstandard, else cramjam | -131072..22; 3 |

The lz4 levels are liblz4's, with the range that the Java client accepts. They mean the same with
one exception: an explicit 9 is liblz4's 9 here, while Java runs its fast compressor for it
because 9 is its default. Our default is the fast compressor, too: leave the level at None.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastprod.refusal import bad_value, did_you_mean, refusal

BytesLike = bytes | bytearray | memoryview
Compress = Callable[[BytesLike], bytes]

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4


class Codec(NamedTuple):
    """A codec: `number` in a batch's attributes, levels (`low` to `high`; None: it has none),
    levels inside the range that are not possible, and what its library is given for None."""

    name: str
    number: int
    default: int = 0
    low: int | None = None
    high: int | None = None
    excluded: tuple[int, ...] = ()

    @property
    def levels(self) -> str:
        """The possible levels in words."""
        if self.low is None:
            return "None: this codec has no levels"
        without = f", not {self.excluded[0]}" if self.excluded else ""
        return f"None or an int from {self.low} to {self.high}{without}"


CODECS: Final = {
    codec.name: codec
    for codec in (
        Codec("gzip", GZIP, -1, -1, 9, (0,)),
        Codec("snappy", SNAPPY),
        Codec("lz4", LZ4, 0, 1, 17),
        Codec("zstd", ZSTD, 3, -131072, 22),
    )
}


def codec_number(name: str | None) -> int:
    """Return the number of a codec in a batch's attributes; None and 0 stand for no compression.

    Raises KafkaConfigurationError (a ValueError too) for a name that is no codec.
    """
    return NONE if name is None else _codec(name).number


def check_level(name: str | None, level: object) -> int | None:
    """Return `level` if the codec has it; raise KafkaConfigurationError (a ValueError too) if not,
    and for a name that is no codec."""
    if level is None:
        codec_number(name)
        return None
    if name is None:
        raise refusal(
            f"compression_level={level!r:.120} has no effect without compression_type. "
            f"Set compression_type to one of {', '.join(CODECS)}, or leave the level out."
        )
    codec = _codec(name)
    is_int = isinstance(level, int) and not isinstance(level, bool)
    if not is_int or codec.low is None or codec.high is None:
        raise bad_value("compression_level", level, f"{codec.levels} ({name})")
    assert isinstance(level, int)
    if not codec.low <= level <= codec.high or level in codec.excluded:
        raise bad_value("compression_level", level, f"{codec.levels} ({name})")
    return level


def library_level(name: str | None, level: int | None) -> int:
    """Return what the codec's library is given for a checked level."""
    return level if level is not None else 0 if name is None else _codec(name).default


def import_package(codec: str, *names: str) -> Any:
    """Return the first of these modules that can be imported; RuntimeError if none can."""
    for name in names:
        module = try_import(name)
        if module is not None:
            return module
    package = names[0].partition(".")[0]
    raise RuntimeError(
        f"compression_type={codec!r} needs the package {package}: pip install {package}"
    )


def try_import(name: str | None) -> Any | None:
    """Return the module of that name, None where it cannot be imported or `name` is None."""
    if name is None:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _codec(name: object) -> Codec:
    codec = CODECS.get(name) if isinstance(name, str) else None
    if codec is None:
        raise bad_value(
            "compression_type",
            name,
            f"None or one of {', '.join(map(repr, CODECS))}",
            "For no compression leave it at None."
            if name in ("none", "None", "")
            else did_you_mean(str(name).lower(), CODECS),
        )
    return codec
