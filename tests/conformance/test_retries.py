"""Items 22, 23, 32 and 33: what is sent again, when, and how often."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from patience import check_time, eventually

from fastprod import errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import Make
from .story import SINGLE, in_flight, offsets, proven, send


@pytest.mark.parametrize("code", [2, 3, 6, 7, 19, 20, 56, 89])
def test_retry_order(broker: ScriptedBroker, make: Make, code: int) -> None:
    """A retried batch goes before newer ones; with idempotence in the order of sequences."""
    made = proven(broker, make)
    futures, requests = in_flight(broker, made, 5)
    futures += send(made, b"6", b"7")
    requests[0].refuse(code)
    for each in requests[1:]:
        each.answer()
    again = [broker.next_produce()]
    broker.nothing_more(0.1)
    while len(again) <= 7 and again[-1].batch.values != [b"7"]:
        again[-1].accept()
        again.append(broker.next_produce())
    again[-1].accept()
    assert [each.batch.values for each in again] == [[b"%d" % number] for number in range(1, 8)]
    assert [each.batch.data for each in again[:5]] == [each.batch.data for each in requests]
    assert offsets(futures) == list(range(1, 8))


def test_retry_order_without_idempotence(broker: ScriptedBroker, make: Make) -> None:
    """One in flight: in front of the queue."""
    broker.by_hand = True
    made = make(**SINGLE, enable_idempotence=False, max_in_flight_requests_per_connection=1)
    futures = send(made, b"1", b"2", b"3")
    broker.next_produce().refuse(19)
    for value in (b"1", b"2", b"3"):
        request = broker.next_produce()
        assert request.batch.values == [value]
        request.accept()
    assert offsets(futures) == [0, 1, 2]


def test_backoff_bounds(broker: ScriptedBroker, make: Make) -> None:
    """250, 500, and then 1000 ms each time (the cap), within 20 %."""
    made = proven(broker, make, retry_backoff_ms=250)
    (future,) = send(made, b"1")
    times = []
    for _ in range(6):
        request = broker.next_produce()
        times.append(request.at)
        request.refuse(19)
    broker.next_produce().accept()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    for pause, expected in zip(pauses, (0.25, 0.5, 1.0, 1.0, 1.0), strict=True):
        # The cap is one for the jitter, too.
        most = min(1.0, 1.2 * expected)
        check_time("retry_backoff_ms=250", pause, most, at_least_s=0.8 * expected, early_s=0.02)
    # Without a cap it would be 4000 ms, 20 % less at the least.
    check_time("the cap", pauses[4], 1.0, slack_s=2.0)
    assert future.get(20).offset == 1


def test_backoff_bounds_newer_leader(two: ScriptedBroker, make: Make) -> None:
    """A newer leader epoch is no reason to wait."""
    made = proven(two, make, retry_backoff_ms=20_000)
    (future,) = send(made, b"1")
    request = two.next_produce()
    two.move_leader("t", 0, 2)
    request.refuse(6, leader=2)
    again = two.next_produce()
    assert again.request.node == 2
    check_time("no pause", again.at - request.at, 0)
    again.accept()
    assert future.get(20).offset == 1


@pytest.mark.parametrize("idempotent", [True, False])
def test_order_in_flight_1(broker: ScriptedBroker, make: Make, idempotent: bool) -> None:
    made = make(**SINGLE, enable_idempotence=idempotent, max_in_flight_requests_per_connection=1)
    broker.by_hand = True
    futures = send(made, b"1", b"2")
    for _ in range(3):
        request = broker.next_produce()
        assert request.batch.values == [b"1"]
        broker.nothing_more(0.1)
        request.refuse(19)
    broker.next_produce().accept()
    broker.next_produce().accept()
    assert offsets(futures) == [0, 1]
    assert broker.values("t") == [b"1", b"2"]


@pytest.mark.parametrize("idempotent", [True, False])
def test_order_in_flight_1_across_leaders(two: ScriptedBroker, make: Make, idempotent: bool) -> None:
    """The one in flight is in flight wherever it went: the new leader gets nothing before it is back."""
    options: dict[str, Any] = {"enable_idempotence": idempotent, "max_in_flight_requests_per_connection": 1}
    made = proven(two, make, **options, metadata_max_age_ms=100)
    futures = send(made, b"1")
    old = two.next_produce()
    two.move_leader("t", 0, 2)
    asked = two.count(Api.METADATA)
    two.wait_for(Api.METADATA, asked + 2)
    futures += send(made, b"2")
    two.nothing_more()
    old.refuse(6)
    for value in (b"1", b"2"):
        request = two.next_produce()
        assert (request.request.node, request.batch.values) == (2, [value])
        request.accept()
    assert offsets(futures) == [1, 2]


@pytest.mark.parametrize("idempotent", [True, False])
def test_order_in_flight_1_and_the_first_one_expired(broker: ScriptedBroker, make: Make, idempotent: bool) -> None:
    """Its request is still open, so the second one waits."""
    options: dict[str, Any] = {"request_timeout_ms": 900, "delivery_timeout_ms": 1000}
    made = make(**SINGLE, **options, enable_idempotence=idempotent, max_in_flight_requests_per_connection=1)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    (first,) = send(made, b"1")
    # Refused once, late, so that the second request outlives the batch.
    broker.next_produce().refuse(19, delay_s=0.5)
    request = broker.next_produce()
    with pytest.raises(errors.KafkaTimeoutError):
        first.get(20)
    (second,) = send(made, b"2")
    broker.nothing_more(0.15)
    assert not request.abandoned
    request.accept()
    last = broker.next_produce()
    assert last.batch.values == [b"2"]
    last.accept()
    assert second.get(20).offset == 2
    assert broker.values("t") == [b"first", b"1", b"2"]


@pytest.mark.parametrize("retries", [1, 3])
def test_retries_exhausted(broker: ScriptedBroker, make: Make, retries: int) -> None:
    made = make(**SINGLE, retries=retries)
    broker.on_produce(times=retries).refuse(3)
    broker.on_produce().refuse(19)
    (future,) = send(made, b"1")
    with pytest.raises(errors.NotEnoughReplicasError):
        future.get(20)
    broker.on_produce().answer()
    eventually(lambda: made.send("t", b"2", partition=0).get(20))
    sent = [each for each in broker.batches if each.values == [b"1"]]
    assert len(sent) == retries + 1
    assert len({each.data for each in sent}) == 1


def test_retries_exhausted_at_once(broker: ScriptedBroker, make: Make) -> None:
    made = make(**SINGLE, retries=0)
    broker.on_produce(times=1).refuse(19)
    first, second = send(made, b"1", b"2")
    with pytest.raises(errors.NotEnoughReplicasError):
        first.get(20)
    assert second.get(20).offset == 0
    assert broker.values("t") == [b"2"]
