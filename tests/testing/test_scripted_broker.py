"""Each thing that a `ScriptedBroker` can be told, seen from a socket."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from raw_client import RawClient, batch, client

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, Pending, ScriptedBroker, Verdict


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"t": 2, "other": 1}) as made:
        yield made


@pytest.fixture
def raw(broker: ScriptedBroker) -> Iterator[RawClient]:
    with client(broker.bootstrap_servers) as made:
        yield made


@pytest.fixture
def producer(broker: ScriptedBroker) -> Iterator[KafkaProducer]:
    with KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, retry_backoff_ms=5, reconnect_backoff_ms=5, batch_size=0
    ) as made:
        yield made


def code(said: Any) -> int:
    return int(said.error_code.value)


class TestProduceRules:
    def test_once_then_as_before(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on_produce("t", 0, times=1).refuse(19)
        assert [code(raw.produce("t", 0, batch(b"a"))) for _ in range(3)] == [19, 0, 0]
        assert broker.values("t") == [b"a", b"a"]

    def test_in_the_order_given_until_told_otherwise(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on_produce(times=2).refuse(19)
        broker.on_produce(times=1).refuse(6)
        lasting = broker.on_produce().refuse(3)
        assert [code(raw.produce("t", 0, batch(b"a"))) for _ in range(5)] == [19, 19, 6, 3, 3]
        with broker.on_produce().refuse(29):
            assert code(raw.produce("t", 0, batch(b"a"))) == 29
        assert code(raw.produce("t", 0, batch(b"a"))) == 3
        lasting.remove()
        assert code(raw.produce("t", 0, batch(b"a"))) == 0
        assert lasting.used == 3

    def test_a_code_that_kafka_does_not_have(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on_produce().refuse(4242)
        raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
        raw.receive_frame()
        made = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        with pytest.raises(errors.KafkaError, match="4242"):
            made.send("t", b"x").get(20)
        made.close()

    @pytest.mark.parametrize("wrong", ["delay", "record_error", "throttle"])
    def test_what_nobody_can_be_told(self, broker: ScriptedBroker, raw: RawClient, wrong: str) -> None:
        """A rule that passed it over would leave a test that tests nothing."""
        rule: Any = broker.on_produce(times=1)
        for verb in (rule.answer, lambda **details: rule.refuse(19, **details)):
            with pytest.raises(TypeError, match=f"'{wrong}'.*delay_s"):
                verb(**{wrong: 1})
        rule.hold()
        raw.produce("t", 0, batch(b"a"), answered=False)
        pending: Any = broker.next_produce()
        with pytest.raises(TypeError, match=wrong):
            pending.refuse(19, **{wrong: 1})
        pending.accept()
        with pytest.raises(ValueError, match="node=9"):
            broker.on_produce(node=9)

    def test_one_partition_of_a_request(self, broker: ScriptedBroker) -> None:
        """The others in it are judged apart."""
        broker.on_produce("t", 1).refuse(29)
        refused = []
        made = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 50})
        for partition in (0, 1):
            made.produce("t", b"x", partition=partition, on_delivery=lambda error, _: refused.append(error is not None))
        made.flush(20)
        assert sorted(refused) == [False, True]
        assert (broker.values("t", 0), broker.values("t", 1)) == ([b"x"], [])

    def test_only_some_batches(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on_produce(when=lambda batch: b"bad" in batch.values).refuse(
            87, message="no", record_errors=((0, "that one"),)
        )
        assert code(raw.produce("t", 0, batch(b"good"))) == 0
        said = raw.produce("t", 0, batch(b"bad"))
        assert (code(said), said.error_message) == (87, "no")
        assert [(each.batch_index, each.batch_index_error_message) for each in said.record_errors] == [(0, "that one")]

    def test_a_judge(self, broker: ScriptedBroker, raw: RawClient) -> None:
        """Written, and not said: what a leader answers when its followers are too slow."""
        broker.on_produce(times=1).answer(lambda batch: Verdict(20, broker.judge(batch).offset))
        said = raw.produce("t", 0, batch(b"a", stamp=(5, 0, 0)))
        assert (code(said), said.base_offset) == (20, 0)
        said = raw.produce("t", 0, batch(b"a", stamp=(5, 0, 0)))
        assert (code(said), said.base_offset, broker.values("t")) == (0, 0, [b"a"])

    def test_throttle_and_edit(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on_produce().answer(throttle_ms=250)
        broker.on(Api.METADATA).answer(edit=lambda response: dataclasses.replace(response, cluster_id="edited"))
        raw.produce("t", 0, batch(b"a"), answered=False)
        assert raw.receive(Api.PRODUCE, 9).throttle_time.total_seconds() == 0.25
        assert raw.metadata("t").cluster_id == "edited"

    def test_a_function_decides(self, broker: ScriptedBroker, raw: RawClient) -> None:
        later: list[Pending] = []

        def decide(pending: Pending) -> None:
            if pending.batch.values == [b"bad"]:
                pending.refuse(87, message="no")
            else:
                later.append(pending)

        with broker.on_produce("t").decide(decide) as rule:
            said = raw.produce("t", 0, batch(b"bad"))
            assert (code(said), said.error_message) == (87, "no")
            raw.produce("t", 0, batch(b"good"), answered=False)
            broker.wait_until(lambda: later)
            assert broker.values("t") == []
            later[0].accept()
            assert code(raw.receive(Api.PRODUCE, 9).responses[0].partition_responses[0]) == 0
            assert code(raw.produce("other", 0, batch(b"bad"))) == 0
        assert rule.used == 2
        assert code(raw.produce("t", 0, batch(b"bad"))) == 0

    def test_what_it_raises_is_told_at_the_end(self) -> None:
        def decide(_: Pending) -> None:
            raise ZeroDivisionError("the test's own")

        def use() -> None:
            with ScriptedBroker({"t": 1}) as broker:
                broker.on_produce().decide(decide)
                with client(broker.bootstrap_servers) as raw:
                    raw.produce("t", 0, batch(b"a"), answered=False)
                    assert raw.ended()

        with pytest.raises(ZeroDivisionError):
            use()

    def test_lost_before_and_behind_the_log(self, broker: ScriptedBroker) -> None:
        broker.on_produce(times=1).drop()
        broker.on_produce(times=1).lose()
        for written in (0, 1):
            with client(broker.bootstrap_servers) as raw:
                raw.produce("t", 0, batch(b"a"), answered=False)
                assert raw.ended()
                assert len(broker.values("t")) == written

    def test_acks_0_has_no_answer(self, broker: ScriptedBroker, raw: RawClient) -> None:
        raw.produce("t", 0, batch(b"a"), acks=0, answered=False)
        assert code(raw.produce("t", 0, batch(b"b"))) == 0
        assert broker.values("t") == [b"a", b"b"]
        raw.produce("t", 1, batch(b"a", crc=1), acks=0, answered=False)
        assert raw.ended()


class TestAnswersOnTheirWay:
    def frame(self, broker: ScriptedBroker) -> bytes:
        with client(broker.bootstrap_servers) as raw:
            raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
            return raw.receive_frame()

    def received(self, broker: ScriptedBroker) -> bytes:
        with client(broker.bootstrap_servers) as raw:
            raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
            data = b""
            while more := raw.socket.recv(4096):
                data += more
            return data

    @pytest.mark.parametrize("at", [0, 1, 4, 11, -1])
    def test_cut(self, broker: ScriptedBroker, at: int) -> None:
        whole = self.frame(broker)
        whole = len(whole).to_bytes(4, "big") + whole
        broker.on(Api.METADATA).answer(cut_at=at)
        assert self.received(broker) == whole[:at]

    def test_closed_behind_it(self, broker: ScriptedBroker) -> None:
        whole = self.frame(broker)
        broker.on(Api.METADATA).answer(close=True)
        assert self.received(broker)[4:] == whole

    @pytest.mark.parametrize("at", [0, 7, 12])
    def test_corrupt(self, broker: ScriptedBroker, at: int) -> None:
        whole = self.frame(broker)
        whole = len(whole).to_bytes(4, "big") + whole
        broker.on(Api.METADATA).answer(corrupt_at=at, close=True)
        wrong = self.received(broker)
        assert [place for place in range(len(whole)) if wrong[place] != whole[place]] == [at]

    def test_mangled(self, broker: ScriptedBroker) -> None:
        seen: list[bytes] = []
        broker.on(Api.METADATA).answer(mangle=lambda frame: (seen.append(frame), b"anything")[1], close=True)
        assert self.received(broker) == b"anything"
        broker.on(Api.METADATA).answer(mangle=lambda frame: frame[::-1], cut_at=5)
        assert self.received(broker) == seen[0][-1:-6:-1]

    def test_wrong_correlation_id(self, broker: ScriptedBroker) -> None:
        broker.on(Api.METADATA).answer(correlation_id=4711, close=True)
        assert self.received(broker)[4:8] == (4711).to_bytes(4, "big")

    def test_stalled(self, broker: ScriptedBroker) -> None:
        broker.on(Api.METADATA).answer(stall_at=6)
        with client(broker.bootstrap_servers) as raw:
            for _ in range(2):
                raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
            broker.wait_for(Api.METADATA, 2)
            raw.socket.settimeout(0.2)
            assert len(raw.socket.recv(4096)) == 6
            with pytest.raises(TimeoutError):
                raw.socket.recv(1)

    def test_delayed_and_still_in_order(self, broker: ScriptedBroker) -> None:
        broker.on(Api.METADATA, times=1).answer(delay_s=0.3)
        with client(broker.bootstrap_servers) as raw:
            began = time.monotonic()
            for _ in range(2):
                raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
            numbers = [int.from_bytes(raw.receive_frame()[:4], "big") for _ in range(2)]
            assert numbers == [1, 2]
            assert time.monotonic() - began >= 0.3

    def test_silence(self, broker: ScriptedBroker) -> None:
        with client(broker.bootstrap_servers) as raw, broker.on(Api.PRODUCE).ignore():
            raw.produce("t", 0, batch(b"a"), answered=False)
            broker.wait_for(Api.PRODUCE)
            raw.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                raw.receive_frame()
        assert broker.values("t") == []

    @pytest.mark.parametrize("at", [0, 5, 6, 60, 100])
    def test_the_request_is_cut_off(self, broker: ScriptedBroker, at: int) -> None:
        broker.on(Api.PRODUCE, times=1).cut_request(at)
        with client(broker.bootstrap_servers) as raw:
            assert raw.metadata("t").topics
            raw.produce("t", 0, batch(b"a"), answered=False)
            assert raw.ended()
        assert broker.count(Api.PRODUCE) == 0
        with client(broker.bootstrap_servers) as raw:
            assert code(raw.produce("t", 0, batch(b"a"))) == 0


class TestByHand:
    def test_a_story(self, broker: ScriptedBroker, producer: KafkaProducer) -> None:
        producer.send("t", b"first", partition=0).get(20)
        broker.by_hand = True
        futures = [producer.send("t", b"%d" % number, partition=0) for number in (1, 2)]
        one, two = broker.next_produce(), broker.next_produce()
        broker.nothing_more()
        assert [each.batch.sequence for each in (one, two)] == [1, 2]
        one.refuse(19)
        two.answer()  # honest: one is missing
        again = broker.next_produce()
        assert again.batch.data == one.batch.data
        again.accept()
        broker.by_hand = False
        assert [each.get(20).offset for each in futures] == [1, 2]
        assert broker.values("t") == [b"first", b"1", b"2"]

    def test_an_early_answer_waits_for_its_turn(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.by_hand = True
        for value in (b"a", b"b"):
            raw.produce("t", 0, batch(value), answered=False)
        one, two = broker.next_produce(), broker.next_produce()
        two.accept()
        raw.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.receive_frame()
        raw.socket.settimeout(20)
        one.refuse(6)
        codes = [code(raw.receive(Api.PRODUCE, 9).responses[0].partition_responses[0]) for _ in range(2)]
        assert codes == [6, 0]

    def test_accept_tells_when_no_broker_would(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.by_hand = True
        raw.produce("t", 0, batch(b"a", crc=1), answered=False)
        pending = broker.next_produce()
        with pytest.raises(AssertionError, match="an honest broker answers t-0"):
            pending.accept()

    def test_no_second_answer(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on(Api.METADATA).hold()
        raw.send(Api.METADATA, 4, topics=(), allow_auto_topic_creation=False)
        pending = broker.next(Api.METADATA)
        pending.answer()
        with pytest.raises(AssertionError, match="answered already"):
            pending.drop()

    def test_waiting_for_what_is_not_held(self, broker: ScriptedBroker) -> None:
        with pytest.raises(AssertionError, match="by_hand = True"):
            broker.next_produce()
        broker.by_hand = True
        with pytest.raises(AssertionError, match="no Produce request came"):
            broker.next_produce(0.05)

    def test_unexpected(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.by_hand = True
        raw.produce("t", 0, batch(b"a", stamp=(7, 8, 9)), answered=False)
        with pytest.raises(AssertionError, match=re.escape("[[(7, 8, 9)]]")):
            broker.nothing_more(20)

    def test_drop_lose_ignore_and_raw_bytes(self, broker: ScriptedBroker) -> None:
        broker.by_hand = True
        for verb, written in (("drop", 0), ("lose", 1)):
            with client(broker.bootstrap_servers) as raw:
                raw.produce("t", 0, batch(b"a"), answered=False)
                pending = broker.next_produce()
                getattr(pending, verb)()
                assert raw.ended()
                assert pending.abandoned
                assert len(broker.values("t")) == written
        with client(broker.bootstrap_servers) as raw:
            for _ in range(2):
                raw.produce("t", 0, batch(b"a"), answered=False)
            broker.next_produce().send_raw(b"\0\0\0\3abc")
            broker.next_produce().ignore(applied=True)
            assert raw.receive_frame() == b"abc"
        assert len(broker.values("t")) == 2


class TestCluster:
    def test_leaders_move(self) -> None:
        with ScriptedBroker({"t": 2}, nodes=2) as broker:
            assert [broker.leader("t", number) for number in (0, 1)] == [1, 2]
            with client(broker.address(1)) as one, client(broker.address(2)) as two:
                assert code(one.produce("t", 0, batch(b"a"))) == 0
                broker.move_leader("t", 0, 2)
                said = one.produce("t", 0, batch(b"b"), 12)
                assert (code(said), said.current_leader.leader_id, said.current_leader.leader_epoch) == (6, 2, 1)
                assert code(two.produce("t", 0, batch(b"b"))) == 0
                (part, _) = two.metadata("t").topics[0].partitions
                assert (part.leader_id, part.leader_epoch) == (2, 1)
                broker.move_leader("t", 0, -1)
                assert code(one.metadata("t").topics[0].partitions[0]) == 5
            assert broker.values("t") == [b"a", b"b"]

    def test_leader_hints(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.on_produce().refuse(6, leader=1, leader_epoch=9)
        raw.produce("t", 0, batch(b"a"), 13, answered=False)
        said = raw.receive(Api.PRODUCE, 13)
        assert said.responses[0].partition_responses[0].current_leader.leader_epoch == 9
        assert [f"{each.host}:{each.port}" for each in said.node_endpoints] == [broker.address()]
        assert not hasattr(raw.produce("t", 0, batch(b"a"), 9), "current_leader")

    def test_partitions_added_and_topics_made_again(self, broker: ScriptedBroker, raw: RawClient) -> None:
        old = raw.topic_id("t")
        assert raw.produce("t", 0, batch(b"a"), 13).base_offset == 0
        broker.add_partitions("t", 4)
        assert len(raw.metadata("t").topics[0].partitions) == 4
        broker.recreate_topic("t", 1)
        assert broker.topic_id("t") != old
        assert code(raw.produce("t", 0, batch(b"a"), 13)) == 100
        assert broker.values("t") == []
        broker.delete_topic("t")
        assert code(raw.produce("t", 0, batch(b"a"), 9)) == 3

    def test_nodes_go_and_come(self) -> None:
        with ScriptedBroker(nodes=2) as broker, client(broker.address(2)) as raw:
            broker.down(2, noticed=True)
            assert raw.ended()
            with pytest.raises(ConnectionRefusedError):
                RawClient(broker.address(2))
            with client(broker.address(1)) as other:
                assert [each.node_id for each in other.metadata().brokers] == [1]
                broker.up(2)
                assert [each.node_id for each in other.metadata().brokers] == [1, 2]
            with client(broker.address(2)) as again:
                assert again.metadata().brokers

    def test_frozen(self, broker: ScriptedBroker, raw: RawClient) -> None:
        broker.by_hand = True
        raw.produce("t", 0, batch(b"a"), answered=False)
        pending = broker.next_produce()
        broker.pause()
        pending.accept()
        raw.produce("t", 0, batch(b"b"), answered=False)
        with client(broker.address()) as other:  # by the operating system, for the time being
            other.produce("t", 1, batch(b"c"), 9, answered=False)
            raw.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                raw.socket.recv(1)
            broker.nothing_more()
            broker.resume()
            assert {broker.next_produce().batch.values[0] for _ in range(2)} == {b"b", b"c"}
            raw.socket.settimeout(20)
            assert code(raw.receive(Api.PRODUCE, 9).responses[0].partition_responses[0]) == 0

    def test_new_connections_refused(self, broker: ScriptedBroker, raw: RawClient) -> None:
        raw.metadata()
        broker.refuse_connections()
        assert raw.metadata().brokers
        with pytest.raises(ConnectionRefusedError):
            RawClient(broker.address())
        assert broker.connections() == 1
        broker.drop_connections()
        assert raw.ended()

    def test_no_state_of_a_producer(self) -> None:
        for release, expected in (("2.1", 59), ("2.4", 59), ("3.3", 0), ("4.3", 0)):
            with ScriptedBroker({"t": 1}, version=release) as broker, client(broker.bootstrap_servers) as raw:
                assert code(raw.produce("t", 0, batch(b"a", stamp=(5, 0, 0)), 7)) == 0
                broker.forget_producers("t")
                broker.delete_records("t", 0, 1)
                said = raw.produce("t", 0, batch(b"a", stamp=(5, 0, 1)), 7)
                assert (code(said), said.log_start_offset) == (expected, 1)


class TestIdentities:
    def test_given_refused_and_not_offered(self, broker: ScriptedBroker) -> None:
        broker.next_identity = (77, 32767)
        broker.on(Api.INIT_PRODUCER_ID, times=2).refuse(14)
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers, retry_backoff_ms=5) as made:
            made.send("t", b"a", partition=0).get(20)
        assert broker.count(Api.INIT_PRODUCER_ID) == 3
        assert broker.log("t")[0].stamp == (77, 32767, 0)
        del broker.offered[Api.INIT_PRODUCER_ID]
        with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as made:
            made.send("t", b"b", partition=1).get(20)
        assert broker.log("t", 1)[0].stamp == (-1, -1, -1)
