"""The peers, each with the settings and the way of use that give it the most throughput.

All of them: acks=all, idempotent, batches of up to 1,000,000 bytes, 5 ms linger (none where records go one at a time).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from comparing.counting import delivery_counter, now_and_then, waits
from comparing.job import ARRIVAL, LATENCY, Job
from comparing.workload import Share

BATCH_BYTES = 1_000_000
_ROOM = 1024
_WAIT_S = 30
# Calls of produce() between two of poll(0). One poll serves one acknowledged batch, thousands of callbacks.
_POLL_EVERY = 1_000

Prepared = tuple[Iterator[tuple[str, bytes, bytes]], int]


def _linger_ms(job: Job) -> int:
    return 0 if job.kind in (LATENCY, ARRIVAL) else 5


def _largest(job: Job) -> int:
    """A request must hold one record at least."""
    return max(BATCH_BYTES, job.case.value_size + _ROOM)


def _first(job: Job) -> Share:
    return Share(job.topics, job.case.value_size, job.case.first_records)


class _Confluent:
    """What all ways of using confluent-kafka have in common."""

    def __init__(self, job: Job) -> None:
        from confluent_kafka import Producer

        self._job = job
        level = {} if job.case.level is None else {"compression.level": job.case.level}
        self._producer = Producer(
            {
                "bootstrap.servers": job.bootstrap_servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": _linger_ms(job),
                "batch.size": BATCH_BYTES,
                "batch.num.messages": 1_000_000,
                "message.max.bytes": _largest(job),
                "queue.buffering.max.kbytes": job.queue_bytes // 1024,
                # Its memory is bounded by the line above; it counts messages as well.
                "queue.buffering.max.messages": 10_000_000,
                "compression.type": job.case.compression or "none",
                # Where records go, as with the others.
                "partitioner": "murmur2_random",
                **level,
            }
        )
        self._sent: list[int] = []

    def open(self) -> int:
        """Deliver the first records."""
        acked, count = delivery_counter()
        for topic, value, key in _first(self._job).records():
            self._producer.produce(topic, value, key, -1, acked)
        self._producer.flush(_WAIT_S)
        return count()

    def prepare(self, share: Share) -> Any:
        """Records, and how many."""
        return share.records(), share.size

    def latencies(self, share: Share) -> list[float]:
        """`produce()`, then `poll()` until its callback has run."""
        produce, poll, clock, taken = self._producer.produce, self._producer.poll, time.perf_counter, []
        acked, count = delivery_counter()
        for number, (topic, value, key) in enumerate(share.records(), 1):
            began = clock()
            produce(topic, value, key, -1, acked)
            while count() < number:
                poll(1)
            taken.append(clock() - began)
        return taken

    def close(self) -> None:
        """Deliver what is left."""
        self._producer.flush(_WAIT_S)

    def _unqueued(self) -> int:
        return sum(self._sent) - int(self._producer.flush())

    def _send(self, prepared: Prepared, callback: Any) -> int:
        produce, poll = self._producer.produce, self._producer.poll
        records, count = prepared
        for _ in range(0, count, _POLL_EVERY):
            for topic, value, key in islice(records, _POLL_EVERY):
                try:
                    produce(topic, value, key, -1, callback)
                except BufferError:
                    self._insist(topic, value, key, callback)
            poll(0)
        self._sent.append(count)
        return count

    def _insist(self, topic: str, value: bytes, key: bytes, callback: Any) -> None:
        """The queue is full: serve delivery reports until there is room."""
        while True:
            self._producer.poll(0.1)
            try:
                self._producer.produce(topic, value, key, -1, callback)
                return
            except BufferError:
                continue


class ConfluentWithCallbacks(_Confluent):
    """A delivery callback a record."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._acked, self._count = delivery_counter()

    def send(self, prepared: Prepared) -> int:
        """Send them all, each with the callback."""
        return self._send(prepared, self._acked)

    def pace(self, share: Share) -> int:
        """`produce()`, and a `poll(0)` behind each."""
        send = partial(self._producer.produce, partition=-1, callback=self._acked)
        return len(now_and_then(send, share.records(), partial(self._producer.poll, 0)))

    def finish(self) -> int:
        """Wait; how many callbacks were told of a success."""
        self._producer.flush()
        return self._count()


