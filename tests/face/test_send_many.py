"""`send_many` on a real broker, read back with confluent-kafka: what BatchFuture says is what the log holds."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from array import array
from typing import Any

import pytest
from conftest import MakeProducer, MakeTopic
from patience import eventually
from reading import Read, read_topic

from fastprod import BatchFuture, BatchMetadata, errors
from fastprod.testing import KafkaBroker
from fastprod.types import TopicPartition

PARTITIONS = 4


def by_place(records: list[Read]) -> dict[tuple[int, int], Read]:
    return {(each.partition, each.offset): each for each in records}


def test_the_metadata_is_what_the_log_holds(
    producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
) -> None:
    """Keys, nulls, headers, times and partitions of all sorts, over several batches a partition."""
    chance = random.Random(1)
    name, count = topic(PARTITIONS), 30_000
    values = [None if n % 7 == 3 else chance.randbytes(chance.randrange(200)) for n in range(count)]
    keys = [chance.choice([b"k%d" % (n % 50), b"always"]) if n % 7 == 3 or n % 3 else None for n in range(count)]
    headers = [chance.choice([None, [], [("n", b"%d" % n), ("empty", b"")]]) for n in range(count)]
    partitions = [chance.choice([None, 0, 1, 2, 3]) for _ in range(count)]
    times = [1_700_000_000_000 + chance.randrange(-5_000, 5_000) for _ in range(count)]
    made = producer(batch_size=100_000)
    future = made.send_many(name, values, keys, headers=headers, partition=partitions, timestamp_ms=times)
    outcome = future.get(60)
    assert isinstance(future, BatchFuture)
    assert isinstance(outcome, BatchMetadata)
    assert (len(future), future.is_done, future.succeeded(), future.failed()) == (count, True, True, False)
    assert outcome.errors == {}
    log = by_place(read_topic(own_broker, name, count, PARTITIONS))
    assert len(log) == count
    last = [-1] * PARTITIONS
    for n in range(count):
        partition, offset = outcome.partitions[n], outcome.offsets[n]
        found = log[partition, offset]
        assert (found.value, found.key, found.timestamp) == (values[n], keys[n], times[n])
        assert found.headers == (headers[n] or [])
        assert outcome.timestamps[n] == times[n]
        assert partitions[n] in (None, partition)
        assert offset > last[partition], "in the order of the call"
        last[partition] = offset
    for n in (0, 3, 12_345, -1):
        metadata = future[n]
        assert metadata.topic_partition == TopicPartition(name, outcome.partitions[n])
        assert (metadata.topic, metadata.partition) == metadata.topic_partition
        assert (metadata.offset, metadata.timestamp) == (outcome.offsets[n], outcome.timestamps[n])
        payload = sum(len(key) + len(value) for key, value in headers[n] or []) if headers[n] else -1
        sizes = [-1 if each is None else len(each) for each in (keys[n], values[n])]
        assert list(metadata[6:]) == [*sizes, payload]
    for past in (count, -count - 1):
        with pytest.raises(IndexError):
            future[past]


def test_one_by_one_and_all_at_once_go_to_the_same_partitions(producer: MakeProducer, topic: MakeTopic) -> None:
    name = topic(PARTITIONS)
    made = producer()
    keys = [b"key-%d" % n for n in range(200)]
    alone = [made.send(name, b"v", key).get(10).partition for key in keys]
    assert list(made.send_many(name, [b"v"] * 200, keys).get(10).partitions) == alone


def test_broker_time(producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker) -> None:
    """Where the topic has the broker's time, that is what is told."""
    name = topic(1, message_timestamp_type="LogAppendTime")
    outcome = producer().send_many(name, [b"a", b"b"], timestamp_ms=5).get(10)
    stamps = {each.timestamp for each in read_topic(own_broker, name, 2)}
    assert set(outcome.timestamps) == stamps
    assert 5 not in stamps


def test_arrays_are_read_without_a_copy(producer: MakeProducer, topic: MakeTopic) -> None:
    outcome = producer().send_many(topic(), [b"a", b"b"], partition=0, timestamp_ms=[7, 8]).get(10)
    for column, kind, size in zip(outcome[:3], "iqq", (4, 8, 8), strict=True):
        view = memoryview(column)
        assert (view.format, view.itemsize, view.nbytes) == (kind, size, 2 * size)
    assert array("q", [0, 1]) == outcome.offsets
    numpy = pytest.importorskip("numpy")
    offsets = numpy.asarray(outcome.offsets)
    assert (offsets.dtype, offsets.tolist()) == (numpy.dtype("int64"), [0, 1])
    assert numpy.shares_memory(offsets, numpy.asarray(memoryview(outcome.offsets)))
    assert numpy.asarray(outcome.partitions).dtype == numpy.dtype("int32")


