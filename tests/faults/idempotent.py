"""One record a batch, and a broker that is answered for by hand: what tests of sequences start from."""

from __future__ import annotations

from typing import Any

from fastprod import KafkaProducer
from fastprod.testing import Pending, ScriptedBroker

from .conftest import MakeProducer

# A record a batch, so that the test decides what is in flight.
SINGLE = {"batch_size": 0, "retry_backoff_ms": 5, "reconnect_backoff_ms": 5}
ID = 77


def send(producer: KafkaProducer, *values: bytes, partition: int = 0) -> list[Any]:
    return [producer.send("t", value, partition=partition) for value in values]


def proven(scripted: ScriptedBroker, make: MakeProducer, **options: Any) -> KafkaProducer:
    """A producer whose first record in partition 0 was acknowledged, and a broker answered by hand from then on."""
    made = make(**{**SINGLE, **options})
    made.send("t", b"first", partition=0).get(10)
    scripted.by_hand = True
    return made


def five(scripted: ScriptedBroker, producer: KafkaProducer) -> tuple[list[Any], list[Pending]]:
    """Five records in flight, sequences 1 to 5: their futures and their requests."""
    futures = send(producer, b"1", b"2", b"3", b"4", b"5")
    requests = [scripted.next_produce() for _ in range(5)]
    assert [each.batch.stamp for each in requests] == [(ID, 0, number) for number in range(1, 6)]
    return futures, requests
