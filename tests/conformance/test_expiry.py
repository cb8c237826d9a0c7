"""Items 26 to 29 and 52 to 55: batches whose time runs out, and what becomes of their sequences."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import pytest
from patience import check_time, eventually

from fastprod import KafkaProducer, errors
from fastprod.testing import Pending, ScriptedBroker

from .conftest import Make
from .story import ID, SINGLE, offsets, proven, send

# A request lives as long as its batch may, so one that is sent later than its batch was made outlives it.
SHORT: dict[str, Any] = {"request_timeout_ms": 1900, "delivery_timeout_ms": 2000}


def expire_in_flight(broker: ScriptedBroker, made: KafkaProducer, value: bytes = b"1") -> tuple[Any, Pending]:
    """A batch that expired while its second request is open: its future and that request."""
    (future,) = send(made, value)
    broker.next_produce().refuse(19, delay_s=1.0)
    request = broker.next_produce()
    with pytest.raises(errors.KafkaTimeoutError) as caught:
        future.get(20)
    assert caught.value.maybe_written is True  # type: ignore[attr-defined]
    assert not request.abandoned
    return future, request


def test_no_buffer_reuse_in_flight(broker: ScriptedBroker, make: Make) -> None:
    """Most of an expired batch is still to be written: nobody gets its memory, and what arrives is what was sent."""
    memory: dict[str, Any] = {"buffer_memory": 3_500_000, "max_request_size": 2_000_000, "max_block_ms": 500}
    times: dict[str, Any] = {"request_timeout_ms": 2900, "delivery_timeout_ms": 3000, "retry_backoff_ms": 100}
    broker.change_topic("t", max_message_bytes=2_000_000)
    made = proven(broker, make, **memory, **times, send_buffer_bytes=131_072)
    value = os.urandom(1_500_000)
    (future,) = send(made, value)
    request = broker.next_produce()
    # So much later is its second request, and outlives it.
    time.sleep(max(0.0, request.at + 1.5 - time.monotonic()))
    request.refuse(19)
    broker.pause()
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(20)
    send(made, b"x" * 1_500_000, partition=1)
    with pytest.raises(errors.KafkaTimeoutError, match="buffer_memory"):
        send(made, b"x" * 1_500_000, partition=1)
    broker.resume()
    again = broker.next_produce()
    assert again.batch.data == request.batch.data
    assert again.batch.values == [value]


def test_expiry_queued_and_in_flight(broker: ScriptedBroker, make: Make) -> None:
    """Both end at their time, in several partitions at once, and callbacks keep the order of each partition."""
    made = make(**SINGLE, **SHORT)
    for partition in (0, 1):
        made.send("t", b"first", partition=partition).get(20)
    broker.on_produce().ignore()
    called: list[tuple[int, int]] = []
    began = time.monotonic()
    futures = []
    for number, partition in itertools.product(range(9), (0, 1)):
        future = made.send("t", b"%d" % number, partition=partition)
        future.add_errback(lambda _, place=(partition, number): called.append(place))
        futures.append(future)
    for future in futures:
        with pytest.raises(errors.KafkaTimeoutError):
            future.get(20)
    check_time("delivery_timeout_ms=2000", time.monotonic() - began, 2.0, at_least_s=2.0)
    eventually(lambda: len(called) == 18)
    for partition in (0, 1):
        assert [number for where, number in called if where == partition] == list(range(9))
    arrived = {(each.partition, each.values[0]) for each in broker.batches if each.values != [b"first"]}
    assert 5 <= len(arrived) <= 10
    for number, future in enumerate(futures):
        assert future.exception.maybe_written is ((number % 2, b"%d" % (number // 2)) in arrived)


def test_append_inside_expiry_callback(broker: ScriptedBroker, make: Make) -> None:
    made = proven(broker, make, **SHORT)
    again: list[Any] = []
    (future,) = send(made, b"1")
    future.add_errback(lambda _: again.extend(send(made, b"again", partition=1)))
    broker.next_produce().ignore()
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(20)
    broker.by_hand = False
    assert eventually(lambda: again)[0].get(20).offset == 0
    assert broker.values("t", 1) == [b"again"]


@pytest.mark.parametrize("code", [0, 10, 19, 45, 87])
def test_late_response_after_expiry(broker: ScriptedBroker, make: Make, code: int) -> None:
    """The future has ended: an answer of any kind changes it no more, and nothing is sent again or split."""
    made = make(**SHORT, linger_ms=20)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    futures = send(made, b"1", b"2", b"3")
    calls: list[Any] = []
    futures[0].add_both(calls.append)
    broker.next_produce().refuse(19, delay_s=1.0)
    request = broker.next_produce()
    assert request.batch.count == 3
    for future in futures:
        with pytest.raises(errors.KafkaTimeoutError):
            future.get(20)
    ended = [each.exception for each in futures]
    if code:
        request.refuse(code)
    else:
        request.accept()
    broker.nothing_more()
    assert [each.exception for each in futures] == ended
    assert calls == ended[:1]
    broker.by_hand = False
    assert made.send("t", b"later", partition=0).get(20).offset == (1 if code else 4)
    # Futures keep what they have shown; the counts would tell of another end.
    stats = made.stats()
    assert (stats.acknowledged.records, stats.failed.records) == (2, 3)


def test_expiry_then_success_resolves(broker: ScriptedBroker, make: Make) -> None:
    """The answer to one that was sent before tells what became of it: no new epoch. Meanwhile nothing new is sent."""
    made = proven(broker, make, **SHORT)
    future, request = expire_in_flight(broker, made)
    later = send(made, b"2", b"3")
    request.accept()
    for number in (2, 3):
        behind = broker.next_produce()
        assert behind.batch.stamp == (ID, 0, number)
        behind.accept()
    assert offsets(later) == [2, 3]
    assert future.failed()
    assert broker.values("t") == [b"first", b"1", b"2", b"3"]


def test_expiry_then_success_resolves_by_a_follower(broker: ScriptedBroker, make: Make) -> None:
    """It was written and its answer is lost: the follower in flight behind it fits, and new ones wait till then."""
    made = proven(broker, make, **SHORT)
    future, request = expire_in_flight(broker, made)
    (follower,) = send(made, b"2")
    behind = broker.next_produce()
    request.lose()
    again = broker.next_produce()
    assert again.batch.data == behind.batch.data
    (new,) = send(made, b"3")
    broker.nothing_more()
    again.accept()
    last = broker.next_produce()
    assert last.batch.stamp == (ID, 0, 3)
    last.accept()
    assert offsets([follower, new]) == [2, 3]
    assert future.failed()


def test_expiry_then_45_bumps(broker: ScriptedBroker, make: Make) -> None:
    """It was not written: the follower is told so and goes on under the next epoch, without anybody's help."""
    made = proven(broker, make, request_timeout_ms=3900, delivery_timeout_ms=4000)
    future, request = expire_in_flight(broker, made)
    (follower,) = send(made, b"2")
    assert broker.next_produce().batch.stamp == (ID, 0, 2)
    request.drop()
    broker.by_hand = False
    assert follower.get(20).offset == 1
    assert broker.log("t")[-1].stamp == (ID, 1, 0)
    assert future.failed()
    assert broker.values("t") == [b"first", b"2"]


