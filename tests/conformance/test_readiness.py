"""Items 16 and 17: what lets a batch leave, and how long the I/O thread sleeps when nothing does.

ready_txn_completing is missing: transactions are not built yet.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import Any

import pytest
from patience import check_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Api, ScriptedBroker

from .conftest import Make
from .story import offsets, send

# Longer than any of these tests lasts, so that whatever leaves has another reason.
LONG: dict[str, Any] = {"linger_ms": 60_000, "delivery_timeout_ms": 120_000}


def test_ready_full(broker: ScriptedBroker, make: Make) -> None:
    """A full batch leaves at once, and the one behind it waits."""
    broker.by_hand = True
    made = make(**LONG, batch_size=1000)
    futures = send(made, *[bytes(300)] * 3)
    # Three records of 300 bytes and some fit; whether there is room for more only a fourth one tells.
    broker.nothing_more()
    futures += send(made, bytes(300))
    request = broker.next_produce()
    assert request.batch.count == 3
    request.accept()
    assert offsets(futures[:3]) == [0, 1, 2]
    broker.nothing_more()
    assert not futures[3].is_done


def test_ready_linger(broker: ScriptedBroker, make: Make) -> None:
    """Counted from the first record, though more come."""
    broker.by_hand = True
    made = make(linger_ms=700)
    made.partitions_for("t")
    began = time.monotonic()
    send(made, b"1")
    time.sleep(0.35)
    send(made, b"2")
    request = broker.next_produce()
    assert request.batch.values == [b"1", b"2"]
    check_time("linger_ms=700", request.at - began, 0.7, at_least_s=0.7, early_s=0.01)
    request.accept()


def test_ready_behind_others(broker: ScriptedBroker, make: Make) -> None:
    """Half of the requests that may be in flight leave as soon as there is a record. Each of the others leaves a part
    of the round trip after the one before, and takes along what comes until then."""
    broker.by_hand = True
    made = make(max_in_flight_requests_per_connection=3)
    (first,) = send(made, b"first")
    request = broker.next_produce()
    time.sleep(3)   # the round trip, of which a part is a wait that can be told from a busy machine
    request.accept()
    assert offsets([first]) == [0]
    futures, requests = [], []
    for value in (b"1", b"2"):
        futures += send(made, value)
        requests.append(broker.next_produce())
    began = time.monotonic()
    futures += send(made, b"3")
    broker.nothing_more()
    # An answer makes room, and it waits no longer.
    requests[0].accept()
    requests.append(broker.next_produce())
    check_time("a third of the round trip", requests[2].at - began, 3 / 3, slack_s=0)
    futures += send(made, b"4", b"5")
    requests.append(broker.next_produce())
    assert [each.batch.values for each in requests] == [[b"1"], [b"2"], [b"3"], [b"4", b"5"]]
    # The round trip is a moving average, and the last one was short.
    check_time("seven eighths of it", requests[3].at - began, 3 / 3, at_least_s=3 / 3 * 7 / 8, early_s=0.02)
    for each in requests[1:]:
        each.accept()
    assert offsets(futures) == [1, 2, 3, 4, 5]


def test_ready_flush(broker: ScriptedBroker, make: Make) -> None:
    """It concerns what is there when it is called; what comes later lingers."""
    broker.by_hand = True
    made = make(**LONG)
    futures = send(made, b"1") + send(made, b"2", partition=1)
    broker.nothing_more()
    flushing = threading.Thread(target=made.flush)
    flushing.start()
    seen = []
    while len(seen) < 2:
        request = broker.next_produce()
        seen += [value for batch in request.batches for value in batch.values]
        futures += send(made, b"later")
        request.accept()
    flushing.join(20)
    assert not flushing.is_alive()
    assert sorted(seen) == [b"1", b"2"]
    broker.nothing_more()
    assert [each.is_done for each in futures[:2]] == [True, True]
    assert not any(each.is_done for each in futures[2:])


def test_ready_close(broker: ScriptedBroker, make: Make) -> None:
    broker.by_hand = True
    made = make(**LONG)
    (future,) = send(made, b"1")
    broker.nothing_more()
    closing = threading.Thread(target=made.close)
    closing.start()
    broker.next_produce().accept()
    closing.join(20)
    assert not closing.is_alive()
    assert future.get(20).offset == 0


def test_ready_exhausted(broker: ScriptedBroker, make: Make) -> None:
    """Somebody waits for memory: what is there leaves, and its memory goes to who waits."""
    broker.by_hand = True
    made = make(**LONG, buffer_memory=100_000, batch_size=80_000)
    futures = send(made, bytes(60_000))
    broker.nothing_more()
    waiting = threading.Thread(target=lambda: futures.extend(send(made, bytes(60_000), partition=1)))
    waiting.start()
    request = broker.next_produce()
    assert request.batch.partition == 0
    assert waiting.is_alive()
    request.accept()
    waiting.join(20)
    assert offsets(futures[:1]) == [0]
    # Nobody waits now.
    broker.nothing_more()
    assert [each.is_done for each in futures] == [True, False]


def flush_in_vain(made: KafkaProducer) -> None:
    with contextlib.suppress(errors.KafkaTimeoutError):
        made.flush(0.1)


def test_next_ready_delay(broker: ScriptedBroker, make: Make) -> None:
    """The I/O thread sleeps until the first of: the end of a backoff, of linger, of a batch's time. Nothing else wakes
    it, and each is met before the next one is due."""
    made = make(linger_ms=2000, request_timeout_ms=2000, delivery_timeout_ms=4000, retry_backoff_ms=600)
    made.send("t", b"first", partition=0)
    made.send("t", b"first", partition=1)
    made.flush(20)
    broker.by_hand = True
    (retried,) = send(made, b"1", partition=1)
    # Else it lingers, too.
    flushing = threading.Thread(target=flush_in_vain, args=(made,))
    flushing.start()
    request = broker.next_produce()
    flushing.join()
    (lingering,) = send(made, b"2")
    sent = time.monotonic()
    request.refuse(19)
    again = broker.next_produce()
    assert again.batch.data == request.batch.data
    assert 0.8 * 0.6 - 0.02 <= again.at - sent < 1.7
    again.accept()
    lingered = broker.next_produce()
    assert lingered.batch.values == [b"2"]
    assert 2.0 - 0.02 <= lingered.at - sent < 3.5
    lingered.accept()
    assert offsets([retried, lingering]) == [1, 1]


def test_next_ready_delay_of_expiry(broker: ScriptedBroker, make: Make) -> None:
    """The request that is open then lives 1.5 s longer."""
    made = make(request_timeout_ms=2000, delivery_timeout_ms=2000)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    began = time.monotonic()
    (future,) = send(made, b"1")
    broker.next_produce().refuse(19, delay_s=1.5)
    request = broker.next_produce()
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(20)
    took_s = time.monotonic() - began
    check_time("delivery_timeout_ms=2000", took_s, 2.0, at_least_s=2.0, slack_s=1.3, early_s=0.02)
    assert not request.abandoned


def test_next_ready_delay_of_connections(two: ScriptedBroker, make: Make) -> None:
    """Between attempts to connect lies reconnect_backoff_ms, doubled each time, and not more."""
    made = make(reconnect_backoff_ms=200, reconnect_backoff_max_ms=800, bootstrap_servers=two.address(2))
    made.send("t", b"first", partition=0).get(20)
    refusing = two.on(Api.API_VERSIONS, node=1).drop()
    before = len(attempts(two))
    two.drop_connections(1)
    (future,) = send(made, b"1")
    two.wait_until(lambda: len(attempts(two)) >= before + 5)
    times = attempts(two)[before:]
    refusing.remove()
    assert future.get(20).offset == 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    for pause, expected in zip(pauses, (0.2, 0.4, 0.8, 0.8), strict=False):
        check_time("reconnect_backoff_ms=200", pause, 1.2 * expected, at_least_s=0.8 * expected, early_s=0.02)


def attempts(two: ScriptedBroker) -> list[float]:
    return [each.at for each in two.requests_of(Api.API_VERSIONS) if each.node == 1]
