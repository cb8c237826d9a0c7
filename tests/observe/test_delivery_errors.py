"""Errors of records that were not delivered: topic and partition, attempts, time, broker, last error, maybe_written."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from typing import Any

import pytest

from fastprod import KafkaProducer, errors
from fastprod.testing import ScriptedBroker
from fastprod.testing.scripted.releases import Api

from .conftest import Make

NOT_LEADER, NOT_ENOUGH_REPLICAS = 6, 19
UNRESOLVED = "no-such-host.invalid"
SHORT = {"delivery_timeout_ms": 700, "request_timeout_ms": 600}


def failure(producer: KafkaProducer, topic: str = "other", **where: Any) -> tuple[Exception, str]:
    """The error of a record that is sent now, and its text."""
    error = producer.send(topic, b"value", **where)
    with pytest.raises(errors.KafkaError) as caught:
        error.get(20)
    return caught.value, str(caught.value)


def send_much(producer: KafkaProducer) -> None:
    for _ in range(100):
        producer.send("other", b"v" * 9_000)


def hide(broker: ScriptedBroker) -> None:
    """From now on all brokers advertise a name that nobody can resolve."""

    def edit(said: Any) -> Any:
        brokers = tuple(dataclasses.replace(each, host=UNRESOLVED) for each in said.brokers)
        return dataclasses.replace(said, brokers=brokers)

    broker.on(Api.METADATA).answer(edit=edit)


def test_expired_after_refusals(broker: ScriptedBroker, make: Make) -> None:
    producer = make(**SHORT, retry_backoff_ms=450)
    broker.on_produce("other").refuse(NOT_ENOUGH_REPLICAS)
    error, text = failure(producer)
    assert isinstance(error, errors.KafkaTimeoutError)
    assert "TopicPartition(topic='other', partition=0)" in text
    assert re.search(r"7\d\d ms has passed|8\d\d ms has passed", text)
    assert re.search(r"Sent 2 times, last to broker 1\.", text)
    assert "Last error: NotEnoughReplicasError:" in text
    assert error.maybe_written is False
    assert "may have been written" not in text


def test_records_at_fault_and_those_in_their_company(
    broker: ScriptedBroker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make(linger_ms=500)
    broker.on_produce("other").refuse(32, record_errors=((1, "far too late."),))
    futures = [producer.send("other", b"value") for _ in range(3)]
    with caplog.at_level("WARNING", "fastprod"):
        producer.close(20)
    own, company = futures[1].exception, str(futures[0].exception)
    assert isinstance(own, errors.InvalidTimestampError)
    assert re.search(
        r"broker 1: nothing is wrong with this record, .* because of record 1 of it: far too late\. "
        r"Sent once in \d+ ms\. Send it again without that one\.$",
        company,
    )
    (told,) = (each.getMessage() for each in caplog.records if "Record 1 of the batch" in each.getMessage())
    assert str(own) in told
    assert "InvalidTimestampError" in told
    assert "message.timestamp.before.max.ms" in told
    assert "1 record(s) were at fault and 2 failed only in their company" in told
    assert "nothing is wrong" not in caplog.text


def test_whoever_saw_the_fatal_error_can_send_nothing_more(broker: ScriptedBroker, make: Make) -> None:
    broker.on_produce("t", 1).refuse(90)
    for _ in range(60):
        producer = make()
        producer.send("t", b"first", partition=0).get(20)
        with pytest.raises(errors.ProducerFencedError):
            producer.send("t", b"fenced", partition=1).get(20)
        later = producer.send("t", b"later", partition=0)
        assert later.is_done
        assert isinstance(later.exception, errors.ProducerFencedError)
        producer.close(5)
    assert set(broker.values("t")) == {b"first"}


def test_expired_in_flight(broker: ScriptedBroker, make: Make) -> None:
    # No shorter: the request must not time out first, and be sent again.
    producer = make(**{**SHORT, "request_timeout_ms": SHORT["delivery_timeout_ms"]})
    broker.on_produce("other").ignore()
    error, text = failure(producer)
    assert "Sent once, to broker 1." in text
    assert error.maybe_written is True
    assert text.endswith("It may have been written.")


def test_the_leader_advertises_an_address_that_cannot_be_reached(broker: ScriptedBroker, make: Make) -> None:
    hide(broker)
    producer = make(**SHORT)
    error, text = failure(producer)
    assert "Never sent." in text
    assert "Its leader, broker 1, cannot be used: cannot resolve" in text
    assert UNRESOLVED in text
    assert error.maybe_written is False


def test_the_leader_is_down(broker: ScriptedBroker, make: Make) -> None:
    producer = make(**SHORT)
    producer.send("other", b"value").get(10)
    broker.down(1)
    _, text = failure(producer)
    assert "Its leader, broker 1, cannot be used: cannot connect to" in text
    assert broker.address(1) in text


def test_no_producer_id_came(broker: ScriptedBroker, make: Make) -> None:
    refusing = broker.on(Api.INIT_PRODUCER_ID).refuse(14)
    producer = make(**SHORT)
    error, text = failure(producer)
    assert "Never sent: there is no producer id, InitProducerId was refused with CoordinatorLoadInProgressError" in text
    assert error.maybe_written is False
    refusing.remove()
    broker.down(1)
    broker.up(1)
    # It asks again within a second, and a record has less than that here.
    for _ in range(30):
        with contextlib.suppress(errors.KafkaTimeoutError):
            producer.send("other", b"value").get(20)
            break
    else:
        pytest.fail("no record was delivered")
    broker.on_produce().ignore()
    broker.drop_connections()
    assert "producer id" not in failure(producer)[1]


def test_no_producer_id_was_answered(broker: ScriptedBroker, make: Make) -> None:
    broker.on(Api.INIT_PRODUCER_ID).drop()
    _, text = failure(make(**SHORT))
    assert "Never sent: there is no producer id, InitProducerId was not answered: " in text


def test_no_room_says_that_no_producer_id_came(broker: ScriptedBroker, make: Make) -> None:
    broker.on(Api.INIT_PRODUCER_ID).refuse(14)
    producer = make(buffer_memory=40_000, batch_size=10_000, max_block_ms=1_000)
    with pytest.raises(errors.KafkaTimeoutError, match="Nothing leaves: there is no producer id, InitProducerId was"):
        send_much(producer)


def test_the_leader_has_asked_for_a_pause(broker: ScriptedBroker, make: Make) -> None:
    producer = make(**{**SHORT, "request_timeout_ms": 650}, max_in_flight_requests_per_connection=1)
    broker.by_hand = True
    producer.send("other", b"first")
    first = broker.next_produce()
    behind = producer.send("other", b"second")
    # A pause is no longer than a batch may wait: it has to begin well behind this one.
    time.sleep(0.3)
    first.accept(throttle_ms=60_000)
    with pytest.raises(errors.KafkaTimeoutError, match=r"Never sent: broker 1 has asked .* \(throttled\)\."):
        behind.get(20)


def test_no_room_says_why_the_brokers_do_not_keep_up(broker: ScriptedBroker, make: Make) -> None:
    hide(broker)
    producer = make(buffer_memory=40_000, batch_size=10_000, max_block_ms=1_000)
    with pytest.raises(errors.KafkaTimeoutError) as caught:
        send_much(producer)
    assert f"Broker 1 cannot be used: cannot resolve {UNRESOLVED}" in str(caught.value)


def test_a_topic_that_cannot_be_asked_for_because_of_the_advertised_address(broker: ScriptedBroker, make: Make) -> None:
    hide(broker)
    producer = make(max_block_ms=1_500, connections_max_idle_ms=200)
    producer.partitions_for("other")
    for node in (1, 2):
        broker.down(node)
    with pytest.raises(errors.KafkaTimeoutError) as caught:
        producer.send("t", b"value")
    assert UNRESOLVED in str(caught.value)


def test_closed_before_delivery(broker: ScriptedBroker, make: Make) -> None:
    producer = make()
    broker.by_hand = True
    sent = producer.send("other", b"value")
    broker.next_produce()
    waiting = producer.send("t", b"value", partition=0)
    with pytest.raises(errors.KafkaTimeoutError, match=r"2 record\(s\)"):
        producer.close(0)
    for future, topic in ((sent, "other"), (waiting, "t")):
        error = future.exception
        assert isinstance(error, errors.IllegalStateError)
        assert "closed forcefully" in str(error)
        assert f"Topic {topic!r} partition 0: " in str(error)
        assert ("It may have been written." in str(error)) is error.maybe_written
    assert re.search(r"Sent once in \d+ ms, to broker 1\.", str(sent.exception))
    left = {record.topic: record for record in producer.undelivered()}
    assert left["other"].maybe_written is True


def test_vanished_partition(broker: ScriptedBroker, make: Make) -> None:
    producer = make(retry_backoff_ms=100)
    rule = broker.on_produce("t", 2).refuse(NOT_LEADER)
    future = producer.send("t", b"value", partition=2)
    broker.wait_for(Api.PRODUCE)
    broker.recreate_topic("t", 1)
    rule.remove()
    with pytest.raises(errors.UnknownTopicOrPartitionError) as caught:
        future.get(20)
    assert re.search(r"Sent (once|\d+ times) in \d+ ms, (last )?to broker", str(caught.value))


def test_behind_a_failed_batch(broker: ScriptedBroker, make: Make) -> None:
    producer = make(strict_order=True, linger_ms=0)
    producer.send("t", b"first", partition=0).get(10)
    broker.by_hand = True
    bad = producer.send("t", b"bad", partition=0)
    held = broker.next_produce()
    behind = producer.send("t", b"behind", partition=0)
    after = broker.next_produce()
    held.refuse(32)
    after.refuse(45)
    broker.by_hand = False
    with pytest.raises(errors.InvalidTimestampError, match="Sent once"):
        bad.get(10)
    with pytest.raises(errors.OutOfOrderSequenceNumberError, match=r"strict_order=True.*Sent once in \d+ ms, to"):
        behind.get(10)