def test_all_expired_bumps(broker: ScriptedBroker, make: Make) -> None:
    """Nobody is left who could tell what became of them."""
    made = make(**SINGLE, **SHORT)
    made.send("t", b"first", partition=0).get(20)
    with broker.on_produce().ignore():
        futures = send(made, *[b"%d" % number for number in range(8)])
        for future in futures:
            with pytest.raises(errors.KafkaTimeoutError):
                future.get(20)
    broker.drop_connections()
    (later,) = send(made, b"later")
    assert later.get(20).offset == 1
    assert [each.stamp for each in broker.log("t")] == [(ID, 0, 0), (ID, 1, 0)]


def test_unsent_expiry_no_gap(broker: ScriptedBroker, make: Make) -> None:
    """It never had a sequence, so the next one takes it."""
    made = make(**SINGLE, **SHORT, metadata_max_age_ms=200)
    made.send("t", b"first", partition=0).get(20)
    broker.move_leader("t", 0, -1)
    asked = broker.count(3)
    broker.wait_for(3, asked + 2)
    (future,) = send(made, b"never sent")
    with pytest.raises(errors.KafkaTimeoutError) as caught:
        future.get(20)
    assert caught.value.maybe_written is False  # type: ignore[attr-defined]
    broker.move_leader("t", 0, 1)
    (later,) = send(made, b"later")
    assert later.get(20).offset == 1
    assert [each.stamp for each in broker.log("t")] == [(ID, 0, 0), (ID, 0, 1)]


def test_retry_exhaustion_marks_unresolved(broker: ScriptedBroker, make: Make) -> None:
    """Finite retries end without a definite answer, and the partition goes on."""
    made = proven(broker, make, retries=1)
    futures = send(made, b"1", b"2")
    requests = [broker.next_produce() for _ in futures]
    requests[0].drop()
    broker.next_produce().drop()
    broker.next_produce().drop()
    for future in futures:
        with pytest.raises(errors.KafkaConnectionError) as caught:
            future.get(20)
        assert caught.value.maybe_written is True  # type: ignore[attr-defined]
    broker.by_hand = False
    (later,) = send(made, b"3")
    assert later.get(20).offset == 1
    assert broker.log("t")[-1].stamp == (ID, 1, 0), "only a new epoch is safe"