class ConfluentWithNothing(_Confluent):
    """No callback. What was delivered is told by the server's count alone."""

    def send(self, prepared: Prepared) -> int:
        """Send them all."""
        return self._send(prepared, None)

    def finish(self) -> int:
        """Wait; how many have left its queue."""
        return self._unqueued()


class ConfluentWithBatches(_Confluent):
    """`produce_batch()`, no callback: lists of dicts, which are made before the clock starts."""

    def prepare(self, share: Share) -> Any:
        """A list of dicts for each call; equal ones are made once, and the calls share them."""
        made: dict[tuple[int, int], list[dict[str, Any]]] = {}
        found = []
        for topic, values, keys in share.columns():
            messages = made.get((id(values), len(values)))
            if messages is None:
                messages = [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)]
                made[id(values), len(values)] = messages
            found.append((topic, messages))
        return found

    def send(self, prepared: list[tuple[str, list[dict[str, Any]]]]) -> int:
        """A call for each list. Messages that find the queue full are marked; they are tried again."""
        count = 0
        for topic, messages in prepared:
            left = messages
            while self._producer.produce_batch(topic, left) < len(left):
                left = [message for message in left if message.pop("_error", None) is not None]
                self._producer.poll(0.1)
            count += len(messages)
        self._sent.append(count)
        return count

    def finish(self) -> int:
        """Wait; how many have left its queue."""
        return self._unqueued()


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
            linger_ms=_linger_ms(job),
            max_request_size=_largest(job) + BATCH_BYTES,
            compression_type=job.case.compression,
        )
        self._futures: list[list[Any]] = []

    def open(self) -> int:
        """Deliver the first records."""
        self.send(self.prepare(_first(self._job)))
        first = self.finish()
        self._futures.clear()
        return first

    def prepare(self, share: Share) -> Any:
        """Records, and how many."""
        return share.records(), share.size

    def send(self, prepared: Prepared) -> int:
        """Send them all and keep the futures."""
        send = self._producer.send
        records, count = prepared
        self._futures.append([send(topic, value, key) for topic, value, key in records])
        return count

    def finish(self) -> int:
        """Wait; how many futures succeeded."""
        self._producer.flush()
        return sum(1 for futures in self._futures for future in futures if future.succeeded())

    def latencies(self, share: Share) -> list[float]:
        """`send().get()`."""
        return waits(self._producer.send, share.records())

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


class Aiokafka:
    """aiokafka, on an event loop of its own. The futures are kept and looked at in the end, as above."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner = asyncio.Runner()
        self._producer: Any = None
        self._futures: list[Any] = []

    def open(self) -> int:
        """Start it and deliver the first records."""
        self._runner.run(self._start())
        self.send(self.prepare(_first(self._job)))
        return self.finish()

    def prepare(self, share: Share) -> Any:
        """Records, and how many."""
        return share.records(), share.size

    def send(self, prepared: Prepared) -> int:
        """Send them all and keep the futures."""
        self._futures = self._runner.run(self._send(prepared[0]))
        return prepared[1]

    def finish(self) -> int:
        """Wait; how many futures succeeded."""
        return self._runner.run(self._finish())

    def latencies(self, share: Share) -> list[float]:
        """`await send_and_wait()`."""
        return self._runner.run(self._latencies(share))

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
            max_request_size=_largest(self._job) + BATCH_BYTES,
            linger_ms=_linger_ms(self._job),
            compression_type=self._job.case.compression,
        )
        await self._producer.start()

    async def _send(self, records: Iterator[tuple[str, bytes, bytes]]) -> list[Any]:
        send = self._producer.send
        return [await send(topic, value, key) for topic, value, key in records]

    async def _finish(self) -> int:
        await self._producer.flush()
        return sum(1 for future in self._futures if future.done() and future.exception() is None)

    async def _latencies(self, share: Share) -> list[float]:
        send, clock, taken = self._producer.send_and_wait, time.perf_counter, []
        for topic, value, key in share.records():
            began = clock()
            await send(topic, value, key)
            taken.append(clock() - began)
        return taken
