"""`stats()` against the known counts of a run: where every record is, at every moment that the sending thread looks."""

from __future__ import annotations

import logging
import os
import time
import uuid

import pytest
from patience import check_time, eventually

from fastprod import FutureRecordMetadata, KafkaProducer, ProducerStats
from fastprod.stats import LatencyHistogram, Tally
from fastprod.testing import KafkaBroker, ScriptedBroker
from fastprod.testing.scripted.releases import Api

from .conftest import Make

TOO_LARGE, NOT_LEADER, BAD_TIMESTAMP = 10, 6, 32


def whole(stats: ProducerStats) -> Tally:
    """All there is of the records, wherever they are."""
    places = (stats.queued, stats.in_flight, stats.acknowledged, stats.failed)
    assert min(min(each) for each in places) >= 0, stats
    return Tally(sum(each.records for each in places), sum(each.bytes for each in places))


def look(producer: KafkaProducer, sent: int) -> ProducerStats:
    """A snapshot in which every record that was sent is somewhere, exactly once."""
    stats = producer.stats()
    assert whole(stats) == stats.accepted
    assert stats.accepted.records == sent
    return stats


def ended(futures: list[FutureRecordMetadata]) -> tuple[int, int]:
    failed = sum(future.failed() for future in futures)
    return len(futures) - failed, failed


def test_every_record_is_somewhere_while_things_go_wrong(broker: ScriptedBroker, make: Make) -> None:
    producer = make(linger_ms=1)
    broker.on_produce("t", 0, times=3).refuse(NOT_LEADER)
    broker.on_produce("t", 1, times=2).refuse(TOO_LARGE)
    broker.on_produce("t", 2, times=4).refuse(BAD_TIMESTAMP)
    broker.on(Api.PRODUCE, times=2).drop()
    futures = []
    for number in range(3_000):
        futures.append(producer.send("t", b"v" * (number % 50), key=b"k", partition=number % 3))
        look(producer, number + 1)
    producer.flush()
    stats = look(producer, len(futures))
    acknowledged, failed = ended(futures)
    assert failed > 0
    assert (stats.acknowledged.records, stats.failed.records) == (acknowledged, failed)
    assert stats.queued == stats.in_flight == Tally(0, 0)
    assert stats.retried.records > 0
    assert stats.topics["t"].records_failed == failed
    assert stats.topics["t"].records_retried == stats.retried.records


def test_queued_and_in_flight_are_told_apart(broker: ScriptedBroker, make: Make) -> None:
    producer = make(max_in_flight_requests_per_connection=1)
    broker.by_hand = True
    first = producer.send("other", b"first")
    held = broker.next_produce()
    second = producer.send("other", b"seconds")
    stats = look(producer, 2)
    assert stats.in_flight.records == 1
    assert stats.queued.records == 1
    # Length, attributes, two deltas, no key, value length, header count: 7 bytes beside a short value.
    assert (stats.in_flight.bytes, stats.queued.bytes) == (7 + 5, 7 + 7)
    assert stats.memory_limit == 33_554_432
    assert 0 < stats.memory_used <= stats.memory_limit
    assert sum(each.in_flight for each in stats.brokers.values()) == 1
    held.answer()
    first.get(10)
    broker.by_hand = False
    second.get(10)
    stats = look(producer, 2)
    assert stats.acknowledged == Tally(2, 26)
    assert stats.memory_used == 0


def test_a_batch_that_waits_for_its_retry_is_queued_and_one_that_expires_has_failed(
    broker: ScriptedBroker, make: Make
) -> None:
    producer = make(retry_backoff_ms=60_000, delivery_timeout_ms=1_500, request_timeout_ms=1_000)
    broker.on_produce("other").refuse(NOT_LEADER)
    future = producer.send("other", b"value")

    def refused() -> bool:
        seen = look(producer, 1)
        return bool(seen.topics["other"].batches) and not seen.in_flight.records

    eventually(refused)
    if not future.is_done:
        assert look(producer, 1).queued.records + look(producer, 1).failed.records >= 1
    producer.flush(20)
    stats = look(producer, 1)
    assert stats.failed == Tally(1, 12)
    assert stats.unread_failures == 1


def test_expired_in_flight_counts_once_when_its_answer_comes_late(broker: ScriptedBroker, make: Make) -> None:
    producer = make(delivery_timeout_ms=600, request_timeout_ms=500, linger_ms=0, acks=1)
    broker.by_hand = True
    future = producer.send("other", b"value")
    held = broker.next_produce()
    assert look(producer, 1).in_flight.records == 1
    producer.flush(20)
    assert future.failed()
    assert look(producer, 1).failed.records == 1
    held.answer()
    broker.by_hand = False
    producer.send("other", b"value").get(10)
    stats = look(producer, 2)
    assert (stats.acknowledged.records, stats.failed.records) == (1, 1)
    assert stats.in_flight == Tally(0, 0)


