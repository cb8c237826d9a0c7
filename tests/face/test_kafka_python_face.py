"""KafkaProducer as programs use it, on a real broker: sending, flushing, closing, being dropped."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import pytest
from conftest import MakeProducer, MakeTopic
from patience import check_time, eventually, in_time
from reading import read_topic
from recording import PRODUCE, Relay
from theirs import kafka_errors

from fastprod import KafkaProducer, errors
from fastprod.serializers import Serializer
from fastprod.testing import KafkaBroker
from fastprod.types import RecordMetadata, TopicPartition


class TestSending:
    def test_a_record_arrives_whole(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name = topic(3)
        sent = producer().send(
            name,
            b"value",
            b"key",
            headers=[("h", b"1"), ("h", b"")],
            partition=2,
            timestamp_ms=1234,
        )
        assert sent.get(10) == RecordMetadata(
            name, 2, TopicPartition(name, 2), 0, 1234, None, 3, 5, 3
        )
        (read,) = read_topic(own_broker, name, 1, partitions=3)
        assert (read.partition, read.offset, read.key, read.value) == (2, 0, b"key", b"value")
        assert (read.headers, read.timestamp) == ([("h", b"1"), ("h", b"")], 1234)

    def test_order_and_number(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name = topic()
        made = producer()
        futures = [made.send(name, b"%d" % number) for number in range(5000)]
        made.flush(20)
        assert [future.get(0).offset for future in futures] == list(range(5000))
        read = read_topic(own_broker, name, 5000)
        assert [each.value for each in read] == [b"%d" % number for number in range(5000)]

    def test_tombstones_and_empty_fields(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name, made = topic(), producer()
        for value, key in ((None, b"k"), (b"", b""), (b"v", None)):
            made.send(name, value, key)
        made.flush(10)
        read = read_topic(own_broker, name, 3)
        assert [(each.value, each.key) for each in read] == [(None, b"k"), (b"", b""), (b"v", None)]

    def test_many_threads(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name, made = topic(4), producer()

        def work(thread: int) -> None:
            for number in range(500):
                made.send(name, b"%d" % number, b"%d" % thread)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made.flush(20)
        read = read_topic(own_broker, name, 4000, partitions=4)
        for number in range(8):
            mine = [each.value for each in read if each.key == b"%d" % number]
            assert mine == [b"%d" % each for each in range(500)]

    def test_one_thread_with_the_client_s_name(
        self, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        made = producer(client_id="watched")
        names: list[str] = []
        future = made.send(topic(), b"v")
        future.add_callback(lambda _: names.append(threading.current_thread().name))
        made.flush(10)
        assert names == ["watched-network-thread"]
        threads = [t for t in threading.enumerate() if t.name == "watched-network-thread"]
        assert len(threads) == 1
        assert threads[0].daemon
        made.close(5)
        eventually(lambda: not threads[0].is_alive())

    def test_errors_of_the_broker_come_through_the_future(
        self, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        name = topic(max_message_bytes=1000)
        future = producer().send(name, bytes(5000))
        with pytest.raises(kafka_errors.MessageSizeTooLargeError) as caught:
            future.get(10)
        assert isinstance(caught.value, errors.MessageSizeTooLargeError)
        assert future.failed()
        assert future.exception is caught.value

    def test_a_closed_producer_refuses(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer()
        made.close(5)
        with pytest.raises(errors.IllegalStateError):
            made.send(topic(), b"v")

    def test_topics_are_created_when_asked_for(
        self, producer: MakeProducer, own_broker: KafkaBroker
    ) -> None:
        assert producer().send("made-by-send", b"v").get(20).offset == 0
        assert own_broker.end_offset("made-by-send") == 1


class TestSerializers:
    def test_they_apply_and_are_closed_once(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        class Mine(Serializer):
            closed = 0

            def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
                headers.append(("t", topic.encode()))
                return str(data).encode()

            def close(self) -> None:
                self.closed += 1

        name, mine = topic(), Mine()
        made = producer(value_serializer=mine, key_serializer=lambda key: b"k%d" % key)
        future = made.send(name, 5, 7)
        assert future.get(10).serialized_header_size == 1 + len(name)
        (read,) = read_topic(own_broker, name, 1)
        assert (read.key, read.value, read.headers) == (b"k7", b"5", [("t", name.encode())])
        made.close(5)
        made.close(5)
        assert mine.closed == 1
        both = Mine()
        producer(value_serializer=both, key_serializer=both).close(5)
        assert both.closed == 1

    def test_what_they_raise_comes_out_of_send(
        self, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        made = producer(value_serializer=str.encode)
        with pytest.raises(TypeError):
            made.send(topic(), 5)


class TestFlush:
    def test_flush_does_not_wait_for_linger(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer(linger_ms=30_000)
        future = made.send(topic(), b"v")
        time.sleep(0.2)
        assert not future.is_done
        made.flush(10)
        assert future.succeeded()

    def test_callbacks_have_run(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made, name, seen = producer(), topic(), []

        def slow(number: int, _: object) -> None:
            time.sleep(0.01)
            seen.append(number)

        for number in range(20):
            made.send(name, b"v").add_callback(slow, number)
        made.flush(10)
        assert seen == list(range(20))

    def test_time_runs_out_and_nothing_is_lost(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        made, name = producer(), topic()
        made.send(name, b"0").get(10)
        relay.silent = True
        future = made.send(name, b"1")
        with in_time("flush(0.3)", 0.3, at_least_s=0.3, slack_s=1.7):
            with pytest.raises(kafka_errors.KafkaTimeoutError, match=r"flush\(\)"):
                made.flush(0.3)
        relay.silent = False
        made.flush(10)
        assert future.get(0).offset == 1

    def test_flush_after_close_does_nothing(self, producer: MakeProducer) -> None:
        made = producer()
        made.close(5)
        made.flush(1)

    @pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), 1e300])
    def test_timeouts_are_checked(self, producer: MakeProducer, bad: float) -> None:
        made = producer()
        for call in (made.close,) if bad == float("inf") else (made.flush, made.close):
            with pytest.raises(ValueError, match="timeout"):
                call(bad)
        made.flush(1)


class TestClose:
    def test_close_delivers(
        self, producer: MakeProducer, topic: MakeTopic, own_broker: KafkaBroker
    ) -> None:
        name, made = topic(), producer(linger_ms=60_000)
        futures = [made.send(name, b"%d" % number) for number in range(100)]
        made.close()
        assert [future.get(0).offset for future in futures] == list(range(100))
        assert own_broker.end_offset(name) == 100
        assert made.undelivered() == []

    def test_time_runs_out_after_everything_is_cleaned_up(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay
    ) -> None:
        name, made = topic(), producer(client_id="late")
        made.send(name, b"before").get(10)
        relay.silent = True
        headers: Any = [("h", b"x")]
        futures = [made.send(name, b"%d" % n, b"k", headers, 0, 1000 + n) for n in range(3)]
        eventually(lambda: len(relay.requests(PRODUCE)) >= 2)
        with in_time("close(0.3)", 0.3, at_least_s=0.3, slack_s=1.2):
            with pytest.raises(kafka_errors.KafkaTimeoutError, match="undelivered"):
                made.close(0.3)
        assert all(isinstance(each.exception, errors.IllegalStateError) for each in futures)
        left = made.undelivered()
        assert [(r.topic, r.partition, r.key, r.headers) for r in left] == [
            (name, 0, b"k", [("h", b"x")])
        ] * 3
        assert [(r.value, r.timestamp_ms) for r in left] == [
            (b"%d" % n, 1000 + n) for n in range(3)
        ]
        assert left[0].maybe_written
        assert all(isinstance(each.error, errors.IllegalStateError) for each in left)
        eventually(lambda: "late-network-thread" not in [t.name for t in threading.enumerate()])
        eventually(lambda: all(each.closed for each in relay.connections))
        made.close()
        with pytest.raises(errors.IllegalStateError):
            made.send(name, b"v")

    def test_close_0_with_nothing_waiting(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made = producer()
        made.send(topic(), b"v").get(10)
        made.flush(10)
        made.close(0)
        assert made.undelivered() == []

    def test_in_a_callback_it_acts_as_close_0(
        self, producer: MakeProducer, topic: MakeTopic
    ) -> None:
        made, took = producer(), []

        def close(_: object) -> None:
            began = time.monotonic()
            made.close(60)
            took.append(time.monotonic() - began)

        made.send(topic(), b"v").add_callback(close)
        eventually(lambda: took)
        check_time("close(60) in a callback", took[0], 0, slack_s=1)
        with pytest.raises(errors.IllegalStateError):
            made.send(topic(), b"v")

    def test_flush_in_a_callback_says_so(self, producer: MakeProducer, topic: MakeTopic) -> None:
        made, raised = producer(), []

        def flush(_: object) -> None:
            try:
                made.flush(5)
            except Exception as error:
                raised.append(error)

        made.send(topic(), b"v").add_callback(flush)
        made.flush(10)
        assert isinstance(raised[0], errors.IllegalStateError)

    def test_partitions_stay_known(self, producer: MakeProducer, topic: MakeTopic) -> None:
        name, made = topic(3), producer()
        first = made.partitions_for(name)
        assert first == {0, 1, 2}
        assert made.partitions_for(name) is not first
        made.close(5)
        assert made.partitions_for(name) == {0, 1, 2}


class TestWith:
    def test_it_closes(self, producer: MakeProducer, topic: MakeTopic) -> None:
        with producer(linger_ms=60_000) as made:
            future = made.send(topic(), b"v")
        assert future.succeeded()
        assert made._closed

    def test_an_exception_goes_on(
        self, producer: MakeProducer, topic: MakeTopic, relay: Relay, monkeypatch: Any
    ) -> None:
        made = producer(delivery_timeout_ms=60_000)
        name = topic()
        made.send(name, b"v").get(10)
        close = made.close
        monkeypatch.setattr(made, "close", lambda: close(0))
        relay.silent = True

        def program() -> None:
            with made:
                made.send(name, b"w")
                raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine") as caught:
            program()
        assert "1 record(s) could not be delivered" in "".join(caught.value.__notes__)
        assert made._closed


class TestBeingDropped:
    def test_what_was_sent_still_goes(
        self, topic: MakeTopic, relay: Relay, own_broker: KafkaBroker
    ) -> None:
        name = topic()
        made = KafkaProducer(bootstrap_servers=relay.address, client_id="dropped", linger_ms=500)
        future = made.send(name, b"v")
        gone = weakref.ref(made)
        del made
        gc.collect()
        assert gone() is None
        assert future.get(10).offset == 0
        eventually(lambda: "dropped-network-thread" not in [t.name for t in threading.enumerate()])
        eventually(lambda: all(each.closed for each in relay.connections))
        assert own_broker.end_offset(name) == 1

    def test_a_constructor_that_failed_leaves_nothing(self) -> None:
        before = threading.active_count()
        with pytest.raises(kafka_errors.KafkaTimeoutError, match="Unable to bootstrap from"):
            KafkaProducer(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=200)
        with pytest.raises(ValueError, match="acks"):
            KafkaProducer(acks=9)
        gc.collect()
        eventually(lambda: threading.active_count() <= before)
