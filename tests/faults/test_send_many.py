"""`send_many` when things go wrong: each record of a call ends as it would have alone."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from patience import eventually

from fastprod import errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import MakeProducer, producers_on

PARTITIONS = 3


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"t": PARTITIONS}) as made:
        yield made


@pytest.fixture
def make(broker: ScriptedBroker) -> Iterator[MakeProducer]:
    yield from producers_on(broker.bootstrap_servers)


def values_of(count: int) -> list[bytes]:
    return [b"%06d" % number for number in range(count)]


def holds(broker: ScriptedBroker, outcome: Any, values: list[bytes]) -> bool:
    """Whether each record that was acknowledged is where it was said to be."""
    logs = [broker.values("t", number) for number in range(PARTITIONS)]
    return all(
        logs[partition][offset] == value
        for partition, offset, value in zip(outcome.partitions, outcome.offsets, values, strict=True)
        if partition >= 0
    )


def test_lost_answers_and_refusals(broker: ScriptedBroker, make: MakeProducer) -> None:
    """All of them retried, and none twice."""
    made = make(batch_size=2_000, retry_backoff_ms=5)
    broker.on_produce("t", 0, times=3).refuse(6)
    broker.on_produce("t", 1, times=2).refuse(19)
    broker.on(Api.PRODUCE, times=3).lose()
    values = values_of(5_000)
    outcome = made.send_many("t", values, [b"%d" % (n % 17) for n in range(5_000)]).get(30)
    assert outcome.errors == {}
    assert holds(broker, outcome, values)
    assert sum(len(broker.values("t", n)) for n in range(PARTITIONS)) == 5_000


def test_many_senders_and_little_memory(broker: ScriptedBroker, make: MakeProducer) -> None:
    """A call that waited for the memory of a small record finds that room was made for it meanwhile, and its next
    record is larger: no batch leaves empty."""
    made = make(batch_size=400, buffer_memory=1_500, max_block_ms=20_000)
    end = time.monotonic() + 4

    def send(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end and not broker.complaints:
            made.send_many("t", [bytes(chance.choice((1, 10, 120))) for _ in range(20)], partition=0)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    made.flush(20)
    assert broker.complaints == []
    assert made.stats().failed.records == 0


def test_one_partition_fails(broker: ScriptedBroker, make: MakeProducer) -> None:
    made = make()
    broker.on_produce("t", 1).refuse(87, message="not like that")
    values = values_of(300)
    future = made.send_many("t", values, partition=[n % 3 for n in range(300)])
    with pytest.raises(errors.BatchDeliveryError, match="100 of 300 records"):
        future.get(20)
    outcome = future._outcome()
    assert sorted(outcome.errors) == list(range(1, 300, 3))
    assert {type(each) for each in outcome.errors.values()} == {errors.InvalidRecordError}
    assert list(outcome.partitions) == [-1 if n % 3 == 1 else n % 3 for n in range(300)]
    assert holds(broker, outcome, values)


def test_named_records(broker: ScriptedBroker, make: MakeProducer) -> None:
    """The broker says which records it does not want: their error is their own, the others' names them."""
    made = make()
    broker.on_produce("t", 0).refuse(87, message="bad batch", record_errors=[(1, "too blue"), (3, None)])
    future = made.send_many("t", values_of(5), partition=0)
    with pytest.raises(errors.BatchDeliveryError):
        future.get(20)
    texts = [str(error) for _, error in sorted(future._outcome().errors.items())]
    assert len(texts) == 5
    assert "too blue" in texts[1]
    assert texts[1] != texts[3]
    assert texts[0] == texts[2] == texts[4]


def test_parts_of_a_split_batch(broker: ScriptedBroker, make: MakeProducer) -> None:
    """Refused as too large, sent in parts: callbacks come when the last part is done, wherever it is."""
    broker.change_topic("t", max_message_bytes=1_000)
    made = make(batch_size=100_000, linger_ms=50)
    values = values_of(2_000)
    values[700] = b"x" * 3_000
    calls: list[Any] = []
    future = made.send_many("t", values, partition=0)
    early = threading.Event()
    future.add_both(lambda outcome: (calls.append(outcome), early.set()))
    with pytest.raises(errors.BatchDeliveryError, match="1 of 2000 records"):
        future.get(60)
    assert early.wait(20)
    (outcome,) = calls
    assert list(outcome.errors) == [700]
    assert isinstance(outcome.errors[700], errors.MessageSizeTooLargeError)
    assert [offset for offset in outcome.offsets if offset >= 0] == list(range(1_999))
    assert holds(broker, outcome, values)


def test_time_runs_out(broker: ScriptedBroker, make: MakeProducer) -> None:
    made = make(delivery_timeout_ms=700, request_timeout_ms=600, batch_size=2_000)
    made.send("t", b"first", partition=0).get(10)
    broker.on(Api.PRODUCE).ignore()
    future = made.send_many("t", values_of(2_000), partition=0)
    with pytest.raises(errors.BatchDeliveryError) as raised:
        future.get(20)
    assert len(raised.value.metadata.errors) == 2_000
    assert {type(each) for each in raised.value.metadata.errors.values()} == {errors.KafkaTimeoutError}
    assert raised.value.maybe_written


