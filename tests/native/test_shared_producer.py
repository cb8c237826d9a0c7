"""Eight threads on one producer: all that they were told is held against the broker's log.

With a GIL the threads take turns, very short ones here; without one (`PYTHON_GIL=0`) they are really at it at once.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastprod import KafkaProducer, errors
from fastprod.testing import ScriptedBroker

THREADS = 8
CALLS = 600
MANY = 30
TOPICS = {"t": 3, "other": 1}


@pytest.fixture(autouse=True)
def _quick_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[int], None], count: int = THREADS) -> list[threading.Thread]:
    """Threads that begin together; what one of them raises is pytest's to report."""
    ready = threading.Barrier(count)

    def begin(number: int) -> None:
        ready.wait()
        work(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    return threads


def ended(threads: list[threading.Thread]) -> None:
    for each in threads:
        each.join(60)
        assert not each.is_alive(), "a call does not return"


class Told:
    """What one thread was told of its records, by number: (topic, partition, offset), or the error."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent = 0
        self.outcomes: dict[int, Any] = {}
        self.called: collections.Counter[int] = collections.Counter()   # written by the network thread alone

    def record(self) -> tuple[int, bytes, bytes]:
        """The next record: its number, value and key. A thread's key leads to one partition of a topic."""
        number = self.sent
        self.sent += 1
        return number, b"%d %d" % (self.number, number), b"key %d" % self.number

    def note(self, number: int, outcome: Any) -> None:
        """What a callback is given, or what a future has become."""
        self.called[number] += 1
        self.keep(number, outcome)

    def keep(self, number: int, outcome: Any) -> None:
        if isinstance(outcome, BaseException):
            self.outcomes[number] = outcome
        else:
            self.outcomes[number] = (outcome.topic, outcome.partition, outcome.offset)

    def send(self, producer: KafkaProducer, turn: int, kept: list[Any]) -> None:
        """One call of the kind whose turn it is. Futures to be looked at later go to `kept`, with their numbers."""
        topic = ("t", "t", "other")[turn % 3]
        if turn % 20 == 0:
            records = [self.record() for _ in range(MANY)]
            many = producer.send_many(topic, [each[1] for each in records], [each[2] for each in records])
            kept.append((topic, [each[0] for each in records], many))
            return
        number, value, key = self.record()
        future = producer.send(topic, value, key)
        if turn % 2:
            future.add_both(self.note, number)
        else:
            kept.append((topic, [number], future))

    def look(self, kept: list[Any]) -> None:
        """Wait for what is kept, and note it."""
        for topic, numbers, future in kept:
            if len(numbers) == 1:
                self.keep(numbers[0], future.value if future.succeeded() else future.exception)
                continue
            outcome = future.get(30)
            for number, partition, offset in zip(numbers, outcome.partitions, outcome.offsets, strict=True):
                self.outcomes[number] = (topic, partition, offset)


def written_in(broker: ScriptedBroker) -> dict[tuple[str, int, int], bytes | None]:
    """All values of the log by topic, partition and offset."""
    return {
        (topic, partition, offset): value
        for topic, partitions in TOPICS.items()
        for partition in range(partitions)
        for offset, value in enumerate(broker.values(topic, partition))
    }


def test_what_is_told_is_what_is_written() -> None:
    tellings = [Told(number) for number in range(THREADS)]
    kept: list[list[Any]] = [[] for _ in range(THREADS)]
    with ScriptedBroker(TOPICS) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, batch_size=4000)

        def send(number: int) -> None:
            for turn in range(CALLS):
                tellings[number].send(producer, turn, kept[number])

        ended(in_threads(send))
        producer.flush(60)
        producer.close()
        written = written_in(broker)
    for told, mine in zip(tellings, kept, strict=True):
        told.look(mine)
        assert sorted(told.outcomes) == list(range(told.sent))
        assert set(told.called.values()) == {1}
        for number, place in told.outcomes.items():
            assert written[place] == b"%d %d" % (told.number, number)
        for topic in TOPICS:
            offsets = [place[2] for _, place in sorted(told.outcomes.items()) if place[0] == topic]
            assert offsets == sorted(offsets)
    assert len(written) == sum(told.sent for told in tellings)


def test_futures_of_one_thread_in_the_hands_of_others() -> None:
    sent: list[Any] = []
    seen: list[list[Any]] = [[] for _ in range(THREADS)]
    with ScriptedBroker(TOPICS) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, batch_size=1000)

        def work(number: int) -> None:
            if number < 2:
                for _ in range(CALLS):
                    sent.append(producer.send("t", b"value", b"%d" % number))
                return
            for at in range(2 * CALLS):
                while len(sent) <= at:
                    pass
                seen[number].append(sent[at].get(30).offset if at % 3 else sent[at].exception)

        ended(in_threads(work))
        producer.close()
    wanted = [future.value.offset if at % 3 else None for at, future in enumerate(sent)]
    assert seen[2:] == [wanted] * (THREADS - 2)


@pytest.mark.parametrize("patience", [30, 0])
def test_closed_while_eight_threads_send(patience: float) -> None:
    tellings = [Told(number) for number in range(THREADS)]
    kept: list[list[Any]] = [[] for _ in range(THREADS)]
    begun = threading.Semaphore(0)

    def send(number: int) -> None:
        told = tellings[number]
        for turn in range(1, 10_000_000):
            before = told.sent
            try:
                # Without send_many: of that a part may have been accepted.
                told.send(producer, turn % 20 or 1, kept[number])
            except errors.IllegalStateError:
                told.sent = before
                return
            if turn == 50:
                kept[number][-1][-1].get(30)   # so something was acknowledged, whenever it ends
                begun.release()

    with ScriptedBroker(TOPICS) as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, batch_size=4000, max_block_ms=20_000,
                                 buffer_memory=2_000_000)   # no more than a broker in Python takes in time
        threads = in_threads(send)
        for _ in range(THREADS):
            assert begun.acquire(timeout=60)
        with contextlib.nullcontext() if patience else contextlib.suppress(errors.KafkaTimeoutError):
            producer.close(patience)
        ended(threads)
        written = written_in(broker)
    acked = 0
    for told, mine in zip(tellings, kept, strict=True):
        told.look(mine)
        # close(0) waits for callbacks of what it gave up, but not long.
        deadline = time.monotonic() + 60
        while len(told.outcomes) < told.sent and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(told.outcomes) == list(range(told.sent))
        assert set(told.called.values()) <= {1}
        for number, outcome in told.outcomes.items():
            if isinstance(outcome, BaseException):
                assert not patience, outcome
                continue
            assert written[outcome] == b"%d %d" % (told.number, number)
            acked += 1
    assert acked == len(written) if patience else THREADS <= acked <= len(written)
