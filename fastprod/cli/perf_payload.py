"""What `fastprod perf` sends: made-up records that are the same in every run, or the lines of a file."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate, cycle, repeat
from pathlib import Path

from fastprod.cli.failure import CommandError
from fastprod.cli.records import InputError, reader

_USAGE = 2
# Enough different values that compression does not find the same one again in its window, and never much memory.
_MOST_VALUES = 10_000
_MOST_BYTES = 16 << 20
_CAPITALS = bytes(range(ord("A"), ord("Z") + 1))
_LETTERS = bytes(_CAPITALS[byte % len(_CAPITALS)] for byte in range(256))


class Payload:
    """Values and keys, each begun anew when it is through; keys are all of one size, or there are none."""

    def __init__(self, values: Sequence[bytes], keys: Sequence[bytes]) -> None:
        self._values = values
        self._keys = keys
        self._key_size = len(keys[0]) if keys else 0
        self._sums = [0, *accumulate(map(len, values))]

    def pairs(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield (value, key) without end."""
        return zip(cycle(self._values), cycle(self._keys) if self._keys else repeat(None))

    def size(self, first: int, count: int) -> int:
        """Return the bytes of keys and values in `count` records from the one with that number (from 0)."""
        return self._bytes_before(first + count) - self._bytes_before(first) + count * self._key_size

    def _bytes_before(self, number: int) -> int:
        rounds, rest = divmod(number, len(self._values))
        return rounds * self._sums[-1] + self._sums[rest]


def made_up(size: int) -> list[bytes]:
    """Return different values of that many bytes, random capital letters as Kafka's own tool sends them."""
    count = max(1, min(_MOST_VALUES, _MOST_BYTES // max(size, 1)))
    source = random.Random(0)
    return [source.randbytes(size).translate(_LETTERS) for _ in range(count)]


def lines_of(path: Path, limit: int) -> list[bytes]:
    """Return the lines of a file. CommandError where it has none, cannot be read or has one above `limit` bytes."""
    try:
        with path.open("rb") as stream:
            lines = [value or b"" for _, _, value, *_ in reader("lines", None, limit)(stream)]
    except OSError as error:
        raise CommandError(f"--payload-file {path}: it cannot be read ({error.strerror})", _USAGE) from error
    except InputError as error:
        raise CommandError(f"--payload-file {path}, line {error.place}: {error}", _USAGE) from error
    if not lines:
        raise CommandError(f"--payload-file {path}: it has no line", _USAGE)
    return lines


def numbered(count: int, size: int) -> list[bytes]:
    """Return `count` different keys of `size` bytes. CommandError where that many do not fit."""
    if len(str(count - 1)) > size:
        raise CommandError(f"--keys {count}: so many different keys do not fit into --key-size {size}", _USAGE)
    return [b"%0*d" % (size, number) for number in range(count)]
