"""The engine against a real Apache Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from patience import in_time

from fastprod import errors
from fastprod.testing import KafkaBroker

from .conftest import MakeSender


@pytest.fixture(scope="module")
def _own_broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def own_broker(_own_broker: KafkaBroker) -> KafkaBroker:
    """A broker that a test may stop and kill."""
    if not _own_broker.is_running():
        _own_broker.start()
    return _own_broker


def test_bootstrap_resolve_send_close(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    kafka_broker.create_topic("engine-basic", partitions=3)
    made = sender(kafka_broker.bootstrap_servers)
    assert made.engine.partitions_for("engine-basic") == {0, 1, 2}
    futures = [made.send("engine-basic", b"%d" % each, partition=each % 3) for each in range(300)]
    assert made.engine.flush(20)
    assert sorted({each.get(0).partition for each in futures}) == [0, 1, 2]
    assert [each.get(0).offset for each in futures[::3]] == list(range(100))
    assert len(made.engine.close(10)) == 0


def test_topic_made_on_demand(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    made = sender(kafka_broker.bootstrap_servers)
    assert made.send("engine-on-demand", b"v").get(20).offset == 0


def test_unknown_topic_that_must_not_be_made(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    made = sender(kafka_broker.bootstrap_servers, allow_auto_create_topics=False, max_block_ms=700)
    with pytest.raises(errors.KafkaTimeoutError, match="allow_auto_create_topics"):
        made.send("engine-never", b"v")


def test_internal_topic(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    made = sender(kafka_broker.bootstrap_servers, max_block_ms=1500)
    with pytest.raises((ValueError, errors.KafkaTimeoutError)):
        made.send("__consumer_offsets", b"v")


def test_without_waiting_for_bootstrap(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    made = sender(kafka_broker.bootstrap_servers, bootstrap=None)
    assert made.send("engine-lazy", b"v").get(20).offset == 0


def test_too_large_for_the_topic(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    kafka_broker.create_topic("engine-small", config={"max.message.bytes": "2000"})
    made = sender(kafka_broker.bootstrap_servers, linger_ms=100)
    futures = [made.send("engine-small", b"x" * 200) for _ in range(200)]
    assert made.engine.flush(30)
    assert [each.get(0).offset for each in futures] == list(range(200))
    with pytest.raises(errors.MessageSizeTooLargeError, match=r"max\.message\.bytes"):
        made.send("engine-small", b"x" * 3000).get(20)
    # The partition goes on under a newer epoch.
    assert made.send("engine-small", b"v").get(20).offset == 200


def test_compacted_topic_without_key(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    kafka_broker.create_topic("engine-compacted", config={"cleanup.policy": "compact"})
    made = sender(kafka_broker.bootstrap_servers, linger_ms=100)
    good = made.send("engine-compacted", b"v", key=b"k")
    bad = made.send("engine-compacted", b"v")
    with pytest.raises(errors.InvalidRecordError, match="Record 1 of the batch"):
        bad.get(20)
    with pytest.raises(errors.KafkaError, match="because of record 1"):
        good.get(20)
    assert made.send("engine-compacted", b"v", key=b"k").get(20).offset == 0


def test_deleted_and_created_again(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    kafka_broker.create_topic("engine-again", partitions=4)
    # The producer asks for the topic all the time: it must not be what creates it again.
    made = sender(kafka_broker.bootstrap_servers, metadata_max_age_ms=300, allow_auto_create_topics=False)
    for _ in range(5):
        made.send("engine-again", b"v", partition=0).get(20)
    kafka_broker.delete_topic("engine-again")
    kafka_broker.create_topic("engine-again", partitions=2)
    deadline = time.monotonic() + 20
    while made.engine.partitions_for("engine-again") != {0, 1} and time.monotonic() < deadline:
        time.sleep(0.05)
    offsets = [made.send("engine-again", b"v", partition=0).get(20).offset for _ in range(5)]
    assert offsets == list(range(5))


def test_broker_restart_loses_and_doubles_nothing(
    sender: MakeSender, own_broker: KafkaBroker
) -> None:
    own_broker.create_topic("engine-restart", partitions=2)
    made = sender(own_broker.bootstrap_servers, reconnect_backoff_max_ms=500)
    futures = [made.send("engine-restart", b"v", partition=each % 2) for each in range(100)]
    own_broker.stop()
    futures += [made.send("engine-restart", b"v", partition=each % 2) for each in range(100)]
    time.sleep(0.5)
    own_broker.start()
    assert made.engine.flush(60)
    for partition in (0, 1):
        offsets = [each.get(0).offset for each in futures if each.get(0).partition == partition]
        assert offsets == list(range(100))
        assert own_broker.end_offset("engine-restart", partition) == 100


def test_paused_broker_and_request_timeout(sender: MakeSender, own_broker: KafkaBroker) -> None:
    made = sender(
        own_broker.bootstrap_servers, request_timeout_ms=1000, reconnect_backoff_max_ms=500
    )
    made.send("engine-pause", b"v").get(20)
    sent = 1
    own_broker.pause()
    try:
        # The signal takes its time on a busy machine, and a record or two may still get through.
        while (future := made.send("engine-pause", b"v")) and sent < 50:
            sent += 1
            time.sleep(0.3)
            if not future.is_done:
                break
        time.sleep(2.5)
        assert not future.is_done
    finally:
        own_broker.resume()
    assert future.get(60).offset == sent - 1
    assert own_broker.end_offset("engine-pause") == sent


def test_close_while_the_broker_is_away(sender: MakeSender, own_broker: KafkaBroker) -> None:
    made = sender(own_broker.bootstrap_servers)
    made.send("engine-away", b"v").get(20)
    own_broker.kill()
    futures = [made.send("engine-away", b"%d" % each) for each in range(10)]
    with in_time("close(0.5)", 0.5, slack_s=0.6):
        left = made.engine.close(0.5)
    assert [each.value for each in left] == [b"%d" % each for each in range(10)]
    assert all(isinstance(each.exception, errors.IllegalStateError) for each in futures)


def test_metrics(sender: MakeSender, kafka_broker: KafkaBroker) -> None:
    made = sender(kafka_broker.bootstrap_servers, client_id="measured")
    for _ in range(10):
        made.send("engine-metrics", b"v" * 100).get(20)
    groups = made.engine.metrics()
    assert groups is not None
    total = groups["producer-metrics"]
    assert total["record-send-rate"] > 0
    assert total["record-size-avg"] == 109, "with what frames it, as in kafka-python"
    assert total["connection-count"] == 2
    assert 0 <= total["metadata-age"] < 30
    assert total["request-latency-max"] >= total["request-latency-avg"] > 0
    assert "producer-topic-metrics.engine-metrics" in groups
    leader = kafka_broker.leader_of("engine-metrics")
    node = next(each for each in groups if each.startswith(f"producer-node-metrics.node-{leader}"))
    assert groups[node]["request-rate"] > 0
    assert any(each.startswith("producer-node-metrics.node-bootstrap-") for each in groups)
    assert groups["kafka-metrics-count"]["count"] == sum(len(each) for each in groups.values())
    raw = made.engine.raw_metrics()
    assert raw is not None
    assert len(raw) == sum(len(each) for each in groups.values())
    for name, metric in raw.items():
        assert name.tags == {"client-id": "measured"}
        assert isinstance(metric.value(), float)
