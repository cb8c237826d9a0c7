"""Item 58: behind sequence 2147483647 comes 0.

No test can send two thousand million records, and the planes have no way to begin elsewhere, because nothing but a
test would want it. The pure twin's partition is therefore set forward here, as its objects can be. The compiled one's
cannot: these tests run on it in a build whose partitions begin near the end, which `mutate.py` makes (`wrap`) and
tells them of by FASTPROD_TEST_FIRST_SEQUENCE; with any other build they are skipped.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

import fastprod
from fastprod import KafkaProducer
from fastprod.control.verdict import Action, BatchFacts, Rules, judge
from fastprod.testing import ScriptedBroker

from .conftest import Make
from .story import ID, SINGLE, offsets, send

LARGEST = 2**31 - 1
FIRST = int(os.environ.get("FASTPROD_TEST_FIRST_SEQUENCE", "0"))
# The sequence that the record behind the first one gets.
NEXT = LARGEST - 2

near_the_end = pytest.mark.skipif(
    fastprod.backend == "native" and FIRST != NEXT - 1, reason="not built to begin near the last sequence"
)


def begun(broker: ScriptedBroker, make: Make, **options: Any) -> KafkaProducer:
    """A producer with one acknowledged record in partition 0, whose next sequence is NEXT; the test answers."""
    made = make(**{**SINGLE, **options})
    made.send("t", b"first", partition=0).get(20)
    if fastprod.backend == "pure":
        made._engine.plane.routes["t"].partitions[0].next_sequence = NEXT  # type: ignore[attr-defined]
        # Whoever knows nothing of a producer takes any sequence.
        broker.forget_producers("t")
    broker.by_hand = True
    return made


def five(broker: ScriptedBroker, made: KafkaProducer) -> tuple[list[Any], list[Any]]:
    futures = send(made, *[b"%d" % number for number in range(5)])
    requests = [broker.next_produce() for _ in futures]
    assert [each.batch.stamp for each in requests] == [(ID, 0, each) for each in (NEXT, NEXT + 1, NEXT + 2, 0, 1)]
    return futures, requests


@near_the_end
def test_sequence_wrap(broker: ScriptedBroker, make: Make) -> None:
    """In the middle of a batch."""
    made = begun(broker, make, batch_size=1000, linger_ms=100)
    futures = send(made, *[b"%d" % number for number in range(7)])
    request = broker.next_produce()
    assert (request.batch.stamp, request.batch.count) == ((ID, 0, NEXT), 7)
    request.accept()
    assert offsets(futures) == list(range(1, 8))
    futures = send(made, b"7")
    request = broker.next_produce()
    assert request.batch.stamp == (ID, 0, 4)
    request.accept()
    assert offsets(futures) == [8]


@near_the_end
def test_sequence_wrap_with_five_in_flight(broker: ScriptedBroker, make: Make) -> None:
    made = begun(broker, make)
    futures, requests = five(broker, made)
    for each in requests:
        each.accept()
    assert offsets(futures) == [1, 2, 3, 4, 5]
    futures = send(made, b"5")
    request = broker.next_produce()
    assert request.batch.stamp == (ID, 0, 2)
    request.accept()
    assert offsets(futures) == [6]


@near_the_end
def test_sequence_wrap_with_retries(broker: ScriptedBroker, make: Make) -> None:
    """All five fail retriably, are resent in the order they had, and nothing newer goes before them."""
    made = begun(broker, make)
    futures, requests = five(broker, made)
    for each in requests:
        each.refuse(19)
    futures += send(made, b"5")
    for number, each in enumerate(requests):
        again = broker.next_produce()
        assert again.batch.data == each.batch.data
        if number < 4:
            broker.nothing_more(0.1)
        again.accept()
    request = broker.next_produce()
    assert request.batch.stamp == (ID, 0, 2)
    request.accept()
    assert offsets(futures) == [1, 2, 3, 4, 5, 6]


@near_the_end
def test_sequence_wrap_in_a_split(broker: ScriptedBroker, make: Make) -> None:
    made = begun(broker, make, batch_size=1000, linger_ms=100)
    futures = send(made, *[b"%d" % number for number in range(6)])
    broker.next_produce().refuse(10)
    sequence = NEXT
    done = 0
    while done < 6:
        part = broker.next_produce()
        assert part.batch.stamp == (ID, 0, sequence)
        done += part.batch.count
        sequence = (sequence + part.batch.count) % 2**31
        part.accept()
    assert offsets(futures) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("base", "renumber"), [(0, True), (1, False), (LARGEST, False)], ids=["the next one", "early", "the last one"]
)
def test_sequence_wrap_of_a_refusal(base: int, renumber: bool) -> None:
    """45 for what follows the last acknowledged batch means that the broker has other ideas of our sequences; the
    number that follows the largest is 0."""
    facts = BatchFacts(45, 1, 1, 0.0, base_sequence=base, last_acked_sequence=LARGEST)
    verdict = judge(facts, Rules(retries=5, delivery_timeout_s=60.0, idempotent=True), 1.0)
    assert (verdict.action, verdict.renumber) == (Action.RETRY, renumber)
