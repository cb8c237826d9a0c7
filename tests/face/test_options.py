"""What options about records and batches do, seen in the log and on the wire."""

from __future__ import annotations

import ast
import itertools
import time
import zlib
from pathlib import Path
from typing import Any, ClassVar

import kafka.partitioner  # type: ignore[import-untyped]
import pytest
from conftest import MakeProducer, MakeTopic
from effects import shows
from patience import check_time, eventually, in_time
from reading import read_batches, read_topic
from recording import INIT_PRODUCER_ID, METADATA, PRODUCE, Relay

from fastprod import errors
from fastprod.config import OPTIONS
from fastprod.option_kinds import NotYet
from fastprod.serializers import JsonSerializer
from fastprod.testing import KafkaBroker

# Options whose effect is that of a feature still to come; unit/test_config.py shows that setting
# them is refused, or, for the last, that its value is checked.
LATER = {option.name for option in OPTIONS if isinstance(option.kind, NotYet)} | {
    "security_protocol",
    "transaction_timeout_ms",
}


def test_every_option_has_a_test_of_its_effect() -> None:
    shown: set[str] = set()
    for path in Path(__file__).parent.glob("test_options*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "shows":
                shown |= {ast.literal_eval(each) for each in node.args}
    assert shown == {option.name for option in OPTIONS} - LATER


@shows("key_serializer", "value_serializer")
def test_serializers(producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker) -> None:
    name = topic()
    made = producer(key_serializer=str.upper, value_serializer=JsonSerializer())
    with pytest.raises(TypeError, match="serialized key"):
        made.send(name, 1, "k")
    made = producer(key_serializer=str.encode, value_serializer=JsonSerializer())
    made.send(name, {"a": [1]}, "k").get(10)
    (read,) = read_topic(own_broker, name, 1)
    assert (read.key, read.value) == (b"k", b'{"a": [1]}')


class TestPartitioner:
    """48 records over 4 partitions of one topic a case; `batch_size=0` makes a record a batch."""

    KEYS: ClassVar = [b"key-%d" % number for number in range(48)]

    def partitions(
        self, producer: MakeProducer, topic: MakeTopic, partitioner: Any, keys: list[Any]
    ) -> list[int]:
        name, made = topic(4), producer(partitioner=partitioner, linger_ms=50)
        futures = [made.send(name, b"v", key) for key in keys]
        return [future.get(10).partition for future in futures]

    @shows("partitioner")
    @pytest.mark.parametrize("name", ["default", "random", "murmur2"])
    def test_keys_go_where_kafka_python_sends_them(
        self, producer: MakeProducer, topic: MakeTopic, name: str
    ) -> None:
        hashed = [(kafka.partitioner.murmur2(key) & 0x7FFFFFFF) % 4 for key in self.KEYS]
        assert self.partitions(producer, topic, name, self.KEYS) == hashed

    def test_crc32(self, producer: MakeProducer, topic: MakeTopic) -> None:
        hashed = [zlib.crc32(key) % 4 for key in self.KEYS]
        assert self.partitions(producer, topic, "crc32", self.KEYS) == hashed

    def test_sticky_ignores_keys(self, producer: MakeProducer, topic: MakeTopic) -> None:
        assert len(set(self.partitions(producer, topic, "sticky", self.KEYS))) == 1

    def test_default_without_keys_stays(self, producer: MakeProducer, topic: MakeTopic) -> None:
        assert len(set(self.partitions(producer, topic, "default", [None] * 48))) == 1

    def test_round_robin(self, producer: MakeProducer, topic: MakeTopic) -> None:
        went = self.partitions(producer, topic, "round_robin", self.KEYS)
        assert went[:4] * 12 == went
        assert sorted(went[:4]) == [0, 1, 2, 3]

    def test_random_without_keys(self, producer: MakeProducer, topic: MakeTopic) -> None:
        assert set(self.partitions(producer, topic, "random", [None] * 100)) == {0, 1, 2, 3}

    def test_murmur2_without_keys(self, producer: MakeProducer, topic: MakeTopic) -> None:
        empty = (kafka.partitioner.murmur2(b"") & 0x7FFFFFFF) % 4
        assert set(self.partitions(producer, topic, "murmur2", [None] * 20)) == {empty}

    def test_a_program_s_own(self, producer: MakeProducer, topic: MakeTopic) -> None:
        def by_length(key: bytes, every: list[int], available: list[int]) -> int:
            return every[len(key) % len(every)]

        keys = [b"a", b"ab", b"abc", b"abcd"]
        assert self.partitions(producer, topic, by_length, keys) == [1, 2, 3, 0]

    def test_on_new_batch(self, producer: MakeProducer, topic: MakeTopic) -> None:
        """kafka-python's sticky partitioner moves on with every batch."""
        sticky = kafka.partitioner.StickyPartitioner()
        name, made = topic(4), producer(partitioner=sticky, batch_size=0)
        made.partitions_for(name)
        went = [made.send(name, b"v").get(10).partition for _ in range(12)]
        assert all(first != second for first, second in itertools.pairwise(went))

    def test_a_partition_that_does_not_exist(
        self, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        with pytest.raises(ValueError, match="0 to 3"):
            self.partitions(producer, topic, lambda key, every, available: 4, [None])


class TestAcks:
    @shows("acks")
    @pytest.mark.parametrize(("acks", "offset"), [(0, -1), (1, 0), ("all", 0), (-1, 0)])
    def test_on_the_wire(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay, acks: Any, offset: int
    ) -> None:
        name, made = topic(), producer(acks=acks)
        assert made.send(name, b"v").get(10).offset == offset
        (request,) = eventually(lambda: relay.requests(PRODUCE))
        assert request.acks == (-1 if acks == "all" else acks)

    def test_0_waits_for_nobody(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        relay: Relay,
        own_broker: KafkaBroker,
    ) -> None:
        name, made = topic(), producer(acks=0)
        made.partitions_for(name)
        made.send(name, b"0").get(10)
        relay.silent = True
        assert made.send(name, b"1").get(5).offset == -1
        relay.silent = False
        assert [each.value for each in read_topic(own_broker, name, 2)] == [b"0", b"1"]


class TestIdempotence:
    @shows("enable_idempotence")
    def test_batches_carry_a_producer_id(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        relay: Relay,
        own_broker: KafkaBroker,
    ) -> None:
        name, made = topic(), producer()
        for _ in range(3):
            made.send(name, b"v").get(10)
        batches = read_batches(own_broker, name)
        assert [each.sequence for each in batches] == [0, 1, 2]
        assert len({each.producer_id for each in batches}) == 1
        assert batches[0].producer_id >= 0
        assert len(relay.requests(INIT_PRODUCER_ID)) == 1

    def test_without_they_carry_none_and_nobody_asks_for_one(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        relay: Relay,
        own_broker: KafkaBroker,
    ) -> None:
        name, made = topic(), producer(enable_idempotence=False)
        made.send(name, b"v").get(10)
        (batch,) = read_batches(own_broker, name)
        assert (batch.producer_id, batch.epoch, batch.sequence) == (-1, -1, -1)
        assert relay.requests(INIT_PRODUCER_ID) == []

    @pytest.mark.parametrize(("idempotent", "written"), [(True, 1), (False, 2)])
    def test_a_retry_is_written_once(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        relay: Relay,
        own_broker: KafkaBroker,
        idempotent: bool,
        written: int,
    ) -> None:
        """The broker wrote it, but the answer says that it did not."""
        name, made = topic(), producer(enable_idempotence=idempotent)
        made.partitions_for(name)
        relay.produce_error, relay.produce_errors_left = 19, 1
        made.send(name, b"v").get(10)
        assert len(relay.requests(PRODUCE)) == 2
        assert own_broker.end_offset(name) == written


class TestStrictOrder:
    @shows("strict_order")
    @pytest.mark.parametrize("strict", [True, False])
    def test_behind_a_batch_that_failed(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        relay: Relay,
        own_broker: KafkaBroker,
        strict: bool,
    ) -> None:
        name = topic(max_message_bytes=1000)
        made = producer(strict_order=strict, batch_size=0)
        made.send(name, b"first", partition=0).get(10)
        relay.silent = True
        large = made.send(name, bytes(5000), partition=0)
        behind = [made.send(name, b"%d" % number, partition=0) for number in range(3)]
        eventually(lambda: len(relay.requests(PRODUCE)) == 5)
        relay.silent = False
        with pytest.raises(errors.MessageSizeTooLargeError):
            large.get(10)
        if strict:
            for future in behind:
                with pytest.raises(errors.OutOfOrderSequenceNumberError):
                    future.get(10)
        else:
            assert [future.get(10).offset for future in behind] == [1, 2, 3]
        last = made.send(name, b"last", partition=0).get(10).offset
        assert last == (1 if strict else 4)
        assert read_topic(own_broker, name, last + 1)[-1].value == b"last"


class TestBatches:
    @shows("batch_size")
    @pytest.mark.parametrize("size", [0, 500, 5000])
    def test_batch_size(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker, size: int
    ) -> None:
        name, made = topic(), producer(batch_size=size, linger_ms=200)
        for _ in range(100):
            made.send(name, bytes(90))
        made.flush(10)
        batches = read_batches(own_broker, name)
        assert sum(each.count for each in batches) == 100
        if size == 0:
            assert [each.count for each in batches] == [1] * 100
            return
        assert max(each.size for each in batches) <= size
        assert min(each.size for each in batches[:-1]) > size - 100

    @shows("linger_ms")
    def test_linger(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay, own_broker: KafkaBroker
    ) -> None:
        name, made = topic(), producer(linger_ms=400)
        made.partitions_for(name)
        began = time.monotonic()
        futures = []
        for _ in range(5):
            futures.append(made.send(name, b"v"))
            time.sleep(0.02)
        futures[-1].get(10)
        (request,) = relay.requests(PRODUCE)
        check_time("linger_ms=400", request.at - began, 0.4, at_least_s=0.4, slack_s=0.4, early_s=0.02)
        assert [each.count for each in read_batches(own_broker, name)] == [5]

    def test_no_linger(self, producer: MakeProducer, topic: MakeTopic, relay: Relay) -> None:
        name, made = topic(), producer()
        made.send(name, b"v").get(10)
        began = time.monotonic()
        made.send(name, b"v").get(10)
        check_time("no linger", relay.requests(PRODUCE)[-1].at - began, 0, slack_s=0.1)

    @shows("compression_type")
    @pytest.mark.parametrize(
        ("codec", "number"), [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4), (None, 0)]
    )
    def test_compression_type(
        self,
        producer: MakeProducer,
        topic: MakeTopic,
        own_broker: KafkaBroker,
        codec: str | None,
        number: int,
    ) -> None:
        name, made = topic(), producer(compression_type=codec, linger_ms=100)
        for value in range(500):
            made.send(name, b"value %d" % value * 10)
        made.flush(10)
        batches = read_batches(own_broker, name)
        assert {each.codec for each in batches} == {number}
        plain = sum(len(b"value %d" % value * 10) for value in range(500))
        assert (sum(each.size for each in batches) < plain / 2) == (codec is not None)
        read = read_topic(own_broker, name, 500)
        assert [each.value for each in read] == [b"value %d" % value * 10 for value in range(500)]

    @shows("compression_level")
    def test_compression_level(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        sizes = []
        for level in (-50, 19):
            name = topic()
            made = producer(compression_type="zstd", compression_level=level, linger_ms=200)
            for value in range(500):
                made.send(name, b"%d is not %d" % (value, value * 7) * 10)
            made.flush(10)
            sizes.append(sum(each.size for each in read_batches(own_broker, name)))
        assert sizes[1] < sizes[0] * 0.8


class TestSizes:
    @shows("max_request_size")
    def test_a_record_above_it_is_refused(self, producer: MakeProducer, topic: MakeTopic) -> None:
        name, made = topic(), producer(max_request_size=10_000)
        with pytest.raises(errors.MessageSizeTooLargeError, match="max_request_size=10000"):
            made.send(name, bytes(10_000))
        assert made.send(name, bytes(9_800)).get(10).offset == 0

    def test_requests_stay_below_it(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name = topic(8)
        made = producer(max_request_size=10_000, batch_size=4_000, linger_ms=300)
        made.partitions_for(name)
        for number in range(160):
            made.send(name, bytes(900), partition=number % 8)
        made.flush(20)
        requests = relay.requests(PRODUCE)
        assert max(each.size for each in requests) <= 10_000
        assert max(each.size for each in requests) > 4_500, "more than one batch a request"

    @shows("buffer_memory", "max_block_ms")
    def test_a_full_buffer(self, producer: MakeProducer, topic: MakeTopic, relay: Relay) -> None:
        name, made = topic(), producer(buffer_memory=200_000, max_block_ms=300, batch_size=20_000)
        made.send(name, b"v").get(10)
        relay.silent = True
        futures, took = [], [0.0]

        def fill() -> None:
            for _ in range(300):
                began = time.monotonic()
                try:
                    futures.append(made.send(name, bytes(1000)))
                finally:
                    took.append(time.monotonic() - began)

        with pytest.raises(errors.KafkaTimeoutError, match="buffer_memory=200000"):
            fill()
        check_time("max_block_ms=300", took[-1], 0.3, at_least_s=0.3, slack_s=0.7, early_s=0.02)
        assert 100 < len(futures) <= 200
        relay.silent = False
        made.flush(10)
        assert [future.get(0).offset for future in futures] == list(range(1, len(futures) + 1))

    @shows("receive_message_max_bytes")
    def test_a_larger_response_ends_its_connection(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        topic()
        with pytest.raises(errors.KafkaTimeoutError, match="receive_message_max_bytes"):
            producer(receive_message_max_bytes=100, bootstrap_timeout_ms=1000)
        assert relay.connections[0].closed
        assert producer(receive_message_max_bytes=100_000).config["receive_message_max_bytes"]


@shows("allow_auto_create_topics")
@pytest.mark.parametrize("allow", [True, False])
def test_allow_auto_create_topics(producer: MakeProducer, relay: Relay, allow: bool) -> None:
    made = producer(allow_auto_create_topics=allow, max_block_ms=15_000 if allow else 700)
    if allow:
        assert made.send(f"asked-{allow}", b"v").get(10).offset == 0
        return
    with in_time("max_block_ms=700", 0.7, at_least_s=0.7, slack_s=0.8):
        with pytest.raises(errors.KafkaTimeoutError, match="asked-False"):
            made.send(f"asked-{allow}", b"v")
    assert len(relay.requests(METADATA)) >= 2
