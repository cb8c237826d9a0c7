"""Which partition a record goes to: evenly and in full batches without a key, and as every name of a partitioner says.

Counts and batch sizes are taken from the broker's log. What the hashes must give is asked of librdkafka, which has them
under the same names.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from confluent_kafka import Producer

from fastprod import KafkaProducer
from fastprod.partitioners import DefaultPartitioner, Partitioner, RandomPartitioner, RoundRobinPartitioner
from fastprod.testing import KafkaBroker

from .conftest import MakeTopic
from .reading import log_batches, read_back

PARTITIONS = 6
KEYS = [b"", b"\x00", "\u00e9".encode(), *(b"key-%d" % number for number in range(500))]


def counts_of(broker: KafkaBroker, topic: str) -> list[int]:
    return [broker.end_offset(topic, partition) for partition in range(PARTITIONS)]


def send_all(producer: KafkaProducer, topic: str, keys: Iterable[Any]) -> list[int]:
    """Send one record a key; return the partitions they went to."""
    futures = [producer.send(topic, b"value", key) for key in keys]
    producer.flush()
    return [future.get().partition for future in futures]


def test_keyless_records_fill_their_batches_and_spread_evenly(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    name, batch_size, count = topic(kafka_broker, PARTITIONS), 16_384, 300_000
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, batch_size=batch_size, linger_ms=100
    ) as producer:
        for number in range(count):
            producer.send(name, b"%0100d" % number)
    counts = counts_of(kafka_broker, name)
    assert sum(counts) == count
    mean = count / PARTITIONS
    assert all(0.85 * mean <= each <= 1.15 * mean for each in counts), counts
    sizes = []
    for partition in range(PARTITIONS):
        # The last of each is what the flush at the end made leave.
        sizes += [batch.size for batch in log_batches(kafka_broker, name, partition)[:-1]]
    assert len(sizes) >= 0.95 * count * 100 / batch_size
    full = sum(size >= 0.9 * batch_size for size in sizes)
    assert full >= 0.95 * len(sizes), (full, len(sizes), sorted(sizes)[:20])


@pytest.mark.parametrize("count", [30_000, 1_001])
def test_round_robin_differs_by_one_at_most(kafka_broker: KafkaBroker, topic: MakeTopic, count: int) -> None:
    name = topic(kafka_broker, PARTITIONS)
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, partitioner="round_robin") as producer:
        keys = itertools.cycle([None, b"always the same"])
        chosen = send_all(producer, name, itertools.islice(keys, count))
    assert all((each + 1) % PARTITIONS == after for each, after in itertools.pairwise(chosen))
    counts = counts_of(kafka_broker, name)
    assert sum(counts) == count
    assert max(counts) - min(counts) <= 1


def test_a_trickle_reaches_every_partition_within_seconds(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    name = topic(kafka_broker, PARTITIONS)
    rate, seconds = 100, 10
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers) as producer:
        began = time.monotonic()
        for number in range(rate * seconds):
            # The pace is what is tested. A machine that is late sends late, it does not catch up in a burst.
            began += max(0.0, time.monotonic() - began - number / rate)
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            # Waited for: while a broker stands still, what is sent goes into the batch that is open.
            producer.send(name, b"value").get(60)
    counts = counts_of(kafka_broker, name)
    assert sum(counts) == rate * seconds
    mean = rate * seconds / PARTITIONS
    assert all(0.6 * mean <= each <= 1.4 * mean for each in counts), counts


def librdkafka_partitions(broker: KafkaBroker, topic: str, partitioner: str) -> dict[bytes | None, int]:
    """Key -> partition, as librdkafka's partitioner of that name chooses."""
    delivered: dict[bytes | None, int] = {}

    def note(error: object, message: Any) -> None:
        assert error is None, error
        delivered[message.key()] = message.partition()

    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "partitioner": partitioner})
    for key in KEYS:
        producer.produce(topic, b"value", key, on_delivery=note)
    producer.flush()
    assert len(delivered) == len(KEYS)
    return delivered


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("crc32", "consistent"), ("murmur2", "murmur2"), ("default", "murmur2"), ("random", "murmur2")],
)
@pytest.mark.parametrize("partitions", [1, 6, 7])
def test_keys_go_where_librdkafka_sends_them(
    kafka_broker: KafkaBroker, topic: MakeTopic, ours: str, theirs: str, partitions: int
) -> None:
    name = topic(kafka_broker, partitions)
    expected = librdkafka_partitions(kafka_broker, topic(kafka_broker, partitions), theirs)
    assert partitions == 1 or len(set(expected.values())) == partitions
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=ours) as producer:
        chosen = send_all(producer, name, KEYS)
    assert dict(zip(KEYS, chosen, strict=True)) == expected
    found = read_back(kafka_broker.bootstrap_servers, name, partitions)
    where = {message.key(): partition for partition, messages in found.items() for message in messages}
    assert {key or b"": partition for key, partition in where.items()} == expected


@pytest.mark.parametrize(("name", "hashed"), [("crc32", 0), ("murmur2", 275646681)])
def test_hashes_take_no_key_for_an_empty_one(
    kafka_broker: KafkaBroker, topic: MakeTopic, name: str, hashed: int
) -> None:
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=name) as producer:
        assert set(send_all(producer, topic(kafka_broker, 7), [None] * 100)) == {hashed % 7}


@pytest.mark.parametrize("partitioner", ["random", RandomPartitioner()], ids=["name", "instance"])
def test_random_is_uniform_record_by_record(
    kafka_broker: KafkaBroker, topic: MakeTopic, partitioner: Any
) -> None:
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=partitioner) as producer:
        chosen = send_all(producer, topic(kafka_broker, PARTITIONS), [None] * 6000)
    # Of 6000, six standard deviations are 173 around 1000.
    assert sorted(Counter(chosen)) == list(range(PARTITIONS))
    assert all(abs(count - 1000) < 174 for count in Counter(chosen).values())
    repeated = sum(one == other for one, other in itertools.pairwise(chosen))
    assert abs(repeated - 1000) < 174


