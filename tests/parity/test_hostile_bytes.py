"""Bytes from a broker that were damaged: both twins say ValueError, or both read the same; neither does anything else.

The responses are written by kio from Kafka's own definitions, then damaged as lines and liars do: a flipped bit, a
piece missing or put in, a length that says too much, nothing or less than nothing.
"""

from __future__ import annotations

import datetime
import importlib
import io
import struct
import uuid
from collections.abc import Callable
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastprod._pure as pure

ErrorCode = pytest.importorskip("kio.schema.errors").ErrorCode
entity_writer = pytest.importorskip("kio.serial").entity_writer
pytestmark = pytest.mark.native_only

VERSIONS = range(3, 14)
# Lengths as nobody sends them, in the three ways that the protocol writes them.
LIES = [
    *(struct.pack(">i", number) for number in (-(2**31), -2, -1, 0, 1, 2**16, 2**31 - 1)),
    *(struct.pack(">h", number) for number in (-(2**15), -2, -1, 0, 1, 2**15 - 1)),
    b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x1f", b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x00",
    b"\x80\x00", b"\x00", b"\x01", b"\x7f",
]


def outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """The value, or that it was refused; any other exception comes out."""
    try:
        return "value", function(*arguments)
    except ValueError:
        return "refused", None


def same(name: str, *arguments: Any) -> tuple[str, Any]:
    mine = outcome(getattr(native, name), *arguments)
    assert mine == outcome(getattr(pure, name), *arguments)
    return mine


def entity(version: int, kind: str, /, **values: Any) -> Any:
    """A kio entity of this version, without the fields it does not have."""
    schema = importlib.import_module(f"kio.schema.produce.v{version}.response")
    cls = getattr(schema, kind)
    return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})


def written(thing: Any) -> bytes:
    with io.BytesIO() as buffer:
        entity_writer(type(thing))(buffer, thing)
        return buffer.getvalue()


TEXTS = st.one_of(st.none(), st.text(max_size=8))
NUMBERS = st.integers(-(2**31), 2**31 - 1)
OFFSETS = st.one_of(st.just(-1), st.integers(-(2**63), 2**63 - 1))


@st.composite
def responses(draw: st.DrawFn) -> tuple[int, bytes]:
    """A version and a whole, valid response of it."""
    version = draw(st.sampled_from(VERSIONS))
    topics = []
    for number in range(draw(st.integers(0, 3))):
        partitions = tuple(_partition(draw, version) for _ in range(draw(st.integers(0, 3))))
        topics.append(
            entity(
                version, "TopicProduceResponse", name=f"topic-{number}", topic_id=uuid.UUID(int=number + 1),
                partition_responses=partitions,
            )
        )
    endpoints = {}
    if version >= 10:
        endpoints["node_endpoints"] = tuple(
            entity(
                version, "NodeEndpoint", node_id=draw(st.integers(0, 3)), host=draw(st.text(max_size=8)),
                port=draw(NUMBERS), rack=draw(TEXTS),
            )
            for _ in range(draw(st.integers(0, 2)))
        )
    body = entity(
        version, "ProduceResponse", responses=tuple(topics),
        throttle_time=datetime.timedelta(milliseconds=draw(st.integers(0, 2**31 - 1))), **endpoints,
    )
    header = type(body).__header_schema__(correlation_id=draw(NUMBERS))
    return version, written(header) + written(body)


def _partition(draw: st.DrawFn, version: int) -> Any:
    values: dict[str, Any] = {
        "index": draw(NUMBERS), "error_code": draw(st.sampled_from([ErrorCode.none, ErrorCode.corrupt_message])),
        "base_offset": draw(OFFSETS), "log_append_time": None, "log_start_offset": draw(OFFSETS),
    }
    if version >= 8:
        values["error_message"] = draw(TEXTS)
        values["record_errors"] = tuple(
            entity(
                version, "BatchIndexAndErrorMessage", batch_index=draw(NUMBERS), batch_index_error_message=draw(TEXTS)
            )
            for _ in range(draw(st.integers(0, 2)))
        )
    if version >= 10 and draw(st.booleans()):
        values["current_leader"] = entity(
            version, "LeaderIdAndEpoch", leader_id=draw(st.integers(0, 3)), leader_epoch=draw(NUMBERS)
        )
    return entity(version, "PartitionProduceResponse", **values)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes, with one to three things done to them."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "cut", "drop", "insert", "lie", "append"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "append":
            data += draw(st.binary(min_size=1, max_size=8))
        else:
            lie = draw(st.sampled_from(LIES))
            data[at : at + len(lie)] = lie
    return bytes(data)


@settings(max_examples=200, deadline=None)
@given(responses())
def test_whole_responses_are_read(response: tuple[int, bytes]) -> None:
    version, payload = response
    assert same("decode_produce_response", version, payload)[0] == "value"


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_damaged_responses(data: st.DataObject) -> None:
    version, payload = data.draw(responses())
    same("decode_produce_response", version, data.draw(damaged(payload)))


@settings(max_examples=100, deadline=None)
@given(responses())
def test_cut_or_long_responses_are_refused(response: tuple[int, bytes]) -> None:
    version, payload = response
    for size in range(len(payload)):
        assert same("decode_produce_response", version, payload[:size]) == ("refused", None)
    assert same("decode_produce_response", version, payload + b"\0") == ("refused", None)


@settings(max_examples=300, deadline=None)
@given(responses(), st.integers(3, 13))
def test_responses_of_another_version(response: tuple[int, bytes], version: int) -> None:
    same("decode_produce_response", version, response[1])


HEADERS = st.lists(st.tuples(st.text(max_size=5), st.one_of(st.none(), st.binary(max_size=5))), max_size=3)
RECORDS = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=9), st.binary(max_size=9), HEADERS), min_size=1,
    max_size=6,
)


@settings(max_examples=1000, deadline=None)
@given(st.data(), RECORDS, st.integers(-(2**63), 2**63 - 1))
def test_damaged_records(data: st.DataObject, records: list[Any], base: int) -> None:
    builder = native.RecordBatchBuilder()
    for each in records:
        builder.append(*each)
    body = data.draw(damaged(builder.build()[61:]))
    same("decode_records", body, base, len(records))


@settings(max_examples=500, deadline=None)
@given(st.data(), st.integers(0, 2**64 - 1))
def test_damaged_numbers(data: st.DataObject, number: int) -> None:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    body = data.draw(damaged(bytes(encoded)))
    for name in ("decode_varint", "decode_varlong", "decode_uvarint"):
        same(name, body, 0)
        same(name, bytes(encoded), 0)
