"""What lies in a topic: its records as confluent-kafka reads them, its batches as they lie in the broker's log."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fastprod.testing import KafkaBroker

BATCH_HEADER = 61
_BATCH_LENGTH = struct.Struct(">i")


class Batch(NamedTuple):
    """One record batch, byte by byte."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def codec(self) -> int:
        return self.data[22] & 7

    @property
    def producer_id(self) -> int:
        return int.from_bytes(self.data[43:51], "big", signed=True)

    @property
    def epoch(self) -> int:
        return int.from_bytes(self.data[51:53], "big", signed=True)

    @property
    def sequence(self) -> int:
        return int.from_bytes(self.data[53:57], "big", signed=True)

    @property
    def count(self) -> int:
        return int.from_bytes(self.data[57:61], "big", signed=True)

    @property
    def lasting(self) -> bytes:
        """All but what the broker fills in: the base offset (0 to 8) and the leader epoch (12 to 16)."""
        return self.data[8:12] + self.data[16:]


def split_batches(data: bytes) -> Iterator[Batch]:
    """Cut record batches apart."""
    position = 0
    while position < len(data):
        end = position + 12 + _BATCH_LENGTH.unpack_from(data, position + 8)[0]
        assert position + BATCH_HEADER <= end <= len(data), f"a batch cut short at byte {position} of {len(data)}"
        yield Batch(data[position:end])
        position = end


def log_batches(broker: KafkaBroker, topic: str, partition: int = 0) -> list[Batch]:
    """The batches of a partition's log, in order."""
    return list(split_batches(broker.read_log(topic, partition)))


def read_back(address: str, topic: str, partitions: int = 1) -> dict[int, list[Any]]:
    """Every record of the topic, by partition and in order, as confluent-kafka's consumer gives it."""
    found: dict[int, list[Any]] = defaultdict(list)
    open_ends = set(range(partitions))
    consumer = Consumer({
        "bootstrap.servers": address, "group.id": "reader", "auto.offset.reset": "error", "check.crcs": True,
        "enable.auto.commit": False, "enable.partition.eof": True,
    })
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        while open_ends:
            for message in consumer.consume(10_000, timeout=0.2):
                error = message.error()
                if error is None:
                    found[message.partition()].append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard(message.partition())
                else:
                    raise AssertionError(error)
    finally:
        consumer.close()
    return found
