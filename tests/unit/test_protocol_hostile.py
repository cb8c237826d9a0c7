"""fastprod.protocol against bytes that no broker should send: a message or a complaint, never more."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_protocol import every_version, kio_class, kio_response, values_of

from fastprod import errors, protocol
from fastprod.protocol.api_versions import ApiVersionsResponse

pytestmark = pytest.mark.native_only

UNSUPPORTED_VERSION = 35


def is_refused(message: type[Any], version: int, payload: bytes) -> bool:
    """Whether the payload was refused; an exception other than KafkaProtocolError fails the test."""
    try:
        protocol.decode_response(message, version, payload)
    except errors.KafkaProtocolError:
        return True
    return False


@pytest.mark.parametrize(("message", "version"), every_version("Response"))
@settings(max_examples=10)
@given(data=st.data())
def test_cut_at_each_byte(message: type[Any], version: int, data: st.DataObject) -> None:
    response = data.draw(values_of(kio_class(message, version)))
    # 35 comes in the layout of version 0 (KIP-511), as which the beginning of a longer one is whole.
    assume(message is not ApiVersionsResponse or response.error_code != UNSUPPORTED_VERSION)
    payload = kio_response(response, 1)
    for length in range(len(payload)):
        assert is_refused(message, version, payload[:length]), length
    assert is_refused(message, version, payload + b"\x00")


@pytest.mark.parametrize(("message", "version"), every_version("Response"))
@settings(max_examples=50)
@given(data=st.data())
def test_changed_bytes(message: type[Any], version: int, data: st.DataObject) -> None:
    payload = bytearray(kio_response(data.draw(values_of(kio_class(message, version))), 1))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    is_refused(message, version, bytes(payload))


@pytest.mark.parametrize(("message", "version"), every_version("Response"))
@settings(max_examples=50)
@given(payload=st.binary(max_size=200))
def test_random_bytes(message: type[Any], version: int, payload: bytes) -> None:
    is_refused(message, version, payload)


BOMBS = [
    bytes(20_000),
    b"\x01" * 20_000,
    b"\x7f" * 20_000,
    b"\xff" * 20_000,
    b"\x00\x00\x00\x00\x00\x00" + b"\x7f\xff\xff\xff" * 5_000,
    bytes(8) + b"\xff\xff\xff\xff\x0f" * 4_000,
    bytes(10) + b"\x00\x00\x10\x00" * 5_000,
]


@pytest.mark.parametrize(("message", "version"), every_version("Response"))
@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_memory_is_in_proportion_to_the_input(message: type[Any], version: int, bomb: bytes) -> None:
    # The first use compiles the readers and builds the error class.
    is_refused(message, version, b"")
    tracemalloc.start()
    try:
        is_refused(message, version, bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The most a byte can become: a pointer in a list and in a tuple, and a share of an object.
    assert peak < 100 * len(bomb)
