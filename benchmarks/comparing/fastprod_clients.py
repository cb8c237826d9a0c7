"""fastprod, as a program uses it, in three ways: a callback a record, every future checked, and neither.

Everything is at its default but the memory, which is the same for all clients.
"""

from __future__ import annotations

from collections.abc import Iterator

from comparing.counting import counter
from comparing.job import FIRST_RECORDS, Job
from comparing.workload import key_values
from fastprod import KafkaProducer


class _Fastprod:
    """What the three have in common."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._producer = KafkaProducer(
            bootstrap_servers=job.bootstrap_servers, buffer_memory=job.queue_bytes, compression_type=job.compression
        )

    def open(self) -> int:
        """Deliver the first records."""
        self._producer.partitions_for(self._job.topic)
        futures = [
            self._producer.send(self._job.topic, value, key)
            for value, key in key_values(FIRST_RECORDS, self._job.value_size)
        ]
        for future in futures:
            future.get(30)
        return FIRST_RECORDS

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


class WithCallbacks(_Fastprod):
    """`send().add_callback()`: a Python function is called with the RecordMetadata of each record."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._acked, self._count = counter()

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all, each with the callback."""
        send, topic, acked = self._producer.send, self._job.topic, self._acked
        for value, key in pairs:
            send(topic, value, key).add_callback(acked)
        return count

    def finish(self) -> int:
        """Wait; how many callbacks were run."""
        self._producer.flush()
        return self._count()


class WithFutures(_Fastprod):
    """Every future is kept, and looked at once all are done."""

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all and keep the futures."""
        send, topic = self._producer.send, self._job.topic
        self._futures = [send(topic, value, key) for value, key in pairs]
        return count

    def finish(self) -> int:
        """Wait; how many futures succeeded."""
        self._producer.flush()
        return sum(1 for future in self._futures if future.succeeded())


class WithNeither(_Fastprod):
    """Only `send()`: the futures are dropped. What was delivered is told by the end offsets alone."""

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all."""
        send, topic = self._producer.send, self._job.topic
        for value, key in pairs:
            send(topic, value, key)
        self._sent = count
        return count

    def finish(self) -> int:
        """Wait; without callbacks and futures, flush() coming back is the acknowledgement."""
        self._producer.flush()
        return self._sent