def test_batches_of_a_topic_and_requests_of_a_broker(broker: ScriptedBroker, make: Make) -> None:
    producer = make(linger_ms=200, max_in_flight_requests_per_connection=1)
    for records in (1, 4):
        for _ in range(records):
            producer.send("other", b"x" * 100)
        producer.flush()
    stats = producer.stats()
    topic = stats.topics["other"]
    sizes = [batch.size for batch in broker.batches] if hasattr(broker.batches[0], "size") else None
    assert (topic.batches, topic.records) == (2, 5)
    assert topic.records_per_batch == 2.5
    assert topic.batch_bytes_mean == topic.batch_bytes / 2
    assert topic.batch_bytes_max < topic.batch_bytes < 2 * topic.batch_bytes_max
    assert sizes is None or topic.batch_bytes == sum(sizes)
    (node,) = (each for each in stats.brokers.values() if each.requests)
    assert (node.requests, node.responses, node.latency.total) == (2, 2, 2)
    assert node.request_bytes > topic.batch_bytes
    assert node.response_bytes > 0


def test_latency_is_that_of_the_broker(broker: ScriptedBroker, make: Make) -> None:
    producer = make()
    broker.on(Api.PRODUCE).answer(delay_s=0.2)
    producer.send("other", b"slow").get(10)
    before = producer.stats()
    (slow,) = (each.latency for each in before.brokers.values() if each.latency.total)
    assert 200 <= slow.p50_ms < 2_000
    assert slow.p50_ms == slow.p99_ms


def test_looking_does_not_disturb_metrics(broker: ScriptedBroker, make: Make) -> None:
    producer = make()
    producer.send("other", b"x" * 1_000).get(10)
    for _ in range(3):
        producer.stats()
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["batch-size-max"] > 1_000


def test_after_close_it_says_how_it_ended(broker: ScriptedBroker, make: Make) -> None:
    producer = make()
    producer.send("other", b"value").get(10)
    broker.by_hand = True
    producer.send("other", b"never")
    broker.next_produce()
    with pytest.raises(Exception, match=r"1 record\(s\) could not be delivered"):
        producer.close(0)
    stats = look(producer, 2)
    assert (stats.acknowledged.records, stats.failed.records) == (1, 1)
    assert stats.queued == stats.in_flight == Tally(0, 0)


# Failures that nobody looks at


def test_a_failure_is_unread_until_somebody_has_seen_it(broker: ScriptedBroker, make: Make) -> None:
    producer = make(linger_ms=100)
    broker.on_produce("t").refuse(BAD_TIMESTAMP)
    seen: list[object] = []
    futures = [producer.send("t", b"v", partition=0) for _ in range(8)]
    futures[0].add_errback(seen.append)
    futures[1].add_callback(seen.append)
    producer.flush()
    assert len(seen) == 1
    assert producer.stats().unread_failures == 7
    with pytest.raises(Exception, match="timestamp"):
        futures[2].get()
    assert futures[3].exception is not None
    assert futures[4].failed()
    assert not futures[5].succeeded()
    for future in futures[2:6]:
        assert future.failed()  # a second look counts no more
    assert producer.stats().unread_failures == 3
    assert producer.stats().failed.records == 8


