"""The records in a file or on standard input: lines, frames with a length in front, or JSON envelopes.

Every reader yields records one by one and holds one of them at a time; what is wrong with the input is an InputError
that names the place.
"""

from __future__ import annotations

import binascii
import json
import struct
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import Any, Final

FORMATS: Final = ("lines", "frames", "json")

# A character takes up to six in JSON (\u0000), and base64 takes four for three; names and quotes come on top.
_JSON_FACTOR: Final = 6
_JSON_SLACK: Final = 65536
_CHUNK: Final = 1 << 18
_FIELDS: Final = frozenset(
    {"key", "key_base64", "value", "value_base64", "headers", "partition", "timestamp_ms"},
)
_HEADER_FIELDS: Final = frozenset({"name", "value", "value_base64"})


Header = tuple[str, bytes | bytearray | memoryview | None]
# A plain tuple: making one of a class of its own would take as long as sending it.
Record = tuple[int, bytes | None, bytes | None, list[Header] | None, int | None, int | None]
"""(place, key, value, headers, partition, timestamp_ms); the place is the number of the line or frame, from 1."""


class InputError(Exception):
    """The input is not what it should be; `place` is the number of the line or frame."""

    def __init__(self, place: int, text: str) -> None:
        super().__init__(text)
        self.place = place


def reader(form: str, separator: bytes | None, limit: int) -> Callable[[BufferedIOBase], Iterator[Record]]:
    """Return the function that reads records in one of FORMATS.

    `separator`: what stands between key and value of a line, None for no keys. `limit`: the most bytes that a record
    can have, so that no line or frame takes more memory than that.
    """
    if form == "frames":
        return lambda stream: _frames(stream, limit)
    if form == "json":
        return lambda stream: _envelopes(stream, limit)
    return lambda stream: _keyed_lines(stream, separator, limit)


def _lines(stream: BufferedIOBase, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) without its end, LF or CR LF; the last line need not have one.

    `read1` returns what there is, so a line that somebody has just typed does not wait for the next one.
    """
    place = 0
    rest = b""
    while chunk := stream.read1(_CHUNK):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            place += 1
            if line[-1:] == b"\r":
                line = line[:-1]
            if len(line) > limit:
                raise _too_long(place, limit)
            yield place, line
        if len(rest) > limit + 1:
            raise _too_long(place + 1, limit)
    if rest:
        yield place + 1, rest


def _too_long(place: int, limit: int) -> InputError:
    return InputError(place, f"the line has more than {limit} bytes; -X max_request_size=... allows more")


def _keyed_lines(stream: BufferedIOBase, separator: bytes | None, limit: int) -> Iterator[Record]:
    if separator is None:
        for place, line in _lines(stream, limit):
            yield place, None, line, None, None, None
        return
    for place, line in _lines(stream, limit):
        key, found, value = line.partition(separator)
        if not found:
            raise InputError(place, f"the key separator {separator!r} is missing in {line!r:.80}")
        yield place, key, value, None, None, None


def _frames(stream: BufferedIOBase, limit: int) -> Iterator[Record]:
    place = 0
    while head := stream.read(4):
        place += 1
        if len(head) < 4:
            raise InputError(place, f"the input ends within the frame's length, after {len(head)} of 4 bytes")
        (size,) = struct.unpack(">I", head)
        if size > limit:
            raise InputError(place, f"the frame says {size} bytes, more than {limit}; is this really framed input?")
        value = stream.read(size)
        if len(value) < size:
            raise InputError(place, f"the input ends within the frame, after {len(value)} of {size} bytes")
        yield place, None, value, None, None, None


def _envelopes(stream: BufferedIOBase, limit: int) -> Iterator[Record]:
    for place, line in _lines(stream, _JSON_FACTOR * limit + _JSON_SLACK):
        if not line.strip():
            continue
        try:
            yield _envelope(place, json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(place, f"{error} in {line!r:.80}") from error


def _envelope(place: int, envelope: Any) -> Record:
    """ValueError for anything that is no envelope."""
    if not isinstance(envelope, dict):
        raise ValueError("not a JSON object")
    _known(envelope, _FIELDS)
    key, value = _bytes(envelope, "key"), _bytes(envelope, "value")
    if key is None and value is None:
        raise ValueError("neither a key nor a value")
    partition, timestamp_ms = _int(envelope, "partition"), _int(envelope, "timestamp_ms")
    return place, key, value, _headers(envelope.get("headers")), partition, timestamp_ms


def _headers(headers: Any) -> list[Header] | None:
    """An object of names and texts, or a list of objects with `name` and `value` or `value_base64`."""
    if headers is None:
        return None
    if isinstance(headers, dict):
        headers = [{"name": name, "value": value} for name, value in headers.items()]
    if not isinstance(headers, list) or not all(isinstance(header, dict) for header in headers):
        raise ValueError("headers must be an object, or a list of objects with name and value")
    found: list[Header] = []
    for header in headers:
        _known(header, _HEADER_FIELDS)
        name, value = header.get("name"), _bytes(header, "value")
        if not isinstance(name, str) or value is None:
            raise ValueError("a header needs a name and a value, both strings")
        found.append((_encodable(name), value))
    return found


def _bytes(fields: dict[str, Any], name: str) -> bytes | None:
    """Return a field's bytes: text as UTF-8, or what its `_base64` variant holds."""
    plain, encoded = fields.get(name), fields.get(f"{name}_base64")
    if plain is not None and encoded is not None:
        raise ValueError(f"both {name} and {name}_base64")
    for text in (plain, encoded):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{name} must be a string or null, not {text!r:.40}")
    if encoded is not None:
        try:
            return binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError as error:
            raise ValueError(f"{name}_base64 is not base64 ({error})") from error
    return None if plain is None else _encodable(plain).encode()


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair in {text!r:.40}") from error
    return text


def _int(fields: dict[str, Any], name: str) -> int | None:
    number = fields.get(name)
    if number is None or type(number) is int:
        return number
    raise ValueError(f"{name} must be an integer or null, not {number!r:.40}")


def _known(fields: dict[str, Any], names: frozenset[str]) -> None:
    unknown = sorted(fields.keys() - names)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r:.40} (there are {', '.join(sorted(names))})")
