"""What many of these tests begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastprod import KafkaProducer
from fastprod.testing import Pending, ScriptedBroker

# A record a batch, so that the test decides what is in flight.
SINGLE: dict[str, Any] = {"batch_size": 0}
ID = 77


def send(producer: KafkaProducer, *values: bytes, partition: int = 0, topic: str = "t") -> list[Any]:
    return [producer.send(topic, value, partition=partition) for value in values]


def proven(broker: ScriptedBroker, make: Callable[..., KafkaProducer], **options: Any) -> KafkaProducer:
    """A producer with one acknowledged record in partition 0; the test answers from then on."""
    made = make(**{**SINGLE, **options})
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    return made


def in_flight(broker: ScriptedBroker, producer: KafkaProducer, count: int) -> tuple[list[Any], list[Pending]]:
    """So many records behind the first one, each in a request of its own: their futures and their requests."""
    futures = send(producer, *[b"%d" % number for number in range(1, count + 1)])
    requests = [broker.next_produce() for _ in range(count)]
    assert [each.batch.stamp for each in requests] == [(ID, 0, number) for number in range(1, count + 1)]
    return futures, requests


def offsets(futures: list[Any]) -> list[int]:
    return [each.get(20).offset for each in futures]
