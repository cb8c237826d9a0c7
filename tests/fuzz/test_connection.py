"""What brokers really answered, sent to both planes over a socket, whole and broken: both act alike, a wrong byte ends
the connection, and every batch has one fate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastprod._pure as pure

from .conversation import PARTITIONS, Conversation, Outcome
from .corpus import IDS, PRODUCE, Recorded, cut, recorded

# Both twins are looked at side by side.
pytestmark = pytest.mark.native_only

WHERE = {(topic, index) for topic, count in PARTITIONS.items() for index in range(count)}
NAMES = {known: topic for topic, known in IDS.items()}
LOST = (13, None, [], -1, None)


def named(response: Recorded) -> list[Any]:
    """Its answers, each with the name of its topic."""
    answers = pure.decode_produce_response(response.version, response.payload)[2]
    return [(answer[0] or NAMES.get(answer[1] or b""), *answer[1:]) for answer in answers]


# Those to a request of a batch for each partition.
FITTING = [each for each in recorded(PRODUCE) if {(one[0], one[2]) for one in named(each)} == WHERE]
OTHER = [each for each in recorded(PRODUCE) if each not in FITTING]
# With every field there is: of the oldest, a newer and the newest layout.
RICH = [each for each in FITTING if each.release == "4.3.1" and each.name == "keyless" and each.version in (3, 8, 13)]


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


@pytest.fixture(scope="module")
def planes() -> Iterator[list[Conversation]]:
    made = [Conversation(native), Conversation(pure)]
    yield made
    for each in made:
        each.close()


def both(planes: list[Conversation], version: int, data: bytes, piece: int = 0, **how: Any) -> tuple[bool, Outcome]:
    """What both planes make of it."""
    said = [each.answer(version, data, piece, **how) for each in planes]
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("response", FITTING, ids=lambda each: each.id)
def test_whole_and_byte_by_byte(planes: list[Conversation], response: Recorded, piece: int) -> None:
    expected = {
        (answer[0], answer[2]): answer[4] if answer[3] == 0 else (answer[3], answer[8], answer[7], answer[6], answer[9])
        for answer in named(response)
    }
    assert both(planes, response.version, framed(response.payload), piece) == (False, expected)


@pytest.mark.parametrize("response", OTHER, ids=lambda each: each.id)
def test_an_answer_to_another_request(planes: list[Conversation], response: Recorded) -> None:
    assert both(planes, response.version, framed(response.payload)) == (True, dict.fromkeys(WHERE, LOST))


@pytest.mark.parametrize("response", RICH, ids=lambda each: each.id)
def test_cut_at_each_byte(planes: list[Conversation], response: Recorded) -> None:
    """The size is right; the broker hangs up, or we do, where not even a correlation id is there."""
    for part in cut(response.payload):
        assert both(planes, response.version, framed(part)) == (True, dict.fromkeys(WHERE, LOST)), part


@pytest.mark.parametrize("response", RICH, ids=lambda each: each.id)
def test_the_end_comes_early(planes: list[Conversation], response: Recorded) -> None:
    """The size is right, and then the broker closes the connection."""
    whole = framed(response.payload)
    for length in range(1, len(whole)):
        assert both(planes, response.version, whole[:length]) == (False, dict.fromkeys(WHERE, LOST)), length


@pytest.mark.parametrize("size", [-(2**31), -1, 0, 3, 100_001, 2**31 - 1])
def test_sizes_that_no_answer_has(planes: list[Conversation], size: int) -> None:
    data = size.to_bytes(4, "big", signed=True) + FITTING[0].payload
    assert both(planes, FITTING[0].version, data) == (True, dict.fromkeys(WHERE, LOST))


@pytest.mark.parametrize("response", RICH, ids=lambda each: each.id)
def test_another_correlation_id(planes: list[Conversation], response: Recorded) -> None:
    data = framed(b"\x07" * 4 + response.payload[4:])
    assert both(planes, response.version, data, correlation=False) == (True, dict.fromkeys(WHERE, LOST))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FITTING), st.sampled_from([0, 1, 7]), st.data())
def test_changed(planes: list[Conversation], response: Recorded, piece: int, data: st.DataObject) -> None:
    payload = bytearray(response.payload)
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(4, len(payload) - 1))] = data.draw(st.integers(0, 255))
    ended, outcome = both(planes, response.version, framed(bytes(payload)), piece)
    # Believed in all or in nothing.
    assert ended == (outcome == dict.fromkeys(WHERE, LOST))
