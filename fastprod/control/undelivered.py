"""What a closed producer could not deliver, kept as batches and decoded when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fastprod import _backend, compression
from fastprod.control import refusals
from fastprod.control.seam import AbortedBatch
from fastprod.types import UndeliveredRecord
from fastprod.waiting import RLock


class Undelivered:
    """The records of aborted batches: `len()` is cheap, iterating decodes. Any thread."""

    def __init__(self, largest_body: int) -> None:
        """`largest_body`: bytes of a batch's records."""
        self._largest_body = largest_body
        self._batches: list[tuple[AbortedBatch, Callable[[], Exception]]] = []
        self._records: list[UndeliveredRecord] = []
        self._lock = RLock()

    def add(self, batches: list[AbortedBatch], error: Callable[[], Exception]) -> None:
        """Keep what `plane.abort` gave back; `error()`: what their futures failed with."""
        with self._lock:
            self._batches.extend((batch, error) for batch in batches)

    def __len__(self) -> int:
        with self._lock:
            return len(self._records) + sum(batch[5] for batch, _ in self._batches)

    def __iter__(self) -> Iterator[UndeliveredRecord]:
        return iter(self.records())

    def records(self) -> list[UndeliveredRecord]:
        """Return the records, in a list of the caller's own."""
        with self._lock:
            batches, self._batches = self._batches, []
            for batch, error in batches:
                self._records.extend(self._decode(batch, error()))
            return list(self._records)

    def _decode(self, batch: AbortedBatch, error: Exception) -> list[UndeliveredRecord]:
        topic, partition, codec, body, base_timestamp, count, maybe_written = batch
        mine = refusals.marked(error, maybe_written)
        largest = max(self._largest_body, len(body))
        plain = compression.decompress(codec, body, largest)
        return [
            UndeliveredRecord(
                topic, partition, key, value, headers, timestamp, mine, maybe_written
            )
            for timestamp, key, value, headers in _backend.decode_records(
                plain, base_timestamp, count
            )
        ]
