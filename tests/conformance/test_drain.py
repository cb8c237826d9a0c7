"""Items 18 to 21: which partitions a request carries, and which have to wait."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from fastprod import errors
from fastprod.testing import ScriptedBroker

from .conftest import Make
from .story import SINGLE, offsets, send
from .test_expiry import SHORT, expire_in_flight

LONG: dict[str, Any] = {"linger_ms": 60_000, "delivery_timeout_ms": 120_000}


@pytest.mark.parametrize("per_request", [1, 3])
def test_drain_rotation(broker: ScriptedBroker, make: Make, per_request: int) -> None:
    """Requests take a few of many batches, and still every partition has its turn before one has a second."""
    broker.create_topic("many", 8)
    size = 100 + per_request * 1100
    made = make(**SINGLE, max_request_size=size, enable_idempotence=False, max_in_flight_requests_per_connection=1)
    made.send("t", b"first", partition=0).get(20)
    broker.by_hand = True
    # It keeps the connection busy until everything is queued.
    send(made, b"busy")
    busy = broker.next_produce()
    futures = [
        made.send("many", bytes(1000), partition=partition) for _ in range(per_request * 2) for partition in range(8)
    ]
    busy.accept()
    turns: list[int] = []
    while len(turns) < len(futures):
        request = broker.next_produce()
        assert len(request.batches) == per_request
        turns += [each.partition for each in request.batches]
        request.accept()
    for begin in range(0, len(turns), 8):
        assert sorted(turns[begin : begin + 8]) == list(range(8)), turns
    offsets(futures)


def test_drain_first_batch_always(broker: ScriptedBroker, make: Make) -> None:
    """A batch that is larger than a request may be goes all the same, and goes alone. With a codec batch_size is not
    bounded by max_request_size, because nobody knows before how large a batch will be; these cannot be compressed."""
    made = make(**LONG, batch_size=10_000, max_request_size=2000, compression_type="gzip")
    futures = [made.send("t", b"first", partition=partition) for partition in (0, 1)]
    made.flush(20)
    sizes: list[list[int]] = []
    for large, small in ((0, 1), (1, 0)):
        futures += send(made, *[os.urandom(1000) for _ in range(9)], partition=large)
        futures += send(made, b"small", partition=small)
        before = len(broker.requests)
        made.flush(20)
        sizes += [[batch.count for batch in each.batches] for each in broker.requests[before:] if each.batches]
    offsets(futures)
    assert sorted(sizes) == [[1], [1], [9], [9]]


def test_drain_blocked_tp_does_not_starve(broker: ScriptedBroker, make: Make) -> None:
    """Nobody knows what became of a batch of partition 0, so nothing new of it leaves. The others of the same node go
    on, in whichever order they come (Java's producer ends its round there)."""
    broker.add_partitions("t", 6)
    made = make(**SINGLE, **SHORT)
    for partition in range(6):
        made.send("t", b"first", partition=partition).get(20)
    broker.by_hand = True
    _, request = expire_in_flight(broker, made)
    (follower,) = send(made, b"2")
    behind = broker.next_produce()
    request.lose()
    again = broker.next_produce()
    assert again.batch.data == behind.batch.data
    blocked = send(made, b"3")
    # Answers leave in the order of requests, so with that one open there is room for four more.
    neighbours = []
    for partition in (3, 1, 5, 2):
        neighbours += send(made, b"neighbour", partition=partition)
        request = broker.next_produce()
        assert request.batch.partition == partition
        request.accept()
    broker.nothing_more()
    assert not blocked[0].is_done
    broker.by_hand = False
    again.answer()
    assert offsets([follower, *blocked]) == [2, 3]
    assert offsets(neighbours) == [1] * 4


@pytest.mark.parametrize("end", ["success", "failure", "split"])
def test_muted_partition(broker: ScriptedBroker, make: Make, end: str) -> None:
    """Until its first batch is answered nothing else of a partition leaves, though it is full and a flush waits; others
    go on. Whatever its end, the partition goes on then."""
    broker.by_hand = True
    made = make(**LONG, batch_size=100)
    futures = send(made, b"1", b"2", bytes(100))
    first = broker.next_produce()
    assert first.batch.values == [b"1", b"2"]
    flushing = threading.Thread(target=lambda: made.flush(20))
    flushing.start()
    broker.nothing_more()
    (other,) = send(made, bytes(100), partition=1)
    beside = broker.next_produce()
    assert beside.batch.partition == 1
    broker.nothing_more()
    if end == "success":
        first.accept()
    else:
        first.refuse(10 if end == "split" else 87)
    beside.accept()
    assert other.get(20).offset == 0
    expected = [[b"1"], [b"2"], [bytes(100)]] if end == "split" else [[bytes(100)]]
    for values in expected:
        request = broker.next_produce()
        assert request.batch.values == values
        request.accept()
    flushing.join(20)
    assert not flushing.is_alive()
    if end == "failure":
        for each in futures[:2]:
            assert isinstance(each.exception, errors.InvalidRecordError)
        assert futures[2].get(20).offset == 0
    else:
        assert offsets(futures) == [0, 1, 2]
