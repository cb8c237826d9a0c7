"""Cuts what a connection receives into response frames, and recognizes what is not Kafka."""

from __future__ import annotations

import struct
from typing import Final

from fastprod import errors

_SIZE: Final = struct.Struct(">i")
_SMALLEST: Final = 4  # the correlation id

# What servers that are no Kafka brokers say first, or say to a request they cannot read.
_STRANGERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"HTTP/", "that is an HTTP server"),
    (b"<htm", "that is an HTTP server"),
    (b"<!DO", "that is an HTTP server"),
    (
        b"\x15\x03",
        "that is a TLS server; TLS is not supported yet, so name a listener with security protocol PLAINTEXT",
    ),
    (
        b"\x16\x03",
        "that is a TLS server; TLS is not supported yet, so name a listener with security protocol PLAINTEXT",
    ),
    (b"SSH-", "that is an SSH server"),
    (b"220 ", "that is a mail or FTP server"),
    (b"-ERR", "that is a Redis or a POP3 server"),
    (b"+OK", "that is a Redis or a POP3 server"),
    (b"+PON", "that is a Redis server"),
)


class FrameReader:
    """Collects bytes and hands out whole frames without their 4-byte size."""

    def __init__(self, limit: int) -> None:
        """`limit`: the largest response in bytes (receive_message_max_bytes)."""
        self._limit = limit
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Bytes that do not make a whole frame yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what was received, in pieces of any size."""
        self._buffer += data

    def next(self) -> bytes | None:
        """Return the next whole frame, None if there is none yet.

        Raises InvalidReceiveError for a size that no response has: negative, too short for its
        correlation id or above the limit.
        """
        if len(self._buffer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._buffer)
        if not _SMALLEST <= size <= self._limit:
            raise errors.InvalidReceiveError(self._explain(size))
        end = _SIZE.size + size
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_SIZE.size : end])
        del self._buffer[:end]
        return frame

    def _explain(self, size: int) -> str:
        start = bytes(self._buffer[:24])
        guess = stranger(start)
        if guess is not None:
            return f"expected a Kafka response but got {start!r}: {guess}"
        if 0 <= size < _SMALLEST:
            return f"expected a Kafka response but got a frame of {size} bytes ({start!r})"
        return (
            f"expected a Kafka response of 4 to {self._limit} bytes (receive_message_max_bytes) "
            f"but its size field says {size} (it begins with {start!r}); is that a Kafka "
            "listener, and without TLS?"
        )


def stranger(start: bytes) -> str | None:
    """Say in words what kind of server begins its answer like this, None if it may be Kafka."""
    for prefix, words in _STRANGERS:
        if start.startswith(prefix):
            return words
    return None
