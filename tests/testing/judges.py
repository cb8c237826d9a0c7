"""Other people's clients, which judge a broker that is under test here."""

from __future__ import annotations

from confluent_kafka import Consumer, Producer, TopicPartition
from kafka import KafkaConsumer

from fastprod.testing import KafkaBroker

PATIENCE_S = 120


def produce(broker: KafkaBroker, topic: str, values: list[bytes]) -> None:
    refused = []
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
    for value in values:
        producer.produce(
            topic, value, partition=0, on_delivery=lambda error, _: refused.append(error) if error else None
        )
    assert producer.flush(PATIENCE_S) == 0
    assert refused == [], refused


def read(broker: KafkaBroker, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        auto_offset_reset="earliest",
        consumer_timeout_ms=PATIENCE_S * 1000,
    )
    try:
        return [next(consumer).value for _ in range(count)]
    finally:
        consumer.close()


def read_compressed(broker: KafkaBroker, topic: str, count: int, partition: int = 0) -> list[bytes]:
    """Read a partition from its beginning, with librdkafka, which has every codec."""
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "none", "enable.auto.commit": False}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, partition, 0)])
    values: list[bytes] = []
    try:
        while len(values) < count:
            messages = consumer.consume(count - len(values), PATIENCE_S)
            assert messages, f"only {len(values)} of {count} came"
            assert [message.error() for message in messages if message.error()] == []
            values += [message.value() for message in messages]
    finally:
        consumer.close()
    return values
