"""120,000 records of every kind, over every acks and codec, come back exactly as they were sent.

They are read by confluent-kafka, and the partition of a key is computed here once more, from the hash's definition.
The file imports nothing of kafka-python: it is also run where that is not installed.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, TopicPartition

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

PARTITIONS = 6
RECORDS = 8_000  # times fifteen
NOW_MS = 1_790_000_000_000
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
LEVELS = {("gzip", 1): 1, ("lz4", 1): 12, ("zstd", 1): 12, ("gzip", "all"): 9, ("zstd", "all"): 1}


class Sent(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int
    partition: int | None


def murmur2(data: bytes) -> int:
    """The hash as its definition has it: arithmetic modulo 2**32, little-endian words."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def mixed(seed: str) -> Iterator[Sent]:
    """Keyed and not, empty, null, large, with headers, with timestamps that go back, with explicit partitions."""
    chance = random.Random(seed)
    large = set(chance.sample(range(RECORDS), 4))
    for number in range(RECORDS):
        key = chance.choice([None, b"", b"%d" % chance.randrange(500), chance.randbytes(chance.randrange(1, 40))])
        value: bytes | None = chance.choice([b"", b"%d:" % number + chance.randbytes(20), b"text " * 20])
        if number in large:
            value = chance.randbytes(1000) * 200
        elif key is not None and chance.random() < 0.1:
            value = None
        headers = [
            (chance.choice(["", "trace", "\u00e9\u20ac"]), chance.randbytes(chance.randrange(8)))
            for _ in range(chance.choice([0, 0, 1, 3]))
        ]
        partition = chance.randrange(PARTITIONS) if chance.random() < 0.2 else None
        yield Sent(key, value, headers, NOW_MS - 3 * number, partition)


def read_all(broker: KafkaBroker, topic: str, missing: int) -> dict[int, list[Any]]:
    """The topic's records, partition by partition, in log order; with acks=0 the last may still be on their way."""
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap_servers, "group.id": "mixed", "auto.offset.reset": "earliest",
        "check.crcs": True, "enable.auto.commit": False, "fetch.message.max.bytes": 10_000_000,
    })
    found: dict[int, list[Any]] = defaultdict(list)
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        while missing:
            messages = consumer.consume(min(missing, 2000), timeout=60)
            assert messages, f"{missing} records of {topic} do not come"
            for message in messages:
                assert message.error() is None, message.error()
                found[message.partition()].append(message)
            missing -= len(messages)
        assert sum(broker.end_offset(topic, p) for p in range(PARTITIONS)) == sum(map(len, found.values()))
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_mixed_load(kafka_broker: KafkaBroker, acks: Any, codec: str | None) -> None:
    topic = f"mixed-{acks}-{codec}"
    kafka_broker.create_topic(topic, PARTITIONS)
    futures = []
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, acks=acks, compression_type=codec,
        compression_level=LEVELS.get((codec, acks)), linger_ms=5, batch_size=100_000,
    ) as producer:
        for sent in mixed(topic):
            future = producer.send(topic, sent.value, sent.key, sent.headers, sent.partition, sent.timestamp)
            futures.append((sent, future))
        producer.flush(120)
    expected: dict[int, list[Any]] = defaultdict(list)
    for sent, future in futures:
        metadata = future.get(0)
        expected[metadata.partition].append((sent, metadata))
        if sent.partition is not None:
            assert metadata.partition == sent.partition
        elif sent.key is not None:
            assert metadata.partition == (murmur2(sent.key) & 0x7FFFFFFF) % PARTITIONS
    logged = read_all(kafka_broker, topic, RECORDS)
    assert {p: len(rows) for p, rows in logged.items()} == {p: len(rows) for p, rows in expected.items()}
    for partition, rows in expected.items():
        for offset, ((sent, metadata), message) in enumerate(zip(rows, logged[partition], strict=True)):
            assert message.offset() == offset
            assert metadata.offset == (-1 if acks == 0 else offset)
            assert (message.key(), message.value()) == (sent.key, sent.value)
            assert (message.headers() or []) == sent.headers
            assert message.timestamp() == (TIMESTAMP_CREATE_TIME, sent.timestamp)
            assert (metadata.topic, metadata.timestamp) == (topic, sent.timestamp)
            assert metadata.serialized_key_size == (-1 if sent.key is None else len(sent.key))
            assert metadata.serialized_value_size == (-1 if sent.value is None else len(sent.value))
