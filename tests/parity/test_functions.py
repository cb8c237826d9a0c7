"""The twins agree on bytes, values and errors of everything that is a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastprod._pure as pure

pytestmark = pytest.mark.native_only

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
BLOB = st.binary(max_size=300)
BYTES_LIKE = st.one_of(BLOB, BLOB.map(bytearray), BLOB.map(memoryview))
MAYBE = st.one_of(st.none(), BYTES_LIKE)
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.one_of(st.none(), BLOB)), max_size=4)
RECORDS = st.lists(st.tuples(INT64, MAYBE, MAYBE, HEADERS), min_size=1, max_size=12)


def outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """The value, or the exception's type: messages may differ where they quote the twin's own position."""
    try:
        return "value", function(*arguments)
    except Exception as error:
        return "error", type(error)


def same(name: str, *arguments: Any) -> None:
    assert outcome(getattr(native, name), *arguments) == outcome(getattr(pure, name), *arguments)


def test_names_are_the_same() -> None:
    assert sorted(native.__all__) == sorted(pure.__all__)


@pytest.mark.parametrize("name", [n for n in pure.__all__ if n.isupper()])
def test_constants_are_the_same(name: str) -> None:
    assert getattr(native, name) == getattr(pure, name)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    # A method of C takes `self` by position alone, and who calls a method never gives it.
    return [
        (p.name, p.kind if p.name != "self" else None, p.default)
        for p in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("name", [n for n in pure.__all__ if n.islower()])
def test_signatures_of_functions_are_the_same(name: str) -> None:
    if name == "live_objects":
        return
    assert parameters(getattr(native, name)) == parameters(getattr(pure, name))


@pytest.mark.parametrize("name", [n for n in pure.__all__ if n[0].isupper() and not n.isupper()])
def test_public_members_and_their_signatures_are_the_same(name: str) -> None:
    def methods(cls: type) -> dict[str, Any]:
        return {n: getattr(cls, n) for n in dir(cls) if not n.startswith("_") and inspect.isroutine(getattr(cls, n))}

    ours, theirs = methods(getattr(native, name)), methods(getattr(pure, name))
    assert set(ours) <= set(theirs), "every method of the seam is on both; the Python twin also has inner ones"
    for member in ours:
        method = theirs[member]
        assert parameters(ours[member]) == parameters(method), member
        assert inspect.getdoc(ours[member]), f"{name}.{member} has no docstring"


@given(st.integers(-(2**33), 2**33))
def test_varint(value: int) -> None:
    same("encode_varint", value)
    same("encode_uvarint", value)


@given(st.integers(-(2**65), 2**65))
def test_varlong(value: int) -> None:
    same("encode_varlong", value)


@given(st.binary(max_size=12), st.integers(-2, 13))
def test_decoding_numbers(data: bytes, position: int) -> None:
    for name in ("decode_varint", "decode_varlong", "decode_uvarint"):
        same(name, data, position)


@given(BYTES_LIKE, st.integers(-1, 2000))
def test_murmur2(data: Any, partitions: int) -> None:
    same("murmur2", data)
    same("partition_for_key", data, partitions)


@given(st.binary(max_size=2000), st.integers(0, 2**32 - 1), st.integers(0, 2000))
def test_crc32c(data: bytes, value: int, cut: int) -> None:
    same("crc32c", data, value)
    first, second = data[:cut], data[cut:]
    same("crc32c_combine", native.crc32c(first), native.crc32c(second), len(second))
    assert native.crc32c_combine(native.crc32c(first), native.crc32c(second), len(second)) == pure.crc32c(data)


def built(twin: Any, records: list[Any], limit: int, *build: Any) -> Any:
    builder = twin.RecordBatchBuilder(limit)
    steps = [builder.append(*record) for record in records]
    return steps, builder.count, builder.size, builder.build(*build)


@settings(max_examples=200)
@given(RECORDS, st.integers(61, 4000), INT64, st.integers(-(2**15), 2**15 - 1), INT32)
def test_batches(records: list[Any], limit: int, producer_id: int, epoch: int, sequence: int) -> None:
    build = (0, None, producer_id, epoch, sequence)
    mine = built(native, records, limit, *build)
    assert mine == built(pure, records, limit, *build)
    batch, count = mine[3], mine[1]
    assert outcome(native.decode_records, batch[61:], records[0][0], count) == outcome(
        pure.decode_records, batch[61:], records[0][0], count
    )
    decoded = native.decode_records(batch[61:], records[0][0], count)
    kept = [record for record, step in zip(records, mine[0], strict=True) if step is not None]
    plain = [
        (t, None if k is None else bytes(k), None if v is None else bytes(v), h) for t, k, v, h in kept
    ]
    assert decoded == plain


@given(RECORDS, st.binary(max_size=10))
def test_compressed_batches(records: list[Any], squeezed: bytes) -> None:
    build = (3, lambda _: squeezed)
    assert built(native, records, 10**6, *build) == built(pure, records, 10**6, *build)


@given(st.binary(max_size=200), INT64, st.integers(0, 5))
def test_decoding_broken_records(data: bytes, base: int, count: int) -> None:
    same("decode_records", data, base, count)


@given(RECORDS, st.integers(0, 400), st.integers(0, 255))
def test_decoding_damaged_records(records: list[Any], at: int, byte: int) -> None:
    _, count, _, batch = built(native, records, 10**6)
    body = bytearray(batch[61:])
    body[at % len(body)] = byte
    same("decode_records", bytes(body), records[0][0], count)


TOPIC = st.tuples(
    st.text(min_size=1, max_size=20),
    st.binary(min_size=16, max_size=16),
    st.lists(st.tuples(st.integers(0, 2**31 - 1), st.binary(min_size=61, max_size=200)), min_size=1, max_size=4),
)


@given(
    st.integers(2, 14), st.integers(0, 2**31 - 1), st.text(max_size=30), st.sampled_from([0, 1, -1]),
    st.integers(0, 2**31 - 1), st.lists(TOPIC, max_size=4, unique_by=lambda topic: topic[0]),
)
def test_requests(version: int, correlation: int, client: str, acks: int, timeout: int, topics: list[Any]) -> None:
    same("encode_produce_request", version, correlation, client, acks, timeout, topics)


@given(st.integers(2, 14), st.binary(max_size=300))
def test_responses_from_noise(version: int, payload: bytes) -> None:
    same("decode_produce_response", version, payload)
