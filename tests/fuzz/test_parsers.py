"""Both parsers of Produce responses, and those of the control plane, on what brokers really answered, and on all that
can become of it: cut, with lengths that are lies, and changed by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastprod._pure as pure
from fastprod import errors, protocol
from fastprod._pure import encode_uvarint
from fastprod.control.frames import FrameReader

from .corpus import API_VERSIONS, CALLS, IDS, MESSAGES, PRODUCE, Recorded, cut, lied, recorded

# Both twins are looked at side by side.
pytestmark = pytest.mark.native_only

ALL = pytest.mark.parametrize("response", recorded(PRODUCE), ids=lambda each: each.id)
CONTROL = pytest.mark.parametrize("response", recorded(*MESSAGES), ids=lambda each: each.id)
# Every field is there in these.
RICH = [each for each in recorded(PRODUCE) if each.release == "4.3.1" and each.name in ("keyless", "led-elsewhere")]
# Of each kind the oldest and the newest.
OLDEST = {(each.api, each.name): each for each in reversed(recorded(*MESSAGES))}
NEWEST = {(each.api, each.name): each for each in recorded(*MESSAGES)}


def outcome(function: Callable[..., Any], *arguments: Any) -> Any:
    """The value, or None if it was refused; any other exception comes out."""
    try:
        return function(*arguments)
    except (ValueError, errors.KafkaProtocolError):
        return None


def both(version: int, payload: bytes) -> Any:
    """What both twins say."""
    said = outcome(native.decode_produce_response, version, payload)
    assert said == outcome(pure.decode_produce_response, version, payload)
    return said


def control(response: Recorded, payload: bytes) -> Any:
    """What the control plane makes of bytes in place of a response; None if it refuses them."""
    call = CALLS.get(response.api)
    read = outcome(protocol.decode_response, MESSAGES[response.api], response.version, payload)
    if call is not None and read is not None:
        outcome(call.read, response.version, payload)
    return read


@ALL
def test_produce_whole_and_cut(response: Recorded) -> None:
    _, throttle_ms, answers = both(response.version, response.payload)
    assert throttle_ms == 0
    assert {answer[0] or answer[1] for answer in answers} <= {*IDS, *IDS.values()}
    assert not any(both(response.version, part) for part in cut(response.payload))
    assert both(response.version, response.payload + b"\x00") is None


@pytest.mark.parametrize("response", RICH, ids=lambda each: each.id)
def test_produce_with_lies(response: Recorded) -> None:
    read = [both(response.version, payload) for payload in lied(response.payload)]
    # Most lie about a number, which may be any; but a wrong length is never believed.
    assert None in read


def with_hints(hints: int, addresses: int) -> bytes:
    """A response of version 10 with so many answers that name leader 7, and so many addresses of leaders."""
    answer = bytes(4 + 2 + 8 + 8 + 8) + b"\x01\x00" + b"\x01\x00\x08" + b"\x00\x00\x00\x07" + bytes(4)
    places = encode_uvarint(addresses + 1) + b"".join(
        number.to_bytes(4, "big") + b"\x01" + bytes(4) + b"\x00\x00" for number in range(addresses)
    )
    topic = b"\x02" + b"\x02t" + encode_uvarint(hints + 1) + answer * hints + b"\x00"
    return bytes(4 + 1) + topic + bytes(4) + b"\x01\x00" + encode_uvarint(len(places)) + places


def test_hints_with_addresses() -> None:
    said = both(10, with_hints(3, 9))
    assert [answer[-1] for answer in said[2]] == [(7, 0, "", 0)] * 3
    assert both(10, with_hints(1, 7))[2][0][-1] == (7, 0, None, -1)


@pytest.mark.timeout(150)
def test_many_hints_with_many_addresses() -> None:
    """Thirty megabytes are read in a moment: not all addresses are looked through for each answer."""
    said = native.decode_produce_response(10, with_hints(200_000, 2_000_000))
    assert len(said[2]) == 200_000
    assert said[2][-1][-1] == (7, 0, "", 0)


@settings(max_examples=1000)
@given(st.sampled_from(recorded(PRODUCE)), st.integers(3, 13), st.booleans(), st.data())
def test_produce_changed(response: Recorded, version: int, other: bool, data: st.DataObject) -> None:
    both(version if other else response.version, changed(response.payload, data))


def changed(payload: bytes, data: st.DataObject) -> bytes:
    """It, with up to three places overwritten, left out or put in."""
    out = bytearray(payload)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(out)))
        out[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    return bytes(out)


@CONTROL
def test_control_whole_and_cut(response: Recorded) -> None:
    assert control(response, response.payload) is not None
    assert not any(control(response, part) for part in cut(response.payload))
    assert control(response, response.payload + b"\x00") is None


@pytest.mark.parametrize("response", [*OLDEST.values(), *NEWEST.values()], ids=lambda each: each.id)
def test_control_with_lies(response: Recorded) -> None:
    assert None in [control(response, payload) for payload in lied(response.payload)]


@settings(max_examples=1000)
@given(st.sampled_from(recorded(*MESSAGES)), st.data())
def test_control_changed(response: Recorded, data: st.DataObject) -> None:
    control(response, changed(response.payload, data))


# What no broker without SASL says, and what those say that know no version of ApiVersions above 0 (KIP-511).
OTHERS = [
    *(Recorded("none", 36, version, "login", bytes(4 + version // 2) + protocol.encode_message(message, version))
      for version in range(3)
      for message in [protocol.SaslAuthenticateResponse(58, None, b"bytes"),
                      protocol.SaslAuthenticateResponse(0, "text", b"")]),
    Recorded("none", API_VERSIONS, 3, "refused", bytes(4) + b"\x00\x23" + b"\x00\x00\x00\x01" + bytes(6)),
]  # fmt: skip


@pytest.mark.parametrize("response", OTHERS, ids=lambda each: each.id)
def test_what_was_not_recorded(response: Recorded) -> None:
    test_control_whole_and_cut(response)
    assert None in [control(response, payload) for payload in lied(response.payload)]


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_frames_in_pieces(piece: int) -> None:
    payloads = [each.payload for each in recorded()]
    stream = b"".join(len(each).to_bytes(4, "big") + each for each in payloads)
    frames = FrameReader(10_000)
    read = []
    for at in range(0, len(stream), piece):
        frames.feed(stream[at : at + piece])
        while (frame := frames.next()) is not None:
            read.append(frame)
    assert read == payloads
    assert not frames.buffered


@pytest.mark.parametrize("size", [-(2**31), -1, 0, 3, 10_001, 2**31 - 1])
def test_sizes_that_no_frame_has(size: int) -> None:
    frames = FrameReader(10_000)
    frames.feed(size.to_bytes(4, "big", signed=True) + b"\x00" * 8)
    with pytest.raises(errors.InvalidReceiveError):
        frames.next()
