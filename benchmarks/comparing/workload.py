"""The records that every contender sends, in the same order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, islice

# Both are prime, so a value meets another key each time round: a batch of one partition does not repeat a value where
# a codec would notice.
_VALUES = 10_007
_KEYS = 997
_POOL_BYTES = 64 << 20


def key_values(records: int, value_size: int) -> Iterator[tuple[bytes, bytes]]:
    """`records` pairs of a value of `value_size` bytes and a short key (7 bytes).

    They are made before and handed out by compiled iterators, so that a client's loop pays next to nothing for them.
    """
    return zip(islice(cycle(_values(value_size)), records), cycle(_keys()), strict=False)


def key_size() -> int:
    """Bytes of each key."""
    return len(_keys()[0])


def _keys() -> list[bytes]:
    return [b"key-%03d" % number for number in range(_KEYS)]


def _values(size: int) -> list[bytes]:
    """Values that compress about as application data does: a shape that repeats around content that does not."""
    chance = random.Random(1)
    count = max(min(_VALUES, _POOL_BYTES // max(size, 1)), 1)
    return [_value(chance, size) for _ in range(count)]


def _value(chance: random.Random, size: int) -> bytes:
    text = b""
    while len(text) < size:
        text += b'{"order":%d,"customer":"c-%05d","amount":%d.%02d,"note":"%s"}' % (
            chance.randrange(10**9),
            chance.randrange(10**5),
            chance.randrange(1000),
            chance.randrange(100),
            chance.randbytes(12).hex().encode(),
        )
    return text[:size]
