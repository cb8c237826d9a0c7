"""Reads topics back with other people's consumers, and batches straight from the broker's log."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from fastprod.testing import KafkaBroker


@dataclass(frozen=True)
class Read:
    """A record as confluent-kafka's consumer sees it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int


def read_topic(
    broker: KafkaBroker, topic: str, count: int, partitions: int = 1, seconds: float = 20
) -> list[Read]:
    """Return the first `count` records of a topic, in order within a partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "check.crcs": True,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        found: list[Read] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < deadline:
            message: Any = consumer.poll(0.2)
            if message is None:
                continue
            assert message.error() is None, message.error()
            found.append(
                Read(
                    message.partition(),
                    message.offset(),
                    message.key(),
                    message.value(),
                    list(message.headers() or []),
                    message.timestamp()[1],
                )
            )
        assert len(found) >= count, f"{len(found)} of {count} records"
        return found
    finally:
        consumer.close()


@dataclass(frozen=True)
class Batch:
    """A record batch as it lies in the log. Sizes in bytes, the header included."""

    size: int
    codec: int
    producer_id: int
    epoch: int
    sequence: int
    count: int


def read_batches(broker: KafkaBroker, topic: str, partition: int = 0) -> list[Batch]:
    """Return the batches of a partition in order."""
    return list(_batches(broker.read_log(topic, partition)))


def _batches(log: bytes) -> Iterator[Batch]:
    position = 0
    while position + 61 <= len(log):
        (length,) = struct.unpack_from(">i", log, position + 8)
        (attributes,) = struct.unpack_from(">h", log, position + 21)
        producer_id, epoch, sequence, count = struct.unpack_from(">qhii", log, position + 43)
        yield Batch(12 + length, attributes & 7, producer_id, epoch, sequence, count)
        position += 12 + length
