"""What the first months of a cluster bring, while a producer has traffic."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Any

import pytest
from patience import eventually

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, FaultProxy, KafkaBroker, ScriptedBroker

from .admin import add_partitions, change_setting
from .conftest import MakeProducer, MakeTopic
from .ledger import Load, read_log

# Longer than anything here lasts, so that an expired record is a bug.
PATIENT: dict[str, Any] = {"max_block_ms": 60_000, "delivery_timeout_ms": 90_000, "request_timeout_ms": 5_000}


def test_partitions_are_added(own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
    """Keys are spread over all of them from then on, so some move; everything arrives."""
    name = topic(2)
    made = producer(metadata_max_age_ms=300, **PATIENT)
    load = Load(made, name, keys=50)
    load.wait_for_progress()
    add_partitions(own_broker.bootstrap_servers, name, 6)
    eventually(lambda: len(made.partitions_for(name)) == 6, what="six partitions")
    # Two rounds of each thread's keys, sent when it was known.
    goal = load.sent + 2 * 4 * 50
    eventually(lambda: load.sent >= goal)
    load.wait_for_progress()
    load.stop()
    made.close(60)
    load.check(own_broker, 6, keys_stay=False)
    log = read_log(own_broker.bootstrap_servers, name, 6)
    assert {each.partition for each in log if each.key is not None} == set(range(6))
    assert {each.partition for each in log if each.key is None} > {0, 1}


class Line(threading.Thread):
    """Sends numbered records to one partition until it is told to end or the partition is no more."""

    def __init__(self, made: KafkaProducer, topic: str, partition: int) -> None:
        super().__init__()
        self.futures: list[Any] = []
        self.refused: Exception | None = None
        self.ending = threading.Event()
        self._made = made
        self._topic = topic
        self.partition = partition
        self.start()

    def run(self) -> None:
        while not self.ending.wait(0.002):
            try:
                value = b"%d" % len(self.futures)
                self.futures.append(self._made.send(self._topic, value, partition=self.partition))
            except ValueError as error:
                self.refused = error
                return

    @property
    def waiting(self) -> int:
        """How many records have not ended."""
        return sum(not each.is_done for each in list(self.futures))

    def progress(self) -> None:
        """Wait until the newest record is acknowledged."""
        self.futures[-1].get(30)


def test_a_topic_is_created_again_with_fewer_partitions(
    own_broker: KafkaBroker, proxy: FaultProxy, producer: MakeProducer, topic: MakeTopic
) -> None:
    """What waits for a partition that is gone fails and says so; the others go on in the new topic, in order."""
    name = topic(4)
    made = producer(allow_auto_create_topics=False, metadata_max_age_ms=300, retry_backoff_ms=20, **PATIENT)
    lines = [Line(made, name, partition) for partition in range(4)]
    try:
        eventually(lambda: all(each.futures for each in lines))
        for line in lines:
            line.progress()
        # Nothing passes meanwhile, so that records wait for each partition.
        proxy.hold()
        eventually(lambda: all(line.waiting >= 20 for line in lines), what="twenty records waiting in each partition")
        own_broker.delete_topic(name)
        own_broker.create_topic(name, 2)
        proxy.release()
        for line in lines[2:]:
            eventually(lambda: line.refused or not line.waiting, what="the end of a vanished partition")  # noqa: B023
            line.join(30)
            eventually(lambda: line.waiting == 0)  # noqa: B023
            assert "Unrecognized partition" in str(line.refused)
        for line in lines[:2]:
            line.progress()
    finally:
        for line in lines:
            line.ending.set()
            line.join()
    made.close(60)
    for line in lines[2:]:
        failed = [each.exception for each in line.futures if each.failed()]
        assert len(failed) >= 20
        assert {type(each) for each in failed} == {errors.UnknownTopicOrPartitionError}, failed
        assert f"Partition {line.partition} of topic '{name}' is gone: the topic now has 2" in str(failed[-1])
    log = read_log(own_broker.bootstrap_servers, name, 2)
    for line in lines[:2]:
        assert [each.exception for each in line.futures if each.failed()] == []
        numbers = [int(each.value) for each in log if each.partition == line.partition]
        # The first of them is the first that was not in the old topic; none behind it is missing or out of place.
        assert numbers == list(range(numbers[0], len(line.futures)))
        assert [line.futures[number].value.offset for number in numbers] == list(range(len(numbers)))
        assert len(numbers) >= 20


@pytest.mark.parametrize("release", ["2.4", "4.3"])
def test_a_broker_that_has_not_heard_of_added_partitions(release: str) -> None:
    """What is queued for them does not fail because its metadata has fewer."""

    def lags(said: Any) -> Any:
        (told,) = said.topics
        known = tuple(each for each in told.partitions if each.partition_index == 0)
        return dataclasses.replace(said, topics=(dataclasses.replace(told, partitions=known),))

    with ScriptedBroker({"t": 1}, version=release) as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as made:
            made.send("t", b"first", partition=0).get(20)
            broker.add_partitions("t", 2)
            time.sleep(1.1)  # metadata of the last second is not asked for again
            made.send("t", b"second", partition=1).get(20)
            lagging = broker.on(Api.METADATA, times=1).answer(edit=lags)
            broker.on_produce("t", 1, when=lambda _: not lagging.used).refuse(6)
            assert made.send("t", b"third", partition=1).get(20).offset == 1
            assert lagging.used == 1
            assert made.partitions_for("t") == {0, 1}
        assert broker.values("t", 1) == [b"second", b"third"]


def test_a_partition_vanishes_and_comes_back() -> None:
    """What was queued for it, and may be in the log, ended; what comes later leaves at once, under a newer epoch."""
    with ScriptedBroker({"t": 2}) as broker:
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, metadata_max_age_ms=150) as made:
            made.send("t", b"first", partition=1).get(20)
            broker.by_hand = True
            future = made.send("t", b"second", partition=1)
            broker.next_produce().drop()
            asked = broker.next_produce()
            broker.recreate_topic("t", 1)
            asked.refuse(45)   # it would be asked about again in a second
            with pytest.raises(errors.UnknownTopicOrPartitionError):
                future.get(20)
            assert future.exception.maybe_written
            broker.add_partitions("t", 2)
            broker.by_hand = False
            eventually(lambda: made.partitions_for("t") == {0, 1}, what="two partitions")
            assert made.send("t", b"third", partition=1).get(20).offset == 0
        assert broker.values("t", 1) == [b"third"]


def test_an_advertised_address_changes() -> None:
    """The broker comes back behind another address, and nothing listens where it was: the only server that is known
    by name, the bootstrap server, tells where it is now."""
    nowhere = ("127.0.0.1", 9)
    with FaultProxy(nowhere) as old, FaultProxy(nowhere) as new:
        with KafkaBroker(properties={"advertised.listeners": f"PLAINTEXT://{old.address}"}) as broker:
            old.target = new.target = broker.bootstrap_servers
            broker.create_topic("moved", 3)
            made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, reconnect_backoff_max_ms=500, **PATIENT)
            load = Load(made, "moved")
            try:
                load.wait_for_progress()
                assert (old.requests(Api.PRODUCE) > 0, new.opened) == (True, 0)
                broker.kill()
                old.close()
                (settings,) = broker.directory.glob("node-1-*/server.properties")
                text = settings.read_text()
                assert old.address in text
                settings.write_text(text.replace(old.address, new.address))
                broker.start()
                load.wait_for_progress()
            finally:
                load.stop()
                made.close(60)
            assert new.requests(Api.PRODUCE) > 0
            load.check(broker, 3)


def test_the_largest_message_shrinks(own_broker: KafkaBroker, producer: MakeProducer, topic: MakeTopic) -> None:
    """Batches that have become too large are split, all records arrive, and later batches are small enough."""
    limit = 5_000
    name = topic(2)
    made = producer(linger_ms=100, metrics_sample_window_ms=300, metrics_num_samples=1, **PATIENT)
    load = Load(made, name)

    def largest() -> float:
        """The largest batch that was sent in the last moments; 0: none was."""
        return max(0.0, float(made.metrics()["producer-metrics"]["batch-size-max"]))

    def later() -> float:
        """The same after some more records were delivered."""
        load.wait_for_progress()
        return largest()

    load.wait_for_progress()
    eventually(lambda: largest() > 2 * limit, what="a large batch")
    change_setting(own_broker.bootstrap_servers, name, "max.message.bytes", limit)
    # What was under way is refused and split; each partition has learned when its batches stay small.
    eventually(lambda: all(0 < later() <= limit for _ in range(4)), what="small batches")
    load.stop()
    made.close(60)
    load.check(own_broker, 2)


class TestAServiceWithoutInitProducerId:
    def test_default_idempotence_goes_off_with_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        with ScriptedBroker({"t": 2}) as broker, caplog.at_level(logging.INFO):
            del broker.offered[Api.INIT_PRODUCER_ID]
            # Before it has a producer id the first one would wait, behind it everything.
            broker.on_produce(times=1).refuse(19)
            with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, retry_backoff_ms=5) as made:
                futures = [made.send("t", b"%d" % number, partition=number % 2) for number in range(1000)]
                assert sorted(each.get(20).offset for each in futures) == sorted([*range(500)] * 2)
            assert {each.stamp for each in (*broker.log("t", 0), *broker.log("t", 1))} == {(-1, -1, -1)}
            lines = [each for each in caplog.records if "idempotence is off" in each.getMessage()]
            assert [each.levelno for each in lines] == [logging.WARNING]
            assert "InitProducerId" in lines[0].getMessage()
            assert broker.complaints == []

    def test_idempotence_that_was_asked_for_is_an_error(self) -> None:
        with ScriptedBroker({"t": 2}) as broker:
            del broker.offered[Api.INIT_PRODUCER_ID]

            def use() -> None:
                with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, enable_idempotence=True) as made:
                    made.send("t", b"1", partition=0).get(20)

            with pytest.raises(errors.UnsupportedVersionError, match="enable_idempotence=True") as caught:
                use()
            assert "InitProducerId" in str(caught.value)
            assert broker.count(Api.PRODUCE) == 0
