"""Items 34 to 36, 38 to 41: what an answer, or its absence, makes the producer do."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import check_time, eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, ScriptedBroker, Verdict

from .conftest import Make
from .story import ID, SINGLE, offsets, proven, send


def test_record_errors(broker: ScriptedBroker, make: Make) -> None:
    """Listed records get their own message, or the batch's, or the code's; the others a generic error."""
    made = make(linger_ms=100)
    broker.on_produce(times=1).refuse(87, message="of the batch", record_errors=((1, "its own"), (3, None)))
    broker.on_produce(times=1).refuse(32, record_errors=((0, None),))
    broker.on_produce(times=1).refuse(32, message="only this", record_errors=((1, "its own"), (0, None)))
    futures = send(made, *[b"%d" % number for number in range(4)])
    for number, text in ((1, "its own"), (3, "of the batch")):
        with pytest.raises(errors.InvalidRecordError, match=text):
            futures[number].get(20)
    for number in (0, 2):
        with pytest.raises(errors.KafkaError, match="nothing is wrong with this record") as caught:
            futures[number].get(20)
        assert not isinstance(caught.value, errors.InvalidRecordError)
    # Of one record the code tells what is wrong; of several it cannot tell with which.
    futures = send(made, b"4", b"5")
    with pytest.raises(errors.InvalidTimestampError, match="timestamp"):
        futures[0].get(20)
    with pytest.raises(errors.KafkaError, match="record 0 of it"):
        futures[1].get(20)
    futures = send(made, b"6", b"7")
    with pytest.raises(errors.InvalidRecordError, match="only this"):
        futures[0].get(20)
    with pytest.raises(errors.InvalidRecordError, match="its own"):
        futures[1].get(20)
    assert offsets(send(made, b"8")) == [0]
    assert broker.values("t") == [b"8"]


class TestLeaderHint:
    """Node 2 is the new leader, and only the answer tells: metadata is not answered."""

    BACKOFF = {"retry_backoff_ms": 700}

    def refused(self, two: ScriptedBroker, make: Make, **hint: Any) -> tuple[Any, float, Any]:
        """Refuse a batch with a hint: its future, the pause until its retry, and that retry."""
        made = proven(two, make, **self.BACKOFF)
        (future,) = send(made, b"1")
        request = two.next_produce()
        two.on(Api.METADATA).ignore()
        two.move_leader("t", 0, 2)
        request.refuse(6, **hint)
        again = two.next_produce()
        return future, again.at - request.at, again

    def test_leader_hint(self, two: ScriptedBroker, make: Make) -> None:
        future, pause, again = self.refused(two, make, leader=2)
        assert again.request.node == 2
        check_time("the hint", pause, 0, slack_s=0.5)
        again.accept()
        assert future.get(20).offset == 1
        two.wait_for(Api.METADATA, 3)

    @pytest.mark.parametrize(
        "hint",
        [
            pytest.param({"leader": 2, "leader_epoch": 0}, id="an epoch that is known already"),
            pytest.param({"leader": 2, "leader_epoch": -1}, id="no epoch"),
            pytest.param({"leader": -1, "leader_epoch": 5}, id="no leader"),
            pytest.param({"leader": 9, "leader_epoch": 5}, id="a node that nobody knows"),
            pytest.param({}, id="none"),
        ],
    )
    def test_leader_hint_ignored(self, two: ScriptedBroker, make: Make, hint: dict[str, int]) -> None:
        _, pause, again = self.refused(two, make, **hint)
        assert again.request.node == 1
        assert pause >= 0.8 * 0.7 - 0.02

    def test_leader_hint_of_an_unknown_node_with_its_address(self, make: Make) -> None:
        """Metadata names node 1 alone; the hint brings the address of node 2."""
        with ScriptedBroker({"t": 1}, nodes=2) as two:
            two.next_identity = (ID, 0)
            two.on(Api.METADATA).answer(edit=lambda said: dataclasses.replace(said, brokers=said.brokers[:1]))
            made = make(**SINGLE, **self.BACKOFF, bootstrap_servers=two.address(1))
            made.send("t", b"first", partition=0).get(20)
            two.move_leader("t", 0, 2)
            with in_time("the hint", 0, slack_s=0.5):
                assert made.send("t", b"1", partition=0).get(20).offset == 1
            assert two.requests_of(Api.PRODUCE)[-1].node == 2
            made.close()


YES = [3, 5, 6, 9, 56, 72, 74, 100, 103]
NO = [2, 7, 19, 20, 75, 89, 14, 15, 16, 51, 10, 17, 18, 29, 32, 42, 43, 44, 45, 46, 76, 87, -1]


class TestMetadataTriggers:
    def asked(self, broker: ScriptedBroker, trigger: Callable[[], object]) -> int:
        """How many Metadata requests a trigger leads to, within a moment."""
        before = broker.count(Api.METADATA)
        trigger()
        try:
            broker.wait_for(Api.METADATA, before + 1, 0.5)
        except AssertionError:
            return 0
        return broker.count(Api.METADATA) - before

    @pytest.mark.parametrize("code", YES + NO)
    def test_metadata_triggers(self, broker: ScriptedBroker, make: Make, code: int) -> None:
        made = make(**SINGLE)
        made.send("t", b"first", partition=0).get(20)
        eventually(lambda: len(made.partitions_for("t")) == 2)

        def refused() -> None:
            broker.on_produce(times=1).refuse(code)
            (future,) = send(made, b"1")
            eventually(lambda: future.is_done)

        assert (self.asked(broker, refused) > 0) is (code in YES)

    def test_metadata_triggers_disconnect(self, broker: ScriptedBroker, make: Make) -> None:
        made = make(**SINGLE)
        made.send("t", b"first", partition=0).get(20)
        assert self.asked(broker, broker.drop_connections) > 0

    def test_metadata_triggers_timeout(self, broker: ScriptedBroker, make: Make) -> None:
        made = make(**SINGLE, request_timeout_ms=300)
        made.send("t", b"first", partition=0).get(20)

        def silent() -> None:
            broker.on_produce(times=1).ignore()
            assert offsets(send(made, b"1")) == [1]

        assert self.asked(broker, silent) > 0

    def test_metadata_triggers_unknown_leader(self, broker: ScriptedBroker, make: Make) -> None:
        broker.move_leader("t", 1, -1)
        made = make(**SINGLE)
        made.send("t", b"first", partition=0).get(20)
        broker.move_leader("t", 1, 1)
        assert self.asked(broker, lambda: send(made, b"1", partition=1)[0].get(20)) > 0

    def test_metadata_triggers_partition_out_of_range(self, broker: ScriptedBroker, make: Make) -> None:
        """At once if what is known is a second old or less; else one look tells."""
        made = make(**SINGLE)
        made.send("t", b"first", partition=0).get(20)
        broker.add_partitions("t", 3)
        time.sleep(1.1)   # older than that second
        assert self.asked(broker, lambda: send(made, b"1", partition=2)[0].get(20)) == 1
        with pytest.raises(ValueError, match="partition"):
            send(made, b"1", partition=3)


@pytest.mark.parametrize("size", [10, 300_000])
def test_acks0(broker: ScriptedBroker, make: Make, size: int) -> None:
    made = make(**SINGLE, acks=0)
    broker.on_produce().ignore(applied=True)
    result: Any = made.send("t", bytes(size), partition=0).get(20)
    assert result.offset == -1
    broker.wait_until(lambda: len(broker.values("t")) == 1)
    assert broker.requests_of(Api.PRODUCE)[0].acks == 0


def test_acks0_is_not_done_before_it_is_written(broker: ScriptedBroker, make: Make) -> None:
    """The connection breaks when a part of it is written: that is an error like any other, and it is sent again."""
    broker.change_topic("t", max_message_bytes=30_000_000)
    made = make(acks=0, batch_size=0, max_request_size=20_000_000, send_buffer_bytes=131_072)
    made.send("t", b"first", partition=0).get(20)
    broker.wait_for(Api.PRODUCE)
    broker.pause()
    value = os.urandom(1_000_000) + bytes(8_000_000)
    (future,) = send(made, value)
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(0.5)
    broker.drop_connections()
    broker.resume()
    assert future.get(20).offset == -1
    broker.wait_until(lambda: len(broker.values("t")) == 2)
    assert broker.values("t")[1] == value


def test_throttle(broker: ScriptedBroker, make: Make) -> None:
    """For the period nothing is sent on the connection, and what is open on it does not time out."""
    made = proven(broker, make, request_timeout_ms=500)
    futures = send(made, b"1", b"2")
    first, second = broker.next_produce(), broker.next_produce()
    first.accept(throttle_ms=1500)
    eventually(lambda: futures[0].succeeded())
    throttled = time.monotonic()
    futures += send(made, b"3")
    broker.nothing_more(1.0)
    # Long after request_timeout_ms.
    assert not second.abandoned
    second.accept()
    third = broker.next_produce()
    check_time("throttle_time_ms=1500", third.at - throttled, 1.5, at_least_s=1.45)
    assert third.request.connection == first.request.connection
    third.accept()
    assert offsets(futures) == [1, 2, 3]
    assert len(broker.requests_of(Api.PRODUCE)) == 4


def test_request_timeout(two: ScriptedBroker, make: Make) -> None:
    """The whole connection is closed, and all of its batches go elsewhere: to the leader of that time."""
    two.add_partitions("t", 3)
    two.move_leader("t", 1, 1)
    made = make(**SINGLE, request_timeout_ms=600, metadata_max_age_ms=100)
    for partition in range(3):
        made.send("t", b"first", partition=partition).get(20)
    two.by_hand = True
    futures = []
    requests = []
    for partition in (0, 2):
        futures += send(made, b"%d" % partition, partition=partition)
        requests.append(two.next_produce())
    assert {each.request.connection for each in requests} == {requests[0].request.connection}
    two.move_leader("t", 0, 2)
    began = requests[0].at
    again = {each.batch.partition: each for each in (two.next_produce(), two.next_produce())}
    assert requests[0].abandoned
    assert (again[0].request.node, again[2].request.node) == (2, 1)
    assert again[2].request.connection != requests[1].request.connection
    for request in requests:
        assert again[request.batch.partition].batch.data == request.batch.data
    for each in again.values():
        each.accept()
    assert offsets(futures) == [1, 1]
    check_time("request_timeout_ms=600", again[0].at - began, 0.6, at_least_s=0.6)


class TestTopicIdMapping:
    def test_topic_id_mapping(self, broker: ScriptedBroker, make: Make) -> None:
        """An answer is about the topic that its id meant when the request was sent."""
        made = proven(broker, make, metadata_max_age_ms=100)
        (future,) = send(made, b"1")
        request = broker.next_produce()
        assert request.request.version == 13
        assert request.batch.topic_id == broker.topic_id("t")
        broker.recreate_topic("t")
        asked = broker.count(Api.METADATA)
        broker.wait_for(Api.METADATA, asked + 2)
        request.answer(lambda _: Verdict(0, 7))
        assert future.get(20).offset == 7
        broker.by_hand = False
        assert offsets(send(made, b"new")) == [0]
        assert broker.batches[-1].topic_id == broker.topic_id("t")

    @pytest.mark.parametrize("version", ["2.1", "2.4", "3.3", "4.0", "4.3"])
    @pytest.mark.parametrize("lost", [False, True])
    def test_topic_id_mapping_a_new_topic_that_is_noticed_late(self, version: str, lost: bool) -> None:
        """Before Produce 13 requests name topics, and a batch comes to the new one unnoticed. The next one is not taken
        for it, and it is not written twice when the loss of its answer brings the news."""
        with ScriptedBroker({"t": 1}, version=version) as broker:
            # What is lost is sent again after the news.
            options: dict[str, Any] = {"retry_backoff_ms": 400} if lost else {"metadata_max_age_ms": 200}
            with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, reconnect_backoff_ms=5, **options) as made:
                if lost:
                    send(made, b"old")[0].get(20)
                made.partitions_for("t")
                broker.recreate_topic("t")
                if lost:
                    broker.on_produce(times=1).lose()
                first = send(made, b"1")[0].get(20).offset
                asked = broker.count(Api.METADATA)
                if not lost:
                    broker.wait_for(Api.METADATA, asked + 2)
                assert [first, *offsets(send(made, b"2")), *offsets(send(made, b"3"))] == [0, 1, 2]
                assert broker.values("t") == [b"1", b"2", b"3"]

    def test_topic_id_mapping_without_an_id(self, broker: ScriptedBroker, make: Make) -> None:
        """Some topic has no id yet: names, with version 12 at most."""

        def without(said: Any) -> Any:
            return dataclasses.replace(
                said, topics=tuple(dataclasses.replace(each, topic_id=None) for each in said.topics)
            )

        rule = broker.on(Api.METADATA).answer(edit=without)
        made: KafkaProducer = make(**SINGLE, metadata_max_age_ms=100)
        assert offsets(send(made, b"1")) == [0]
        assert broker.requests_of(Api.PRODUCE)[-1].version == 12
        rule.remove()
        asked = broker.count(Api.METADATA)
        broker.wait_for(Api.METADATA, asked + 2)
        assert offsets(send(made, b"2")) == [1]
        assert broker.requests_of(Api.PRODUCE)[-1].version == 13

    @pytest.mark.parametrize("code", [100, 103])
    def test_topic_id_mapping_an_id_that_the_broker_does_not_know(
        self, broker: ScriptedBroker, make: Make, code: int
    ) -> None:
        made = make(**SINGLE)
        made.send("t", b"first", partition=0).get(20)
        broker.on_produce(times=2).refuse(code)
        assert offsets(send(made, b"1")) == [1]
        assert [each.values for each in broker.batches] == [[b"first"], [b"1"], [b"1"], [b"1"]]
