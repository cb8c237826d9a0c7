"""Both answers to a failed batch, and what order is worth without idempotence (the picture is in README)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import eventually

from fastprod import KafkaProducer, errors
from fastprod.testing import FaultProxy, KafkaBroker, ScriptedBroker

from .ledger import read_log

# A record a batch, so that it is known what is in flight.
SINGLE: dict[str, Any] = {"batch_size": 0, "retry_backoff_ms": 5}
PRODUCE, METADATA = 0, 3
MISSING_KEY, NOT_ENOUGH_REPLICAS = 87, 19
VALUES = [b"0", b"1"]


@pytest.fixture
def scripted() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"t": 1}) as broker:
        yield broker


def written_by(scripted: ScriptedBroker, play: Callable[[], None], **options: Any) -> list[bytes | None]:
    """What is in the log once two records, sent one after the other, are acknowledged."""
    with KafkaProducer(bootstrap_servers=scripted.bootstrap_servers, **SINGLE, **options) as made:
        made.send("t", b"first").get(20)
        scripted.by_hand = True
        futures = [made.send("t", value) for value in VALUES]
        play()
        scripted.by_hand = False
        for future in futures:
            future.get(20)
    return scripted.values("t")[1:]


class TestWithoutIdempotence:
    def test_a_retry_is_overtaken_with_five_in_flight(self, scripted: ScriptedBroker) -> None:
        def play() -> None:
            zero, one = scripted.next_produce(), scripted.next_produce()
            zero.refuse(NOT_ENOUGH_REPLICAS)
            one.accept()
            scripted.next_produce().accept()

        assert written_by(scripted, play, enable_idempotence=False) == [b"1", b"0"]

    def test_nothing_overtakes_with_one_in_flight(self, scripted: ScriptedBroker) -> None:
        def play() -> None:
            zero = scripted.next_produce()
            scripted.nothing_more()
            zero.refuse(NOT_ENOUGH_REPLICAS)
            scripted.next_produce().accept()
            scripted.next_produce().accept()

        options = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 1}
        assert written_by(scripted, play, **options) == [b"0", b"1"]


def test_with_idempotence_the_broker_refuses_what_came_too_early(scripted: ScriptedBroker) -> None:
    told: list[int] = []

    def play() -> None:
        zero, one = scripted.next_produce(), scripted.next_produce()
        zero.refuse(NOT_ENOUGH_REPLICAS)
        # Not `accept`: the broker looks at the sequence, as a real one does.
        one.answer()
        assert scripted.values("t") == [b"first"]
        for value in VALUES:
            again = scripted.next_produce()
            told.append(again.batch.sequence)
            assert again.batch.records[0].value == value
            again.answer()

    assert written_by(scripted, play) == [b"0", b"1"]
    assert told == [1, 2]


@pytest.fixture(scope="module")
def proxied() -> Iterator[KafkaBroker]:
    with KafkaBroker(proxied=True) as broker:
        broker.create_topic("another")
        yield broker


def values(broker: KafkaBroker, topic: str) -> list[bytes]:
    return [each.value for each in read_log(broker.bootstrap_servers, topic, 1)]


def connect(made: KafkaProducer, topic: str) -> None:
    """Have it know the topic and be connected, with a producer id: from then on it needs answers to batches alone."""
    made.partitions_for(topic)
    made.send("another", b"v", b"key").get(20)


def one_in_flight(proxy: FaultProxy, send: Callable[[], list[Any]]) -> list[Any]:
    """Send while no answer comes back, see that only one request leaves, and let answers through again."""
    before = proxy.requests(PRODUCE)
    proxy.hold("responses")
    futures = send()
    eventually(lambda: proxy.requests(PRODUCE) > before)
    # That nothing more comes takes a time to see; with five in flight the others would come at once.
    assert not threading.Event().wait(0.3)
    assert proxy.requests(PRODUCE) == before + 1
    proxy.release("responses")
    return futures


class TestTheFirstBatchOnARealBroker:
    """Until the broker knows a producer it takes any sequence: what is behind a refused first batch must not leave."""

    @pytest.mark.parametrize("strict", [False, True])
    def test_refused_for_good(self, proxied: KafkaBroker, strict: bool) -> None:
        """A compacted topic takes no record without a key. Those behind it hold no sequence, so they go on."""
        topic = f"compacted-{strict}"
        proxied.create_topic(topic, config={"cleanup.policy": "compact"})
        with KafkaProducer(bootstrap_servers=proxied.bootstrap_servers, strict_order=strict, **SINGLE) as made:
            connect(made, topic)

            def send() -> list[Any]:
                bad = made.send(topic, b"no key")
                return [bad, *(made.send(topic, b"%d" % number, b"key") for number in range(5))]

            futures = one_in_flight(proxied.proxy(), send)
            with pytest.raises(errors.InvalidRecordError) as caught:
                futures[0].get(20)
            assert caught.value.errno == MISSING_KEY
            assert not caught.value.maybe_written
            assert [each.get(20).offset for each in futures[1:]] == [0, 1, 2, 3, 4]
        assert values(proxied, topic) == [b"0", b"1", b"2", b"3", b"4"]

    def test_refused_for_now(self, proxied: KafkaBroker) -> None:
        """The topic is gone, which a broker may say of one that is there in a moment; then it is."""
        proxied.create_topic("gone")
        options = {"allow_auto_create_topics": False, "metadata_max_age_ms": 300_000, **SINGLE}
        with KafkaProducer(bootstrap_servers=proxied.bootstrap_servers, **options) as made:
            connect(made, "gone")
            proxied.delete_topic("gone")
            proxy = proxied.proxy()
            asked = proxy.requests(METADATA)
            futures = one_in_flight(proxy, lambda: [made.send("gone", b"%d" % number) for number in range(6)])
            # It asks because it was refused; whether it is sent again before there is a topic is a matter of time.
            eventually(lambda: proxy.requests(METADATA) > asked, what="a refusal")
            assert not any(each.is_done for each in futures)
            proxied.create_topic("gone")
            assert [each.get(20).offset for each in futures] == list(range(6))
        assert values(proxied, "gone") == [b"%d" % number for number in range(6)]


class TestALaterBatchOnARealBroker:
    """The broker knows the producer, and five are in flight: the second of them is refused for good."""

    def sent(self, proxied: KafkaBroker, topic: str, made: KafkaProducer) -> list[Any]:
        proxied.create_topic(topic, config={"cleanup.policy": "compact"})
        made.send(topic, b"first", b"key").get(20)
        proxy = proxied.proxy()
        before = proxy.requests(PRODUCE)
        proxy.hold("responses")
        keys = [b"key", None, b"key", b"key", b"key"]
        futures = [made.send(topic, b"%d" % number, key) for number, key in enumerate(keys)]
        eventually(lambda: proxy.requests(PRODUCE) == before + 5, what="five in flight")
        proxy.release("responses")
        with pytest.raises(errors.InvalidRecordError):
            futures[1].get(20)
        eventually(lambda: all(each.is_done for each in futures))
        return [*futures, made.send(topic, b"5", b"key")]

    def test_by_default_the_others_are_written_in_order(self, proxied: KafkaBroker) -> None:
        with KafkaProducer(bootstrap_servers=proxied.bootstrap_servers, **SINGLE) as made:
            futures = self.sent(proxied, "recovering", made)
            del futures[1]
            assert [each.get(20).offset for each in futures] == [1, 2, 3, 4, 5]
        assert values(proxied, "recovering") == [b"first", b"0", b"2", b"3", b"4", b"5"]

    def test_strict_order_fails_what_holds_a_sequence(self, proxied: KafkaBroker) -> None:
        with KafkaProducer(bootstrap_servers=proxied.bootstrap_servers, strict_order=True, **SINGLE) as made:
            futures = self.sent(proxied, "strict", made)
            assert futures[0].get(20).offset == 1
            for future in futures[2:5]:
                with pytest.raises(errors.OutOfOrderSequenceNumberError) as caught:
                    future.get(20)
                assert not caught.value.maybe_written
            assert futures[5].get(20).offset == 2
        assert values(proxied, "strict") == [b"first", b"0", b"5"]
