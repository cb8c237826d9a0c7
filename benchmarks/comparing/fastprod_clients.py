"""fastprod, as a program uses it: a callback a record, every future checked, neither, and whole columns in one call.

Everything is at its default but the memory, which is the same for all clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comparing.counting import counter, now_and_then, waits
from comparing.job import Job
from comparing.workload import Share
from fastprod import KafkaProducer

_REQUEST_BYTES = 1 << 20
_ROOM = 1024


class _Fastprod:
    """What all of them have in common."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._producer: Any = KafkaProducer(
            bootstrap_servers=job.bootstrap_servers,
            buffer_memory=job.queue_bytes,
            compression_type=job.case.compression,
            compression_level=job.case.level,
            max_request_size=max(_REQUEST_BYTES, job.case.value_size + _ROOM),
        )

    def open(self) -> int:
        """Deliver the first records."""
        for topic in self._job.topics:
            self._producer.partitions_for(topic)
        case = self._job.case
        share = Share(self._job.topics, case.value_size, case.first_records)
        futures = [self._producer.send(topic, value, key) for topic, value, key in share.records()]
        for future in futures:
            future.get(30)
        return case.first_records

    def prepare(self, share: Share) -> Any:
        """Records, and how many."""
        return share.records(), share.size

    def latencies(self, share: Share) -> list[float]:
        """`send().get()`."""
        return waits(self._producer.send, share.records())

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


class WithCallbacks(_Fastprod):
    """`send().add_callback()`: a Python function is called with the RecordMetadata of each record."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._acked, self._count = counter()

    def send(self, prepared: tuple[Iterator[tuple[str, bytes, bytes]], int]) -> int:
        """Send them all, each with the callback."""
        send, acked = self._producer.send, self._acked
        records, count = prepared
        for topic, value, key in records:
            send(topic, value, key).add_callback(acked)
        return count

    def finish(self) -> int:
        """Wait; how many callbacks were run."""
        self._producer.flush()
        return self._count()


class WithFutures(_Fastprod):
    """Every future is kept, and looked at once all are done."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._futures: list[list[Any]] = []

    def send(self, prepared: tuple[Iterator[tuple[str, bytes, bytes]], int]) -> int:
        """Send them all and keep the futures."""
        send = self._producer.send
        records, count = prepared
        self._futures.append([send(topic, value, key) for topic, value, key in records])
        return count

    def pace(self, share: Share) -> int:
        """`send()`."""
        self._futures.append(now_and_then(self._producer.send, share.records()))
        return share.size

    def finish(self) -> int:
        """Wait; how many futures succeeded."""
        self._producer.flush()
        return sum(1 for futures in self._futures for future in futures if future.succeeded())


class WithNeither(_Fastprod):
    """Only `send()`: the futures are dropped. What was delivered is told by the server's count alone."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._sent: list[int] = []

    def send(self, prepared: tuple[Iterator[tuple[str, bytes, bytes]], int]) -> int:
        """Send them all."""
        send = self._producer.send
        records, count = prepared
        for topic, value, key in records:
            send(topic, value, key)
        self._sent.append(count)
        return count

    def finish(self) -> int:
        """Wait; without callbacks and futures, flush() coming back is the acknowledgement."""
        self._producer.flush()
        return sum(self._sent)


class _WithBatchFutures(_Fastprod):
    """Each BatchFuture is kept and waited for."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._futures: list[Any] = []

    def finish(self) -> int:
        """Wait; how many records have an offset."""
        return sum(len(future.get().offsets) for future in self._futures)


class WithColumns(_WithBatchFutures):
    """`send_many()`: lists of values and keys in one call."""

    def prepare(self, share: Share) -> Any:
        """Lists, as the program has them."""
        return share.columns()

    def send(self, prepared: list[tuple[str, list[bytes], list[bytes]]]) -> int:
        """A call for each pair of lists."""
        send_many = self._producer.send_many
        futures = [send_many(topic, values, keys) for topic, values, keys in prepared]
        self._futures += futures
        return sum(len(future) for future in futures)


class WithArrow(_WithBatchFutures):
    """`send_arrow()`: the same columns as Arrow data, made before."""

    def prepare(self, share: Share) -> Any:
        """A record batch for each pair of lists; equal ones are made once."""
        import pyarrow

        made: dict[tuple[int, int], Any] = {}

        def batch(values: list[bytes], keys: list[bytes]) -> Any:
            found = made.get((id(values), len(values)))
            if found is None:
                columns = [pyarrow.array(values, pyarrow.binary()), pyarrow.array(keys, pyarrow.binary())]
                found = made[id(values), len(values)] = pyarrow.record_batch(columns, ["v", "k"])
            return found

        pieces = share.columns()
        return [(topic, batch(values, keys), len(values)) for topic, values, keys in pieces]

    def send(self, prepared: list[tuple[str, Any, int]]) -> int:
        """A call for each record batch."""
        send_arrow = self._producer.send_arrow
        self._futures += [send_arrow(topic, data, value="v", key="k") for topic, data, _count in prepared]
        return sum(count for _topic, _data, count in prepared)
