"""The peers, each with the settings and the way of use that give it the most throughput.

All of them: acks=all, idempotent, batches of up to 1,000,000 bytes, 5 ms linger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Any

from comparing.counting import delivery_counter
from comparing.job import FIRST_RECORDS, Job
from comparing.workload import key_values

BATCH_BYTES = 1_000_000
LINGER_MS = 5
_WAIT_S = 30
# Calls of produce() between two of poll(0). One poll serves one acknowledged batch, thousands of callbacks.
_POLL_EVERY = 1_000


class _Confluent:
    """What both ways of using confluent-kafka have in common."""

    def __init__(self, job: Job) -> None:
        from confluent_kafka import Producer

        self._job = job
        self._producer = Producer(
            {
                "bootstrap.servers": job.bootstrap_servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": LINGER_MS,
                "batch.size": BATCH_BYTES,
                "batch.num.messages": 1_000_000,
                "queue.buffering.max.kbytes": job.queue_bytes // 1024,
                # Its memory is bounded by the line above; it counts messages as well.
                "queue.buffering.max.messages": 10_000_000,
                "compression.type": job.compression or "none",
                # Where records go, as with the others.
                "partitioner": "murmur2_random",
            }
        )

    def open(self) -> int:
        """Deliver the first records."""
        acked, count = delivery_counter()
        for value, key in key_values(FIRST_RECORDS, self._job.value_size):
            self._producer.produce(self._job.topic, value, key, -1, acked)
        self._producer.flush(_WAIT_S)
        return count()

    def close(self) -> None:
        """Deliver what is left."""
        self._producer.flush(_WAIT_S)

    def _send(self, pairs: Iterator[tuple[bytes, bytes]], count: int, callback: Any) -> None:
        produce, poll, topic = self._producer.produce, self._producer.poll, self._job.topic
        for _ in range(0, count, _POLL_EVERY):
            for value, key in islice(pairs, _POLL_EVERY):
                try:
                    produce(topic, value, key, -1, callback)
                except BufferError:
                    self._insist(value, key, callback)
            poll(0)

    def _insist(self, value: bytes, key: bytes, callback: Any) -> None:
        """The queue is full: serve delivery reports until there is room."""
        while True:
            self._producer.poll(0.1)
            try:
                self._producer.produce(self._job.topic, value, key, -1, callback)
                return
            except BufferError:
                continue


class ConfluentWithCallbacks(_Confluent):
    """A delivery callback a record."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._acked, self._count = delivery_counter()

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all, each with the callback."""
        self._send(pairs, count, self._acked)
        return count

    def finish(self) -> int:
        """Wait; how many callbacks were told of a success."""
        self._producer.flush()
        return self._count()


class ConfluentWithNothing(_Confluent):
    """No callback. What was delivered is told by the end offsets alone."""

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all."""
        self._send(pairs, count, None)
        self._sent = count
        return count

    def finish(self) -> int:
        """Wait; how many have left its queue."""
        return self._sent - self._producer.flush()


class KafkaPython:
    """kafka-python. The futures are kept and looked at in the end: cheaper for it than a callback a record."""

    def __init__(self, job: Job) -> None:
        from kafka import KafkaProducer

        self._job = job
        self._producer = KafkaProducer(
            bootstrap_servers=job.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            batch_size=BATCH_BYTES,
            linger_ms=LINGER_MS,
            compression_type=job.compression,
        )

    def open(self) -> int:
        """Deliver the first records."""
        self.send(key_values(FIRST_RECORDS, self._job.value_size), FIRST_RECORDS)
        return self.finish()

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all and keep the futures."""
        send, topic = self._producer.send, self._job.topic
        self._futures = [send(topic, value, key) for value, key in pairs]
        return count

    def finish(self) -> int:
        """Wait; how many futures succeeded."""
        self._producer.flush()
        return sum(1 for future in self._futures if future.succeeded())

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


class Aiokafka:
    """aiokafka, on an event loop of its own. The futures are kept and looked at in the end, as above."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner = asyncio.Runner()
        self._producer: Any = None

    def open(self) -> int:
        """Start it and deliver the first records."""
        self._runner.run(self._start())
        self.send(key_values(FIRST_RECORDS, self._job.value_size), FIRST_RECORDS)
        return self.finish()

    def send(self, pairs: Iterator[tuple[bytes, bytes]], count: int) -> int:
        """Send them all and keep the futures."""
        self._futures = self._runner.run(self._send(pairs))
        return count

    def finish(self) -> int:
        """Wait; how many futures succeeded."""
        return self._runner.run(self._finish())

    def close(self) -> None:
        """Stop the producer and the loop."""
        self._runner.run(self._producer.stop())
        self._runner.close()

    async def _start(self) -> None:
        from aiokafka import AIOKafkaProducer

        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._job.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            linger_ms=LINGER_MS,
            compression_type=self._job.compression,
        )
        await self._producer.start()

    async def _send(self, pairs: Iterator[tuple[bytes, bytes]]) -> list[Any]:
        send, topic = self._producer.send, self._job.topic
        return [await send(topic, value, key) for value, key in pairs]

    async def _finish(self) -> int:
        await self._producer.flush()
        return sum(1 for future in self._futures if future.done() and future.exception() is None)
