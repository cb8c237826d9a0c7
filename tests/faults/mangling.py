"""What can be broken in a frame: each way on its own, from the good frame that it was."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import NamedTuple


class Mangler(NamedTuple):
    """`mangle`: a whole frame, size field included -> what is sent instead. `words`: one of what may be said."""

    name: str
    mangle: Callable[[bytes], bytes]
    words: tuple[str, ...] = ()


def framed(payload: bytes) -> bytes:
    """Put the right size in front."""
    return struct.pack(">i", len(payload)) + payload


def cut(frame: bytes, length: int) -> bytes:
    """A payload of `length` bytes, rightly framed."""
    return framed(frame[4 : 4 + length])


def noise(frame: bytes) -> bytes:
    """Random bytes behind the right size and correlation id."""
    return frame[:8] + random.Random(len(frame)).randbytes(len(frame) - 8)


def sized(size: int) -> Callable[[bytes], bytes]:
    return lambda frame: struct.pack(">i", size) + frame[4:]


SIZE = ("size field says", "a frame of")

MANGLERS = [
    Mangler("cut in the middle", lambda frame: cut(frame, len(frame) // 2)),
    Mangler("cut by a byte", lambda frame: cut(frame, len(frame) - 5)),
    Mangler("correlation id alone", lambda frame: cut(frame, 4)),
    Mangler("bytes too many", lambda frame: framed(frame[4:] + b"abc")),
    Mangler("another correlation id", lambda frame: frame[:4] + b"\x07\x07\x07\x07" + frame[8:]),
    Mangler("size negative", sized(-1), SIZE),
    Mangler("size 0", sized(0), SIZE),
    Mangler("size 3", sized(3), SIZE),
    Mangler("size 2 GB", sized(2**31 - 1), SIZE),
    Mangler("lengths of -1", lambda frame: frame[:8] + b"\xff" * (len(frame) - 8)),
    Mangler("lengths without end", lambda frame: frame[:8] + b"\x7f" * (len(frame) - 8)),
    Mangler("noise", noise),
]
# Only where nothing follows on the connection: the next answer would be taken for the rest.
HALF = Mangler("half of it, then silence", lambda frame: frame[: len(frame) // 2], ("did not answer",))