@pytest.mark.parametrize("partitioner", ["default", "sticky", DefaultPartitioner()], ids=["default", "sticky", "class"])
def test_keyless_records_stay_together_while_a_batch_fills(
    kafka_broker: KafkaBroker, topic: MakeTopic, partitioner: Any
) -> None:
    name = topic(kafka_broker, PARTITIONS)
    count = 10_000
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=partitioner, linger_ms=60_000, batch_size=16_384
    ) as producer:
        futures = [producer.send(name, b"%0100d" % number) for number in range(count)]
        producer.flush()
    chosen = [future.get().partition for future in futures]
    batches = [log_batches(kafka_broker, name, partition) for partition in range(PARTITIONS)]
    number = sum(map(len, batches))
    moves = sum(one != other for one, other in itertools.pairwise(chosen))
    assert 1 <= moves < number <= count * 110 / 16_384 + PARTITIONS
    assert all(batch.size >= 0.9 * 16_384 for each in batches for batch in each[:-1])


def test_sticky_by_name_ignores_keys(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, partitioner="sticky", linger_ms=60_000
    ) as producer:
        assert len(set(send_all(producer, topic(kafka_broker, PARTITIONS), KEYS))) == 1


def test_the_class_of_round_robin_stands_for_its_name(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=RoundRobinPartitioner()
    ) as producer:
        chosen = send_all(producer, topic(kafka_broker, PARTITIONS), [b"key"] * 60)
    assert set(Counter(chosen).values()) == {10}


class ByLength(Partitioner):
    """Chooses by the length of the value, moves on with each new batch, and writes down what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.opened: list[tuple[str, int]] = []
        self.clusters: list[Any] = []

    def partition(
        self, topic: str, key: Any, serialized_key: Any, value: Any, serialized_value: Any, cluster: Any
    ) -> int:
        self.calls.append((topic, key, serialized_key, value, serialized_value))
        self.clusters.append(cluster)
        return (len(serialized_value) + len(self.opened)) % len(cluster.partitions_for_topic(topic))

    def on_new_batch(self, topic: str, cluster: Any, previous: int) -> None:
        self.clusters.append(cluster)
        self.opened.append((topic, previous))


def test_a_partitioner_of_six_arguments_decides(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    name, partitioner = topic(kafka_broker, PARTITIONS), ByLength()
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=partitioner, linger_ms=1000,
        key_serializer=lambda key: None if key is None else key.encode(), value_serializer=str.encode,
    ) as producer:
        first = producer.send(name, "abcd", "k")
        producer.send(name, "abc", "k", partition=0)
        producer.flush()
        assert first.get().partition == 4
        assert partitioner.opened == []
        second = producer.send(name, "ab")
        third = producer.send(name, "a" * 7)
        producer.flush()
        cluster = partitioner.clusters[0]
        assert cluster.topics() == {name}
        assert cluster.partitions_for_topic(name) == set(range(PARTITIONS))
        assert cluster.available_partitions_for_topic(name) == set(range(PARTITIONS))
        assert cluster.partitions_for_topic("unheard-of") is None
    # The second opens a batch in 2, is told so, and goes to 3 instead; the third would open one in 2 and goes to 3.
    assert partitioner.opened == [(name, 2), (name, 2)]
    assert (second.get().partition, third.get().partition) == (3, 3)
    long = "a" * 7
    assert partitioner.calls == [
        (name, "k", b"k", "abcd", b"abcd"),
        (name, None, None, "ab", b"ab"),
        (name, None, None, "ab", b"ab"),
        (name, None, None, long, long.encode()),
        (name, None, None, long, long.encode()),
    ]
    assert all(each is cluster for each in partitioner.clusters)


class OfOlderReleases:
    def partition(self, topic: str, serialized_key: bytes | None, cluster: Any) -> int:
        return max(cluster.partitions_for_topic(topic)) - len(serialized_key or b"")


def test_a_partitioner_of_three_arguments_decides(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        producer = KafkaProducer(
            bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=OfOlderReleases()
        )
    with producer:
        assert send_all(producer, topic(kafka_broker, PARTITIONS), [None, b"k", b"kk"]) == [5, 4, 3]


def test_a_callable_of_kafka_python_2_decides(kafka_broker: KafkaBroker, topic: MakeTopic) -> None:
    calls = []

    def choose(key: bytes | None, every: list[int], available: list[int]) -> int:
        calls.append((key, every, available))
        return every[-1] if key is None else available[len(key)]

    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=choose) as producer:
        assert send_all(producer, topic(kafka_broker, PARTITIONS), [None, b"", b"four"]) == [5, 0, 4]
    numbers = list(range(PARTITIONS))
    assert calls == [(key, numbers, numbers) for key in (None, b"", b"four")]


@pytest.mark.parametrize("wrong", [-1, PARTITIONS, "0", 1.0, None, True])
def test_a_partition_that_is_none_is_refused_at_once(
    kafka_broker: KafkaBroker, topic: MakeTopic, wrong: Any
) -> None:
    name = topic(kafka_broker, PARTITIONS)
    with KafkaProducer(
        bootstrap_servers=kafka_broker.bootstrap_servers, partitioner=lambda key, every, available: wrong
    ) as producer:
        with pytest.raises(ValueError, match=name):
            producer.send(name, b"value")
        assert producer.send(name, b"value", partition=1).get().offset == 0
    assert counts_of(kafka_broker, name) == [0, 1, 0, 0, 0, 0]