def test_memory_runs_out_in_the_middle(broker: ScriptedBroker, make: MakeProducer) -> None:
    made = make(buffer_memory=100_000, batch_size=20_000, max_block_ms=300)
    made.send("t", b"first", partition=0).get(10)
    broker.by_hand = True
    values = [value * 20 for value in values_of(5_000)]
    began = time.monotonic()
    future = made.send_many("t", values, partition=0)
    assert time.monotonic() - began >= 0.3
    assert not future.is_done
    broker.by_hand = False
    broker.drop_connections()
    with pytest.raises(errors.BatchDeliveryError) as raised:
        future.get(20)
    outcome = raised.value.metadata
    accepted = 5_000 - len(outcome.errors)
    assert 300 < accepted < 900
    assert sorted(outcome.errors) == list(range(accepted, 5_000)), "those before it went on"
    assert "No room for" in str(outcome.errors[4_999])
    assert outcome.errors[4_999].maybe_written is False
    assert broker.values("t") == [b"first", *values[:accepted]]


def test_lists_that_are_changed_while_the_call_waits_for_room(broker: ScriptedBroker, make: MakeProducer) -> None:
    """What is sent is what was in the lists when they were handed over."""
    made = make(buffer_memory=60_000, batch_size=20_000)
    made.send("t", b"first", partition=0).get(10)
    broker.by_hand = True
    given = [value * 20 for value in values_of(3_000)]
    values, keys = list(given), [b"%d" % (number % 17) for number in range(3_000)]
    results: list[Any] = []
    sender = threading.Thread(target=lambda: results.append(made.send_many("t", values, keys)))
    sender.start()
    while made.stats().memory_used < 40_000:
        time.sleep(0.005)
    values[:] = [b"other"] * 9
    keys.clear()
    gc.collect()
    broker.by_hand = False
    broker.drop_connections()
    sender.join(30)
    outcome = results[0].get(30)
    assert holds(broker, outcome, given)
    assert sum(len(broker.values("t", number)) for number in range(PARTITIONS)) == 3_001


def test_lists_that_are_changed_while_the_call_waits_for_the_topic(broker: ScriptedBroker, make: MakeProducer) -> None:
    made = make()
    given = values_of(100)
    values = list(given)
    results: list[Any] = []
    sender = threading.Thread(target=lambda: results.append(made.send_many("t2", values, values)))
    with broker.on(Api.METADATA).hold():
        sender.start()
        asked = broker.next(Api.METADATA)
        values.clear()
    asked.accept()
    sender.join(30)
    assert results[0].get(30).errors == {}
    assert broker.values("t2", 0) == given


def test_closed_in_the_middle(broker: ScriptedBroker, make: MakeProducer) -> None:
    made = make(buffer_memory=100_000, batch_size=20_000)
    made.send("t", b"first", partition=0).get(10)
    broker.by_hand = True
    results: list[Any] = []
    sender = threading.Thread(target=lambda: results.append(made.send_many("t", [b"v" * 100] * 5_000, partition=0)))
    sender.start()
    broker.next_produce()
    while made.stats().memory_used < 80_000:
        time.sleep(0.005)
    with pytest.raises(errors.KafkaTimeoutError):
        made.close(0)
    sender.join(20)
    (future,) = results
    with pytest.raises(errors.BatchDeliveryError):
        future.get(20)
    kinds = {type(each) for each in future._outcome().errors.values()}
    assert kinds == {errors.IllegalStateError}
    assert len(future._outcome().errors) == 5_000


def test_failures_that_nobody_looks_at_are_counted(broker: ScriptedBroker, make: MakeProducer) -> None:
    made = make()
    broker.on_produce("t", 0).refuse(87)
    seen = made.send_many("t", values_of(4), partition=0)
    with pytest.raises(errors.BatchDeliveryError):
        seen.get(10)
    assert made.stats().unread_failures == 0
    unseen = made.send_many("t", values_of(3), partition=0)
    made.flush(10)
    assert made.stats().unread_failures == 3
    assert unseen.failed()
    assert made.stats().unread_failures == 0
    del seen, unseen
    gc.collect()
    assert made.stats().unread_failures == 0


def test_a_callback_is_no_look_at_the_failures(broker: ScriptedBroker, make: MakeProducer) -> None:
    """One for success alone is not told of them."""
    made = make()
    broker.on_produce("t", 0).refuse(87)
    calls: list[Any] = []
    future = made.send_many("t", values_of(3), partition=0)
    future.add_errback(calls.append)
    made.flush(10)
    eventually(lambda: calls)
    assert sorted(calls[0].errors) == [0, 1, 2]
    assert made.stats().unread_failures == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_in_the_middle(broker: ScriptedBroker, make: MakeProducer) -> None:
    """The child's copy has failed at once; the parent's goes on."""
    made = make()
    made.send("t", b"first", partition=0).get(10)
    broker.by_hand = True
    future = made.send_many("t", values_of(3), partition=0)
    child = os.fork()
    if child == 0:
        try:
            good = future.is_done and future.failed()
            good = good and all(error.maybe_written for error in future._outcome().errors.values())
            good = good and {type(error).__name__ for error in future._outcome().errors.values()} == {
                "IllegalStateError"
            }
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    broker.by_hand = False
    broker.drop_connections()
    assert list(future.get(20).offsets) == [1, 2, 3]
