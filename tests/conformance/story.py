"""What many of these tests begin with, and how they wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastprod import KafkaProducer
from fastprod.testing import Pending, ScriptedBroker

# A record a batch, so that the test decides what is in flight.
SINGLE: dict[str, Any] = {"batch_size": 0}
ID = 77
# What a busy machine may add to a time that was promised, s.
SLACK_S = 3.0


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


def eventually(condition: Callable[[], Any], what: str = "it", seconds: float = 20.0) -> Any:
    """Return what `condition` returns once it is true; for what only the producer knows."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.005)
