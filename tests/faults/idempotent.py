"""One record a batch, and a broker that is answered for by hand: what tests of sequences start from."""

from __future__ import annotations

from typing import Any

from fastprod import KafkaProducer

from .conftest import MakeProducer
from .fake_broker import FakeBroker, Produced

# A record a batch, so that the test decides what is in flight.
SINGLE = {"batch_size": 0, "retry_backoff_ms": 5, "reconnect_backoff_ms": 5}
ID = 77


def send(producer: KafkaProducer, *values: bytes, partition: int = 0) -> list[Any]:
    return [producer.send("t", value, partition=partition) for value in values]


def proven(fake: FakeBroker, make: MakeProducer, **options: Any) -> KafkaProducer:
    """A producer whose first record in partition 0 was acknowledged, and a broker answered by hand from then on."""
    made = make(**{**SINGLE, **options})
    made.send("t", b"first", partition=0).get(10)
    fake.by_hand = True
    return made


def five(fake: FakeBroker, producer: KafkaProducer) -> tuple[list[Any], list[Produced]]:
    """Five records in flight, sequences 1 to 5: their futures and their requests."""
    futures = send(producer, b"1", b"2", b"3", b"4", b"5")
    requests = [fake.next() for _ in range(5)]
    assert [each.batch.stamp for each in requests] == [(ID, 0, number) for number in range(1, 6)]
    return futures, requests
