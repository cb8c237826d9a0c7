"""What `fastprod produce` takes for a record: lines, frames, JSON envelopes."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest

from fastprod.cli.records import InputError, Record, reader

LIMIT = 100


def records(form: str, data: bytes, separator: bytes | None = None, limit: int = LIMIT) -> list[Record]:
    return list(reader(form, separator, limit)(io.BufferedReader(io.BytesIO(data))))


def frame(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\r\r\nb\rc\n", [b"a\r", b"b\rc"]),
        (b"a\r", [b"a\r"]),
        (b"\n\r\n\na\n", [b"", b"", b"", b"a"]),
        (b"\x00\xff\n" + b"x" * LIMIT + b"\r\n", [b"\x00\xff", b"x" * LIMIT]),
    ],
)
def test_lines(data: bytes, expected: list[bytes]) -> None:
    found = records("lines", data)
    assert [each[2] for each in found] == expected
    assert [each[0] for each in found] == list(range(1, len(expected) + 1))
    assert {each[1] for each in found} <= {None}


def test_lines_longer_than_what_is_read_at_once() -> None:
    lines = [bytes([65 + number % 26]) * (700_000 + number) for number in range(5)]
    assert [each[2] for each in records("lines", b"\n".join(lines), limit=1_000_000)] == lines


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_above_the_limit_is_refused(end: bytes) -> None:
    assert len(records("lines", b"a\n" + b"x" * LIMIT + end)) == 2
    with pytest.raises(InputError, match=f"more than {LIMIT} bytes") as raised:
        records("lines", b"a\n" + b"x" * (LIMIT + 2) + end)
    assert raised.value.place == 2


def test_a_line_without_end_takes_no_more_memory_than_the_limit() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            # What lies in a new buffer is whatever memory was used for before, line ends perhaps.
            buffer[:] = bytes(len(buffer))
            self.given += len(buffer)
            assert self.given < 10_000_000
            return len(buffer)

    endless = Endless()
    with pytest.raises(InputError, match="more than"):
        list(reader("lines", None, 1_000_000)(io.BufferedReader(endless)))
    assert endless.given < 2_000_000


def test_keys_before_lines() -> None:
    found = records("lines", b"a:1\n:2\nb:\nc:3:4\n", b":")
    assert [each[1:3] for each in found] == [(b"a", b"1"), (b"", b"2"), (b"b", b""), (b"c", b"3:4")]
    with pytest.raises(InputError, match="separator") as raised:
        records("lines", b"a:1\n2\n", b":")
    assert raised.value.place == 2


def test_frames() -> None:
    data = b"".join(map(frame, (b"a\n", b"", b"\x00" * LIMIT)))
    assert [each[2] for each in records("frames", data)] == [b"a\n", b"", b"\x00" * LIMIT]


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x02a", b"\x00\x00\x00\x65", b"\xff" * 8])
def test_broken_frames_are_refused(tail: bytes) -> None:
    with pytest.raises(InputError) as raised:
        records("frames", frame(b"a") + tail)
    assert raised.value.place == 2


@pytest.mark.parametrize(
    ("envelope", "expected"),
    [
        ({"value": "a"}, (None, b"a", None, None, None)),
        ({"key": "k", "value": None}, (b"k", None, None, None, None)),
        ({"key": "", "value": ""}, (b"", b"", None, None, None)),
        ({"value": "\u00e9\n"}, (None, b"\xc3\xa9\n", None, None, None)),
        ({"key_base64": "AP8=", "value_base64": ""}, (b"\x00\xff", b"", None, None, None)),
        ({"key": None, "key_base64": "AA==", "value": "a"}, (b"\x00", b"a", None, None, None)),
        ({"value": "a", "partition": 3, "timestamp_ms": -1}, (None, b"a", None, 3, -1)),
        ({"value": "a", "headers": {"x": "1", "y": ""}}, (None, b"a", [("x", b"1"), ("y", b"")], None, None)),
        (
            {"value": "a", "headers": [{"name": "x", "value": "1"}, {"name": "x", "value_base64": "AA=="}]},
            (None, b"a", [("x", b"1"), ("x", b"\x00")], None, None),
        ),
        ({"value": "a", "headers": []}, (None, b"a", [], None, None)),
    ],
)
def test_json_envelopes(envelope: dict[str, Any], expected: tuple[object, ...]) -> None:
    assert records("json", b"\n  \n" + json.dumps(envelope).encode()) == [(3, *expected)]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"{", "Expecting"),
        (b"[1]", "not a JSON object"),
        (b"{}", "neither a key nor a value"),
        (b'{"value": null}', "neither a key nor a value"),
        (b'{"value": 1}', "value must be a string"),
        (b'{"value": {"a": 1}}', "value must be a string"),
        (b'{"value": "a", "valeu": 1}', "valeu"),
        (b'{"value": "a", "value_base64": "AA=="}', "both value and value_base64"),
        (b'{"value_base64": "A"}', "value_base64 is not base64"),
        (b'{"value_base64": "\\u00e9"}', "value_base64 is not base64"),
        (b'{"key": "\\ud800"}', "surrogate"),
        (b'{"value": "\xff"}', "utf-8"),
        (b'{"value": "a", "partition": "1"}', "partition must be an integer"),
        (b'{"value": "a", "partition": true}', "partition must be an integer"),
        (b'{"value": "a", "timestamp_ms": 1.5}', "timestamp_ms must be an integer"),
        (b'{"value": "a", "headers": "x"}', "headers must be"),
        (b'{"value": "a", "headers": [["x", "1"]]}', "headers must be"),
        (b'{"value": "a", "headers": {"x": null}}', "a header needs"),
        (b'{"value": "a", "headers": [{"value": "1"}]}', "a header needs"),
        (b'{"value": "a", "headers": [{"name": "x", "val": "1"}]}', "val"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_envelope_is_refused(line: bytes, named: str) -> None:
    with pytest.raises(InputError, match=named) as raised:
        records("json", b'{"value": "a"}\n' + line, limit=1_000_000)
    assert raised.value.place == 2