def test_serializers_apply(producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker) -> None:
    name = topic()
    made = producer(value_serializer=lambda each: json.dumps(each).encode(), key_serializer=str.encode)
    made.send_many(name, [{"n": n} for n in range(3)], (f"k{n}" for n in range(3)), partition=0).get(10)
    found = read_topic(own_broker, name, 3)
    assert [(each.key, each.value) for each in found] == [(b"k%d" % n, b'{"n": %d}' % n) for n in range(3)]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy"])
def test_compressed(producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker, codec: str) -> None:
    name = topic(2)
    values = [b"value %d" % n * 5 for n in range(20_000)]
    outcome = producer(compression_type=codec).send_many(name, values).get(30)
    log = by_place(read_topic(own_broker, name, len(values), 2))
    assert [log[place].value for place in zip(outcome.partitions, outcome.offsets, strict=True)] == values


def test_acks_zero_tells_no_offsets(producer: MakeProducer, topic: MakeTopic) -> None:
    outcome = producer(acks=0).send_many(topic(), [b"a", b"b"], partition=0).get(10)
    assert (list(outcome.offsets), list(outcome.partitions)) == ([-1, -1], [0, 0])
    assert outcome.errors == {}


def test_more_than_the_memory_waits_for_room(
    producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
) -> None:
    """The call takes ten times what the buffer holds, as a loop of `send` would."""
    name = topic(3)
    made = producer(buffer_memory=2_000_000, batch_size=100_000)
    outcome = made.send_many(name, [b"%06d" % n + bytes(94) for n in range(200_000)]).get(60)
    assert sum(1 for offset in outcome.offsets if offset >= 0) == 200_000
    assert sum(own_broker.end_offset(name, n) for n in range(3)) == 200_000


