"""Items 24 and 25: `buffer_memory` is shared out fairly, and all of it comes back."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from patience import eventually, in_time

from fastprod import KafkaProducer, errors
from fastprod.testing import Pending, ScriptedBroker

from .conftest import Make
from .story import SINGLE, send


class Sender:
    """A thread that sends one record; it is inside `send` when the constructor returns."""

    def __init__(self, made: KafkaProducer, value: bytes, done: Callable[[], Any] = lambda: None) -> None:
        self.error: Exception | None = None
        self.future: Any = None

        def run() -> None:
            try:
                self.future = made.send("t", value, partition=0)
                done()
            except Exception as error:
                self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()
        eventually(lambda: not self._thread.is_alive() or self._is_in(run.__code__))
        # Its place in the line for memory cannot be seen from outside; it gets there at once.
        time.sleep(0.05)

    def _is_in(self, code: Any) -> bool:
        frame = sys._current_frames().get(self._thread.ident or 0)
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        return frame is not None

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


def two_of_40_000_bytes(broker: ScriptedBroker, made: KafkaProducer) -> list[Pending]:
    """Two records in flight, each in a request of its own."""
    requests = []
    for partition in (0, 1):
        send(made, bytes(40_000), partition=partition)
        requests.append(broker.next_produce())
    return requests


def test_pool_fairness(broker: ScriptedBroker, make: Make) -> None:
    """First come, first served, though there is room for a later and smaller one."""
    made = make(**SINGLE, buffer_memory=100_000)
    broker.by_hand = True
    requests = two_of_40_000_bytes(broker, made)
    line: list[str] = []
    large = Sender(made, b"large" + bytes(70_000), lambda: line.append("large"))
    small = Sender(made, b"small", lambda: line.append("small"))
    requests[0].accept()
    time.sleep(0.2)
    assert line == [], "60,000 bytes are free, and the first in line needs 70,000"
    requests[1].accept()
    for each in (large, small):
        each.join()
    # Both have got their memory now; which thread then comes first is nobody's promise.
    assert sorted(line) == ["large", "small"]
    broker.by_hand = False


def test_pool_fairness_and_who_gives_up(broker: ScriptedBroker, make: Make) -> None:
    """What the first in line had been given already is for the next one."""
    made = make(**SINGLE, buffer_memory=100_000, max_block_ms=1500)
    broker.by_hand = True
    requests = two_of_40_000_bytes(broker, made)
    large = Sender(made, bytes(90_000))
    time.sleep(0.5)
    small = Sender(made, bytes(50_000))
    requests[0].accept()
    large.join()
    assert isinstance(large.error, errors.KafkaTimeoutError)
    small.join()
    assert small.error is None
    requests[1].accept()
    broker.next_produce().accept()
    assert small.future.get(20).offset == 1


def test_pool_fairness_close_wakes_all(broker: ScriptedBroker, make: Make) -> None:
    made = make(**SINGLE, buffer_memory=10_000)
    broker.by_hand = True
    send(made, bytes(9_000))
    senders = [Sender(made, bytes(9_000)) for _ in range(5)]
    with in_time("close(0)", 0):
        with pytest.raises(errors.KafkaTimeoutError):
            made.close(0)
        for each in senders:
            each.join()
            assert isinstance(each.error, errors.IllegalStateError)


@pytest.mark.parametrize("seed", range(3))
def test_pool_accounting(broker: ScriptedBroker, make: Make, seed: int) -> None:
    """After errors, splits, lost answers and expiry a record that takes all of the memory is accepted at once."""
    memory = 200_000
    made = make(
        batch_size=20_000, buffer_memory=memory, max_request_size=memory, max_block_ms=20_000,
        request_timeout_ms=400, delivery_timeout_ms=800, retries=5,
    )  # fmt: skip
    chance = random.Random(seed)
    broker.change_topic("t", max_message_bytes=12_000)

    def trouble(_: object) -> bool:
        return chance.random() < 0.3

    for act in (
        lambda rule: rule.refuse(19), lambda rule: rule.refuse(87), lambda rule: rule.lose(),
        lambda rule: rule.drop(), lambda rule: rule.ignore(applied=True), lambda rule: rule.answer(cut_at=9),
    ):  # fmt: skip
        for _ in range(3):
            act(broker.on_produce(when=trouble, times=1))
    futures = []
    for number in range(1500):
        futures.append(made.send("t", bytes(chance.randrange(4000)), partition=number % 2))
    made.flush(60)
    assert all(each.is_done for each in futures)
    assert {each.failed() for each in futures} == {True, False}
    broker.change_topic("t", max_message_bytes=2 * memory)
    # All of its size but what a batch and a record need around the value.
    value = bytes(memory - 200)
    made.partitions_for("other")
    before = len(broker.log("other"))
    for number in range(2):
        assert made.send("other", value, partition=0).get(20).offset == before + number


def test_pool_accounting_of_compressed_batches(broker: ScriptedBroker, make: Make) -> None:
    """They are charged what they took before: split, they take it again."""
    broker.add_partitions("t", 8)
    # On a busy machine each batch may be compressed at another time, and leave in a request of its own.
    many = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 8}
    made = make(
        compression_type="gzip", batch_size=10_000, linger_ms=10, buffer_memory=72_000, max_block_ms=200, **many
    )
    broker.by_hand = True
    futures = [made.send("t", bytes(4_000), partition=number) for number in range(8) for _ in range(2)]
    requests = [broker.next_produce()]
    while sum(len(each.batches) for each in requests) < 8:
        requests.append(broker.next_produce())
    assert sum(len(each.data) for request in requests for each in request.batches) < 8_000
    with pytest.raises(errors.KafkaTimeoutError, match="No room"):
        made.send("t", bytes(9_000), partition=0)
    broker.by_hand = False
    for each in requests:
        each.refuse(10)
    for each in futures:
        each.get(20)
        assert made.stats().memory_used <= 72_000 + 10_000
    assert sum(len(broker.values("t", number)) for number in range(8)) == 16
