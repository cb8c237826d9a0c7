"""One thread of `fastprod perf`: sends records, as fast as it can or at a rate, and counts how they ended.

What is measured must not slow what it measures. Every future is kept and asked once its burst is done, which costs a
fraction of a callback. The time to the acknowledgement is taken by a callback on a sample: one record of each
`Plan.every`, which one is drawn, so that neither the beginning nor the end of a batch is preferred.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from fastprod import errors
from fastprod.cli.connection import text_of
from fastprod.cli.perf_payload import Payload
from fastprod.waiting import Gate

if TYPE_CHECKING:
    from fastprod import FutureRecordMetadata, KafkaProducer, RecordMetadata

# A rate is kept by bursts of about this long; without one a burst is _BURST records.
_BURST_S = 0.001
_BURST = 1000
_LOOK_S = 0.1


class Plan(NamedTuple):
    """What one thread does: how many records, how many a second (None: as many as it can), and of how many one is
    in the sample. `burst_s`: how much of the time's records are sent together where there is a rate."""

    records: int
    rate: float | None
    every: int
    burst_s: float = _BURST_S


class Stop:
    """Whether it is over before everything was sent. No Event: Ctrl-C may strike while it is set, and leave its lock
    locked."""

    wanted = False


class Latencies:
    """Milliseconds from the call of `send` to the callback, of the acknowledged records in the sample."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def add(self, began: float, _metadata: RecordMetadata) -> None:
        """The callback; `began` is on the clock `time.perf_counter`."""
        self.found.append((time.perf_counter() - began) * 1000)


class Failures:
    """Records that were refused or not acknowledged, by the name of their error, with the first text of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    @property
    def total(self) -> int:
        """How many records."""
        return self.counts.total()

    def add(self, error: BaseException) -> None:
        """Count a record."""
        name = type(error).__name__
        self.counts[name] += 1
        self.examples.setdefault(name, text_of(error))

    def merge(self, other: Failures) -> None:
        """Count those of another thread as well."""
        self.counts += other.counts
        self.examples = other.examples | self.examples


class _Burst(NamedTuple):
    first: int
    tried: int
    futures: list[FutureRecordMetadata]


class Load:
    """A thread's records. The counts may be read by others while it runs; they are right once it has ended."""

    def __init__(self, producer: KafkaProducer, topic: str, payload: Payload, plan: Plan, stop: Stop) -> None:
        # Here, or `fastprod --help` would load the data plane.
        from fastprod import FutureRecordMetadata

        self.acknowledged = 0
        self.bytes = 0
        self.failures = Failures()
        self.latencies = Latencies()
        self.ended = 0.0
        self.over = False
        self._gate = Gate()
        self._producer = producer
        self._topic = topic
        self._payload = payload
        self._plan = plan
        self._stop = stop
        self._pairs = payload.pairs()
        self._tried = 0
        self._draw = random.Random(0).random
        self._block = 0
        self._next_sampled = int(self._draw() * plan.every)
        self._waiting: deque[_Burst] = deque()
        self._succeeded = FutureRecordMetadata.succeeded
        # Looked up now: the first error class that is named may import kafka-python, which is not what is measured.
        self._refusals = (errors.KafkaError, ValueError, TypeError)
        self._timeout = errors.KafkaTimeoutError

    def run(self) -> None:
        """Send everything, or until told to stop, and wait until all of it is acknowledged or failed."""
        try:
            self._run()
        finally:
            self.ended = self.ended or time.perf_counter()
            self.over = True
            self._gate.open()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, and say whether it has come.

        Thread.join does not do: until Python 3.13 one that Ctrl-C ends takes its thread for dead.
        """
        self._gate.wait(seconds)
        return self.over

    def _run(self) -> None:
        for burst in self._bursts():
            self._send(burst)
            self._settle()
        while True:
            try:
                self._producer.flush(_LOOK_S)
                break
            except self._timeout:
                self._settle()
        self.ended = time.perf_counter()
        self._settle()

    def _bursts(self) -> Iterator[int]:
        """Yield how many to send now, when their time has come."""
        records, rate, _, burst_s = self._plan
        largest = _BURST if rate is None else min(max(1, round(rate * burst_s)), _BURST)
        began = time.perf_counter()
        while self._tried < records and not self._stop.wanted:
            early = 0.0 if rate is None else began + self._tried / rate - time.perf_counter()
            if early > 0:
                time.sleep(min(early, _LOOK_S))
                continue
            yield min(largest, records - self._tried)

    def _send(self, count: int) -> None:
        first, end = self._tried, self._tried + count
        futures: list[FutureRecordMetadata] = []
        while self._tried < end:
            before = len(futures)
            try:
                if self._tried == self._next_sampled:
                    self._send_sampled(futures)
                else:
                    self._send_plain(min(end, self._next_sampled) - self._tried, futures)
            except self._refusals as error:
                if self._stop.wanted:
                    # Closed by a second Ctrl-C: this record and the rest of the burst were not sent.
                    end = 0
                else:
                    self._tried += 1
                    self.failures.add(error)
            self._tried += len(futures) - before
        self._waiting.append(_Burst(first, self._tried - first, futures))

    def _send_plain(self, count: int, futures: list[FutureRecordMetadata]) -> None:
        send, topic, keep = self._producer.send, self._topic, futures.append
        for value, key in islice(self._pairs, count):
            keep(send(topic, value, key))

    def _send_sampled(self, futures: list[FutureRecordMetadata]) -> None:
        self._block += self._plan.every
        self._next_sampled = self._block + int(self._draw() * self._plan.every)
        value, key = next(self._pairs)
        began = time.perf_counter()
        future = self._producer.send(self._topic, value, key)
        future.add_callback(self.latencies.add, began)
        futures.append(future)

    def _settle(self) -> None:
        """Count the oldest bursts, as far as they are done."""
        waiting = self._waiting
        while waiting and self._count(waiting[0]):
            waiting.popleft()

    def _count(self, burst: _Burst) -> bool:
        """Count a burst and return True, or False while it is not done."""
        futures = burst.futures
        if futures and not (futures[0].is_done and futures[-1].is_done):
            return False
        # No line of Python a record where all is well.
        good = list(filter(self._succeeded, futures))
        if len(good) == burst.tried:
            self.bytes += self._payload.size(burst.first, burst.tried)
            self.acknowledged += len(good)
            return True
        if not all(future.is_done for future in futures):
            return False
        good = list(filter(self._succeeded, futures))
        self.bytes += sum(map(_size, good))
        self.acknowledged += len(good)
        for future in futures:
            if (error := future.exception) is not None:
                self.failures.add(error)
        return True


def _size(future: FutureRecordMetadata) -> int:
    metadata: RecordMetadata = future.value
    return max(metadata.serialized_key_size, 0) + max(metadata.serialized_value_size, 0)