class TestCallbacks:
    def test_once_with_the_metadata(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer(batch_size=10_000)
        calls: list[Any] = []
        threads: list[str] = []

        def tell(*arguments: Any, **keywords: Any) -> None:
            calls.append((arguments, keywords))
            threads.append(threading.current_thread().name)

        future = made.send_many(topic(3), [b"v" * 100] * 5_000, [b"%d" % n for n in range(5_000)])
        assert future.add_callback(tell, 1, two=2) is future
        future.add_errback(tell, "not called")
        future.add_both(tell)
        outcome = future.get(20)
        made.flush(10)
        eventually(lambda: len(calls) == 2)
        assert calls == [((1, outcome), {"two": 2}), ((outcome,), {})]
        assert {each.endswith("-network-thread") for each in threads} <= {True}
        future.add_both(tell, "late")
        assert calls[2] == (("late", outcome), {})
        assert threads[2] == threading.current_thread().name
        with pytest.raises(TypeError, match="must be callable"):
            future.add_callback(None)

    def test_what_it_raises_goes_no_further(
        self, producer: MakeProducer, topic: MakeTopic, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = producer()
        calls: list[Any] = []
        future = made.send_many(topic(), [b"v"]).add_both(lambda _: 1 / 0).add_both(calls.append)
        future.get(10)
        eventually(lambda: calls)
        assert "ZeroDivisionError" in caplog.text
        future.add_both(lambda _: 1 / 0).add_both(calls.append)
        assert len(calls) == 2

    def test_dropped_futures_still_call(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer()
        calls: list[Any] = []
        made.send_many(topic(), [b"v"] * 3).add_callback(calls.append)
        made.flush(10)
        eventually(lambda: calls)
        assert list(calls[0].offsets) == [0, 1, 2]

    def test_send_many_in_a_callback(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made, name = producer(), topic()
        futures: list[Any] = []
        made.send_many(name, [b"a"]).add_callback(lambda _: futures.append(made.send_many(name, [b"b", b"c"])))
        eventually(lambda: futures)
        assert list(futures[0].get(10).offsets) == [1, 2]


class TestAsyncio:
    def test_await(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made, name = producer(), topic()

        async def several() -> list[BatchMetadata]:
            return await asyncio.gather(*(self.one(made, name, n) for n in range(5)))

        outcomes = asyncio.run(several())
        assert sorted(offset for each in outcomes for offset in each.offsets) == list(range(10))

    async def one(self, made: Any, name: str, n: int) -> Any:
        return await made.send_many(name, [b"%d" % n] * 2)

    def test_a_failure(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made, name = producer(), topic(max_message_bytes=1_000)

        async def fail() -> None:
            await made.send_many(name, [b"x" * 5_000])

        with pytest.raises(errors.BatchDeliveryError):
            asyncio.run(fail())

    def test_giving_up(self, producer: MakeProducer, topic: MakeTopic, relay: Any) -> None:
        """Who no longer waits does no harm, and the records go on."""
        made, name = producer(), topic()
        made.send(name, b"first").get(10)
        relay.silent = True
        future = made.send_many(name, [b"late"])

        async def give_up() -> None:
            await asyncio.wait_for(future, 0.05)

        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            asyncio.run(give_up())
        relay.reset()
        assert list(future.get(20).offsets) == [1]


class TestFailures:
    def test_some_fail(self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker) -> None:
        """One record is larger than the topic takes: it fails alone, the others are written."""
        name = topic(1, max_message_bytes=2_000)
        future = producer().send_many(name, [b"a" * 100, b"b" * 5_000, b"c" * 100])
        with pytest.raises(errors.BatchDeliveryError, match=r"1 of 3 records .* record 1: ") as raised:
            future.get(20)
        outcome = raised.value.metadata
        assert raised.value.maybe_written is False
        assert list(outcome.errors) == [1]
        assert isinstance(outcome.errors[1], errors.MessageSizeTooLargeError)
        assert (list(outcome.offsets), list(outcome.partitions)) == ([0, -1, 1], [0, -1, 0])
        assert outcome.timestamps[1] == -1
        assert future.failed()
        assert not future.succeeded()
        assert future[2].offset == 1
        with pytest.raises(errors.MessageSizeTooLargeError):
            future[1]
        assert [each.value for each in read_topic(own_broker, name, 2)] == [b"a" * 100, b"c" * 100]
        calls: list[Any] = []
        future.add_callback(calls.append).add_errback(calls.append)
        assert calls == [outcome]

    def test_not_in_time(self, producer: MakeProducer, topic: MakeTopic, relay: Any) -> None:
        made, name = producer(), topic()
        made.send(name, b"first").get(10)
        relay.silent = True
        future = made.send_many(name, [b"v"] * 3)
        with pytest.raises(errors.KafkaTimeoutError, match=r"Timeout after waiting for 0\.05 secs"):
            future.get(0.05)
        assert repr(future) == "<BatchFuture of 3 records, pending>"
        assert not future.succeeded()
        assert not future.failed()
        with pytest.raises(errors.IllegalStateError, match="Not all records are done"):
            future[0]
        relay.reset()
        assert list(future.get(20).offsets) == [1, 2, 3]

    def test_closed_with_records_left(self, producer: MakeProducer, topic: MakeTopic, relay: Any) -> None:
        made, name = producer(), topic()
        made.send(name, b"first").get(10)
        relay.silent = True
        future = made.send_many(name, [b"v", b"w"], [b"k", b"l"])
        with pytest.raises(errors.KafkaTimeoutError):
            made.close(0.2)
        assert [each.value for each in made.undelivered()] == [b"v", b"w"]
        with pytest.raises(errors.BatchDeliveryError, match="2 of 2") as raised:
            future.get(0)
        assert {type(each) for each in raised.value.metadata.errors.values()} == {errors.IllegalStateError}


def test_threads(producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker) -> None:
    """Many calls at once, of keyed and keyless records: all there once, in the order of each call."""
    name, calls, size = topic(PARTITIONS), 12, 1_500
    made = producer(batch_size=20_000)
    futures: dict[tuple[int, int], BatchFuture] = {}

    def work(thread: int) -> None:
        for call in range(calls):
            values = [b"%d %d %d" % (thread, call, n) for n in range(size)]
            keys = [b"%d" % (n % 9) for n in range(size)] if call % 2 else None
            futures[thread, call] = made.send_many(name, values, keys)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    outcomes = {which: future.get(60) for which, future in futures.items()}
    log = by_place(read_topic(own_broker, name, 4 * calls * size, PARTITIONS, 60))
    assert len(log) == 4 * calls * size
    for (thread, call), outcome in outcomes.items():
        places = list(zip(outcome.partitions, outcome.offsets, strict=True))
        assert [log[place].value for place in places] == [b"%d %d %d" % (thread, call, n) for n in range(size)]
        for partition in range(PARTITIONS):
            mine = [offset for where, offset in places if where == partition]
            assert mine == sorted(mine)


def test_a_busy_thread_gets_its_turn(producer: MakeProducer, topic: MakeTopic) -> None:
    """A long call lets the interpreter go now and then."""
    made, name = producer(buffer_memory=400_000_000), topic()
    made.send(name, b"first").get(10)
    turns = [0]
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            turns[0] += 1
            time.sleep(0)

    beside = threading.Thread(target=count)
    beside.start()
    eventually(lambda: turns[0] > 10)
    values = [b"v" * 100] * 1_000_000
    before = turns[0]
    future = made.send_many(name, values)
    after = turns[0]
    over.set()
    beside.join()
    assert after > before
    future.get(60)
