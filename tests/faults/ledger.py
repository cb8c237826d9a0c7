"""Load with a ledger: threads send numbered records, and the log is held against what their futures say.

A record's value is "thread:number:key" and filling; numbers run per thread. `Load.check` reads the topic back with
confluent-kafka and finds what was lost, written twice, written elsewhere than reported or out of order.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from fastprod import KafkaProducer
from fastprod.testing import KafkaBroker

FILLING = b"the same old words, so that there is something to compress; " * 3
_BURST = 10
_PAUSE_S = 0.004


class Sent(NamedTuple):
    """A record that was accepted. `key` None: the producer chose the partition."""

    key: bytes | None
    value: bytes
    future: Any


class Written(NamedTuple):
    """A record in the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


def read_log(address: str, topic: str, partitions: int, seconds: float = 30.0) -> list[Written]:
    """Return everything that is in the topic, in the order of each partition's log."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "reader",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "check.crcs": True,
        }
    )
    try:
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        ends = {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
        consumer.assign(places)
        found: list[Written] = []
        deadline = time.monotonic() + seconds
        while len(found) < sum(ends.values()) and time.monotonic() < deadline:
            for message in consumer.consume(10_000, 0.1):
                assert message.error() is None, message.error()
                found.append(Written(message.partition(), message.offset(), message.key(), message.value()))
        assert len(found) == sum(ends.values()), f"read {len(found)} records, there are {ends}"
        return found
    finally:
        consumer.close()


class Load:
    """Sends from several threads until `stop`. Every second thread gives keys, the others none."""

    def __init__(self, producer: KafkaProducer, topic: str, threads: int = 4, keys: int = 3) -> None:
        self._producer = producer
        self._topic = topic
        self._keys = keys
        self._stop = threading.Event()
        self._sent: list[list[Sent]] = [[] for _ in range(threads)]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def sent(self) -> int:
        """How many records were accepted so far."""
        return sum(map(len, self._sent))

    @property
    def acknowledged(self) -> int:
        """How many of them are in the log, say their futures."""
        return sum(each.future.succeeded() for mine in self._sent for each in list(mine))

    def stop(self) -> None:
        """End the threads; what they sent is on its way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors, self._errors

    def _send(self, thread: int) -> None:
        mine = self._sent[thread]
        try:
            while not self._stop.is_set():
                for _ in range(_BURST):
                    number = len(mine)
                    key = b"%d-%d" % (thread, number % self._keys) if thread % 2 else None
                    value = b"%d:%d:%s:%s" % (thread, number, key or b"", FILLING[: number % len(FILLING)])
                    mine.append(Sent(key, value, self._producer.send(self._topic, value, key)))
                self._stop.wait(_PAUSE_S)
        except BaseException as error:
            self._errors.append(error)

    def check(self, broker: KafkaBroker, partitions: int) -> None:
        """Assert that nothing was lost, nothing is there twice, all is where its future says, all is in order."""
        failed = [(each, each.future.exception) for mine in self._sent for each in mine if not each.future.succeeded()]
        assert not failed, f"{len(failed)} of {self.sent} failed: {failed[:3]}"
        log = read_log(broker.bootstrap_servers, self._topic, partitions)
        values = Counter(each.value for each in log)
        twice = {value[:60]: count for value, count in values.items() if count > 1}
        assert not twice, f"{len(twice)} records are in the log more than once: {list(twice.items())[:3]}"
        lost = [each.value[:60] for mine in self._sent for each in mine if each.value not in values]
        assert not lost, f"{len(lost)} records were acknowledged and are not in the log: {lost[:3]}"
        assert len(log) == self.sent
        self._check_places(log)
        self._check_order(log)

    def _check_places(self, log: list[Written]) -> None:
        at = {(each.partition, each.offset): (each.key, each.value) for each in log}
        for mine in self._sent:
            for each in mine:
                told = each.future.get(0)
                there = at[told.partition, told.offset]
                assert there == (each.key, each.value), f"at {told} lies {there}"

    def _check_order(self, log: list[Written]) -> None:
        rows: dict[tuple[int, bytes, bytes | None], list[int]] = defaultdict(list)
        for each in sorted(log, key=lambda each: (each.partition, each.offset)):
            thread, number, _ = each.value.split(b":", 2)
            rows[each.partition, thread, None].append(int(number))
            if each.key is not None:
                rows[-1, thread, each.key].append(int(number))
        for row, numbers in rows.items():
            out = [pair for pair in itertools.pairwise(numbers) if pair[0] > pair[1]]
            assert not out, f"out of order in (partition, thread, key) {row}: {out[:5]}"
