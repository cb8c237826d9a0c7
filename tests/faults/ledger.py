"""Load with a ledger: threads send numbered records, and the log is held against what their futures say.

A record follows from its thread and its number (`Load.record`); numbers run per thread. `Load.check` reads the topic
back with confluent-kafka and finds what was lost, written twice, written elsewhere than reported or out of order.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from patience import eventually

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

from .audit import Fate, Row, Told, audit, summary

FILLING = b"the same old words, so that there is something to compress; " * 3


class Written(NamedTuple):
    """A record in the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


class Wanted(NamedTuple):
    """What is sent. `key` None and `partition` None: the producer chooses."""

    key: bytes | None
    value: bytes
    partition: int | None


def end_of(consumer: Consumer, place: TopicPartition, seconds: float = 30.0) -> int:
    """Return the end of a partition's log. A leader that has just been chosen does not tell it (OFFSET_NOT_AVAILABLE)
    until its followers have caught up, so it is asked again for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=10)[1])
        except KafkaException:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def walk_log(address: str, topic: str, partitions: int, seconds: float = 30.0) -> Iterator[Written]:
    """Yield everything that is in the topic, in the order of each partition's log. Fails if not all of it comes, with
    nothing more for `seconds`."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "check.crcs": True,
            # What it reads ahead is memory of this process.
            "queued.max.messages.kbytes": 16_384,
        }
    )
    try:
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        ends = {place.partition: end_of(consumer, place, seconds) for place in places}
        consumer.assign(places)
        found = 0
        deadline = time.monotonic() + seconds
        while found < sum(ends.values()) and time.monotonic() < deadline:
            messages = consumer.consume(10_000, 0.1)
            found += len(messages)
            if messages:
                deadline = time.monotonic() + seconds
            for message in messages:
                assert message.error() is None, message.error()
                yield Written(message.partition(), message.offset(), message.key(), message.value())
        assert found == sum(ends.values()), f"read {found} records, there are {ends}"
    finally:
        consumer.close()


def read_log(address: str, topic: str, partitions: int, seconds: float = 30.0) -> list[Written]:
    """Return everything that is in the topic, in the order of each partition's log."""
    return list(walk_log(address, topic, partitions, seconds))


class Load:
    """Sends from several threads until `stop`. Every second thread gives keys, the others none.

    Args:
        explicit: so many partitions are named in turn by every third thread; 0: none is.
        burst: how many records a thread sends at once.
        pause_s: the time from one burst to the next, s.
        catch_up_s: how much of the time that sending took longer is made up for by pausing less, s.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        topic: str,
        threads: int = 4,
        keys: int = 3,
        *,
        explicit: int = 0,
        burst: int = 10,
        pause_s: float = 0.004,
        catch_up_s: float = 0.0,
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._keys = keys
        self._explicit = explicit
        self._burst, self._pause_s, self._catch_up_s = burst, pause_s, catch_up_s
        self._stop = threading.Event()
        self._futures: list[list[Any]] = [[] for _ in range(threads)]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def sent(self) -> int:
        """How many records were accepted so far."""
        return sum(map(len, self._futures))

    @property
    def acknowledged(self) -> int:
        """How many of them are in the log, say their futures."""
        return sum(each.succeeded() for mine in self._futures for each in list(mine))

    @property
    def failures(self) -> list[BaseException]:
        """Why those failed that did."""
        return [each.exception for mine in self._futures for each in mine if each.failed()]

    def record(self, thread: int, number: int) -> Wanted:
        """Return a thread's record of that number."""
        kind = thread % 3 if self._explicit else thread % 2
        key = b"%d-%d" % (thread, number % self._keys) if kind == 1 else None
        value = b"%d:%d:%s:%s" % (thread, number, key or b"", FILLING[: number % len(FILLING)])
        return Wanted(key, value, self._partition(thread, number))

    def _partition(self, thread: int, number: int) -> int | None:
        return number % self._explicit if self._explicit and thread % 3 == 2 else None

    def wait_for_progress(self, seconds: float = 60.0) -> None:
        """Wait until each thread's newest record has ended; its predecessors in the same partition have, too."""
        for mine in self._futures:
            eventually(lambda: mine or self._errors, "a thread's first record", seconds)  # noqa: B023
            mine[-1].get(seconds)

    def stop(self) -> None:
        """End the threads; what they sent is on its way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors, self._errors

    def _send(self, thread: int) -> None:
        mine = self._futures[thread]
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                for _ in range(self._burst):
                    wanted = self.record(thread, len(mine))
                    mine.append(self._producer.send(self._topic, wanted.value, wanted.key, partition=wanted.partition))
                now = time.monotonic()
                due = max(due + self._pause_s, now - self._catch_up_s)
                self._stop.wait(max(0.0, due - now))
        except BaseException as error:
            self._errors.append(error)

    def check(
        self, broker: KafkaBroker, partitions: int, *, may_fail: bool = False, keys_stay: bool = True
    ) -> None:
        """Assert that nothing was lost, nothing is there twice, all is where its future says, all is in order.

        Args:
            may_fail: whether a record may have failed; it must not be in the log unless its error says that it may.
            keys_stay: whether a key is in one partition only.
        """
        told = self._told()
        failed = self.failures
        assert may_fail or not failed, f"{len(failed)} of {self.sent} failed: {failed[:3]}"
        log = self._log(broker, partitions, keys_stay)
        found = audit(told, log)
        assert not found, summary(found)
        # The offset of what a restarted broker no longer recognizes is told by nobody; that is the exception.
        untold = sum(each.offsets.count(-1) for each in told) - len(failed)
        assert untold <= self.sent // 20, f"{untold} of {self.sent} were acknowledged without an offset"
        written = sum(map(len, log.values()))
        assert written == self.sent if not failed else self.sent - len(failed) <= written <= self.sent

    def _told(self) -> list[Told]:
        every = []
        for thread, mine in enumerate(self._futures):
            told = Told()
            for number, future in enumerate(mine):
                assert future.is_done, f"record {thread}:{number} has not ended"
                if future.failed():
                    told.add(Fate.MAYBE if getattr(future.exception, "maybe_written", False) else Fate.FAILED)
                    continue
                place = future.value
                asked = self._partition(thread, number)
                assert asked in (None, place.partition), f"record {thread}:{number} was for {asked}: {place}"
                told.add(Fate.ACKNOWLEDGED, place.partition, place.offset)
            every.append(told)
        return every

    def _log(self, broker: KafkaBroker, partitions: int, keys_stay: bool) -> dict[int, Row]:
        rows = {number: Row() for number in range(partitions)}
        homes: dict[bytes, set[int]] = defaultdict(set)
        for each in walk_log(broker.bootstrap_servers, self._topic, partitions, 60.0):
            thread, number = map(int, each.value.split(b":", 2)[:2])
            wanted = self.record(thread, number)
            assert (each.key, each.value) == (wanted.key, wanted.value), f"not what was sent: {each}"
            rows[each.partition].add(thread, number, each.offset)
            if each.key is not None:
                homes[each.key].add(each.partition)
        astray = {key: places for key, places in homes.items() if len(places) > 1}
        assert not (keys_stay and astray), f"keys in more than one partition: {astray}"
        return rows
