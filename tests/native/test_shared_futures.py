"""One future, one producer, one topic under the hands of eight threads at once.

What excludes what is told in DESIGN.md ("Without a GIL"). With a GIL these tests pass the sooner; the interpreter that
they are meant for is one without (`PYTHON_GIL=0`), where each of the eight runs.
"""

from __future__ import annotations

import collections
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import fastprod._core as native
import pytest

from fastprod import KafkaProducer, config, errors
from fastprod.testing import ScriptedBroker

THREADS = 8
ROUNDS = 25
TOPIC = "t"
TOO_LARGE = 10


@pytest.fixture(autouse=True)
def _quick_turns() -> Iterator[None]:
    """With a GIL: let it go round as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do all of this in threads that begin together; what each returned or raised."""
    ready = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)

    def work(number: int) -> None:
        ready.wait()
        try:
            results[number] = works[number]()
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(works))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
        assert not each.is_alive(), "a call does not return"
    return results


class Plane:
    """A data plane from which nothing leaves, and a producer on it."""

    def __init__(self, partitions: int, **options: Any) -> None:
        self._events, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self.plane = native.DataPlane(config.load(options).plane_options(), self._wake.fileno())
        self.route = self.plane.set_topic(TOPIC, None, [-1] * partitions)
        self.producer = native.ProducerBase()
        self.producer._bind(self.plane, None, None, None, native.PARTITION_DEFAULT, None, None)

    def end(self) -> None:
        self.plane.close_appends()
        self.plane.abort(lambda: errors.IllegalStateError("the end"))
        while self.plane.run_callbacks():
            pass
        self._events.close()
        self._wake.close()


@pytest.fixture
def plane() -> Iterator[Plane]:
    made = Plane(3, buffer_memory=1 << 30)   # nobody may wait for memory
    yield made
    made.end()


def test_a_failure_is_one_object_and_read_once() -> None:
    with ScriptedBroker({TOPIC: 1}) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, retries=0, linger_ms=5)
        broker.on_produce().refuse(TOO_LARGE)
        for _ in range(ROUNDS):
            future = producer.send(TOPIC, b"x")
            looks = [lambda: future.exception, lambda: future.failed() and future.exception]   # noqa: B023
            called: list[Any] = []
            register = lambda: future.add_errback(called.append)   # noqa: B023, E731
            seen = at_once(*looks * 3, register, register)[:6]
            with pytest.raises(errors.MessageSizeTooLargeError):
                future.get(10)
            assert {id(each) for each in seen if each} <= {id(future.exception)}
            producer.flush(10)
            assert len(called) == 2
        assert producer.stats().unread_failures == 0
        producer.close()


def test_only_one_ends_a_future_by_hand(plane: Plane) -> None:
    for _ in range(ROUNDS):
        future = plane.producer.send(TOPIC, b"x")
        called: list[Any] = []
        ends = [lambda number=number: future.success(number) for number in range(3)]   # noqa: B023
        ends += [lambda: future.failure(errors.KafkaTimeoutError("by hand"))] * 2   # noqa: B023
        others = [lambda: future.add_both(called.append)] * 2 + [lambda: future.exception]   # noqa: B023
        results = at_once(*ends, *others)
        won = [number for number in range(5) if results[number] is future]
        assert len(won) == 1
        assert sum(isinstance(each, errors.IllegalStateError) for each in results) == 4
        outcome = future.value if won[0] < 3 else future.exception
        assert outcome == won[0] if won[0] < 3 else isinstance(outcome, errors.KafkaTimeoutError)
        assert called == [outcome] * 2


def test_each_callback_runs_once() -> None:
    with ScriptedBroker({TOPIC: 2}) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        called: collections.Counter[int] = collections.Counter()
        lock = threading.Lock()

        def note(number: int, _: Any) -> None:
            with lock:
                called[number] += 1

        futures = [producer.send(TOPIC, b"x", partition=number % 2) for number in range(ROUNDS)]

        def register() -> None:
            for number, future in enumerate(futures):
                future.add_callback(note, number)
                future.get(10)

        assert at_once(*[register] * THREADS) == [None] * THREADS
        producer.flush(10)
        assert called == dict.fromkeys(range(ROUNDS), THREADS)
        producer.close()


def test_partitions_come_and_go_beneath_senders(plane: Plane) -> None:
    futures: list[list[Any]] = [[] for _ in range(THREADS)]
    until = time.monotonic() + 1   # a turn each, however late they begin

    def send(number: int) -> None:
        chance = random.Random(number)
        while True:
            key = chance.choice([None, b"k%d" % chance.randrange(99)])
            if chance.random() < 0.1:
                futures[number].append(plane.producer.send_many(TOPIC, [b"many"] * 20, [key] * 20))
            else:
                futures[number].append(plane.producer.send(TOPIC, b"one", key))
            del futures[number][:-500]
            if time.monotonic() >= until:
                return

    def change() -> None:
        chance = random.Random(9)
        while time.monotonic() < until:
            plane.plane.set_topic(TOPIC, None, [-1] * chance.choice([1, 2, 3, 9, 40, 200]))
            plane.plane.counters()

    results = at_once(*[lambda number=number: send(number) for number in range(THREADS)], change)
    assert results == [None] * (THREADS + 1)
    plane.plane.abort(lambda: errors.IllegalStateError("the end"))
    assert all(each.is_done and each.failed() for mine in futures for each in mine)
    counted = plane.plane.counters()
    assert counted["records_queued"] == counted["memory_used"] == 0
    assert counted["records_appended"] == counted["records_failed"] > 0


def test_one_batch_future_in_many_hands() -> None:
    with ScriptedBroker({TOPIC: 3}) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, batch_size=500)
        for _ in range(ROUNDS):
            many = producer.send_many(TOPIC, [b"value %d" % number for number in range(300)])
            called: list[Any] = []

            def look() -> Any:
                while not many.is_done:   # noqa: B023
                    pass
                return list(many.get(10).offsets)   # noqa: B023

            register = lambda: many.add_callback(called.append)   # noqa: B023, E731
            results = at_once(*[look] * 6, register, register)
            many.get(10)
            producer.flush(10)
            assert results[:6] == [list(many.get(0).offsets)] * 6
            assert len(called) == 2
        producer.close()