def test_dropped_failures_are_logged_once_with_an_example(
    broker: ScriptedBroker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make(linger_ms=50)
    broker.on_produce("t", 1).refuse(BAD_TIMESTAMP)
    for _ in range(5):
        producer.send("t", b"v", partition=1)
    producer.send("t", b"v", partition=0)
    kept = producer.send("t", b"v", partition=1)
    assert kept.failed() is False
    del kept
    with caplog.at_level(logging.WARNING, "fastprod"):
        producer.close()
    (told,) = (each.getMessage() for each in caplog.records if "nobody looked" in each.getMessage())
    assert "6 record(s) failed" in told
    assert "Topic 't' partition 1" in told
    assert producer.stats().unread_failures == 6


def test_the_example_is_a_record_that_was_at_fault(
    broker: ScriptedBroker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make(linger_ms=500)
    broker.on_produce("t", 1).refuse(BAD_TIMESTAMP, record_errors=((1, "far too late"),))
    for _ in range(3):
        producer.send("t", b"v", partition=1)
    with caplog.at_level(logging.WARNING, "fastprod"):
        producer.close()
    (told,) = (each.getMessage() for each in caplog.records if "nobody looked" in each.getMessage())
    assert "3 record(s) failed" in told
    assert "One of them: [Error 32] InvalidTimestampError: Record 1 of the batch:" in told
    assert "far too late" in told


def test_what_is_let_go_of_while_it_closes_is_told_of(
    broker: ScriptedBroker, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = make()
    broker.on_produce("t", 1).refuse(BAD_TIMESTAMP)
    kept = [producer.send("t", b"v", partition=1)]
    thread = producer._engine._thread
    join = thread.join

    def late(timeout_s: float) -> bool:
        ended = join(timeout_s)
        kept.clear()
        return ended

    monkeypatch.setattr(thread, "join", late)
    with caplog.at_level(logging.WARNING, "fastprod"):
        producer.close()
    (told,) = (each.getMessage() for each in caplog.records if "nobody looked" in each.getMessage())
    assert "1 record(s) failed" in told


def test_while_it_runs_they_are_told_of_once_in_a_while(
    broker: ScriptedBroker, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastprod.control.producer._UNREAD_S", 0.5)
    producer = make()
    broker.on_produce("t", 1).refuse(BAD_TIMESTAMP)
    with caplog.at_level(logging.WARNING, "fastprod"):
        for _ in range(12):
            producer.send("t", b"v", partition=1)
            time.sleep(0.1)
        told = [each.getMessage() for each in caplog.records if "nobody looked" in each.getMessage()]
    assert 1 <= len(told) <= 4, told


def test_a_forked_child_begins_at_nothing(broker: ScriptedBroker, make: Make) -> None:
    producer = make()
    producer.send("other", b"value").get(10)
    child = os.fork()
    if not child:
        os._exit(0 if producer.stats().accepted == Tally(0, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert look(producer, 1).acknowledged.records == 1


def test_nothing_is_said_of_failures_that_were_seen(
    broker: ScriptedBroker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make()
    broker.on_produce("t", 1).refuse(BAD_TIMESTAMP)
    seen: list[object] = []
    for _ in range(5):
        producer.send("t", b"v", partition=1).add_errback(seen.append)
    producer.flush()
    with caplog.at_level(logging.WARNING, "fastprod"):
        producer.close()
    assert len(seen) == 5
    assert not [each for each in caplog.records if "nobody looked" in each.getMessage()]
    assert producer.stats().unread_failures == 0


# The histogram


@pytest.mark.parametrize("bucket", range(207))
def test_buckets_meet_and_are_narrow(bucket: int) -> None:
    lower, upper = LatencyHistogram.lower_ms(bucket), LatencyHistogram.upper_ms(bucket)
    assert lower < upper == LatencyHistogram.lower_ms(bucket + 1)
    assert upper - lower <= max(lower / 8, 0.001) * 1.000001


def test_percentiles() -> None:
    counts = [0] * 208
    counts[10], counts[100] = 98, 2
    histogram = LatencyHistogram(tuple(counts))
    assert histogram.total == 100
    assert histogram.p50_ms == histogram.percentile_ms(98) == LatencyHistogram.upper_ms(10)
    assert histogram.p99_ms == LatencyHistogram.upper_ms(100)
    assert (histogram - histogram).percentile_ms(50) == 0.0
    with pytest.raises(ValueError, match="percent"):
        histogram.percentile_ms(101)


# A real broker


def test_exact_on_a_real_broker(kafka_broker: KafkaBroker) -> None:
    topic = f"stats-{uuid.uuid4().hex[:8]}"
    kafka_broker.create_topic(topic, partitions=3, config={"max.message.bytes": "20000"})
    with KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, batch_size=60_000) as producer:
        futures = []
        for number in range(5_000):
            # Too large for the topic now and then; all others are split until they fit.
            size = 30_000 if number % 1_000 == 999 else 200
            futures.append(producer.send(topic, b"v" * size, partition=number % 3))
            if number % 7 == 0:
                look(producer, number + 1)
        producer.flush()
        stats = look(producer, 5_000)
        assert stats.unread_failures == 5
        assert ended(futures) == (stats.acknowledged.records, stats.failed.records) == (4_995, 5)
        assert producer.stats().unread_failures == 0
        began = time.perf_counter()
        for _ in range(100):
            producer.stats()
        # A hundredth of what "each second" allows.
        check_time("stats() a hundred times", time.perf_counter() - began, 100 * 0.01, slack_s=0)
