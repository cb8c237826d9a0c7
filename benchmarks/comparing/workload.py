"""The records that every contender sends, in the same order: one page of them, again and again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from typing import NamedTuple

# Both are prime, so a value meets another key each time round, and there are many more keys than partitions.
_VALUES = 10_007
_KEYS = 9_973
_KEYS_ROUND = 10
# Not more than this in values: a page of large ones is short. It is longer than the window of any codec all the same.
_PAGE_BYTES = 16 << 20

Columns = tuple[list[bytes], list[bytes]]


class Share(NamedTuple):
    """What one thread sends: the first `size` records of the stream, over the topics in turn."""

    topics: tuple[str, ...]
    value_size: int
    size: int

    def records(self) -> Iterator[tuple[str, bytes, bytes]]:
        """(topic, value, key) each.

        They are made before and handed out by compiled iterators, so that a client's loop pays next to nothing for
        them.
        """
        values, keys = page(self.value_size)
        return islice(zip(cycle(self.topics), cycle(values), cycle(keys), strict=False), self.size)

    def columns(self) -> list[tuple[str, list[bytes], list[bytes]]]:
        """(topic, values, keys) each: whole pages, or each page cut into a piece a topic."""
        values, keys = page(self.value_size)
        step = -(-len(values) // len(self.topics))
        starts = range(0, len(values), step)
        pieces = [(values[start : start + step], keys[start : start + step]) for start in starts]
        found, left = [], self.size
        for topic, piece in zip(cycle(self.topics), cycle(pieces), strict=False):
            if left <= 0:
                break
            if left < len(piece[0]):
                piece = (piece[0][:left], piece[1][:left])
            found.append((topic, *piece))
            left -= len(piece[0])
        return found


@cache
def page(value_size: int) -> Columns:
    """The values and keys of the stream's first records; behind the last comes the first."""
    size = max(min(_KEYS * _KEYS_ROUND, _PAGE_BYTES // max(value_size, 1)), 1)
    keys = cycle(distinct_keys())
    return list(islice(cycle(distinct_values(value_size)), size)), list(islice(keys, size))


def key_size() -> int:
    """Bytes of each key."""
    return len(distinct_keys()[0])


@cache
def distinct_keys() -> list[bytes]:
    """Every key there is."""
    return [b"key-%06d" % number for number in range(_KEYS)]


@cache
def distinct_values(size: int) -> list[bytes]:
    """Values that compress about as application data does: a shape that repeats around content that does not."""
    chance = random.Random(1)
    count = max(min(_VALUES, _PAGE_BYTES // max(size, 1)), 1)
    return [_value(chance, size) for _ in range(count)]


def _value(chance: random.Random, size: int) -> bytes:
    pieces, length = [], 0
    while length < size:
        piece = b'{"order":%d,"customer":"c-%05d","amount":%d.%02d,"note":"%s"}' % (
            chance.randrange(10**9),
            chance.randrange(10**5),
            chance.randrange(1000),
            chance.randrange(100),
            chance.randbytes(12).hex().encode(),
        )
        pieces.append(piece)
        length += len(piece)
    return b"".join(pieces)[:size]
