"""One partition's log, and what a leader does with sequences (KIP-98; ProducerAppendInfo of Apache Kafka).

The last five batches of a producer id are remembered and recognized when they come again. The same epoch has to go on
where it ended, a newer one has to begin at 0, an older one is refused, and a producer without state may begin anywhere
(before 2.5: only at 0, or UNKNOWN_PRODUCER_ID).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from fastprod.testing.scripted.records import SEQUENCES, Batch

OUT_OF_ORDER_SEQUENCE_NUMBER: Final = 45
INVALID_PRODUCER_EPOCH: Final = 47
_REMEMBERED: Final = 5


@dataclass(frozen=True)
class Verdict:
    """What one batch is answered.

    `code`: Kafka's error code, 0 for none. `offset`: of the first record. `record_errors`: (index in the batch,
    message) from Produce 8 on, with `message` for the whole batch. `leader`: node id of the new leader, told from
    Produce 10 on (KIP-951), with `leader_epoch`, or the true one if that is None. `log_append_time_ms`: -1 where the
    topic keeps the producer's timestamps.
    """

    code: int = 0
    offset: int = -1
    message: str | None = None
    record_errors: tuple[tuple[int, str | None], ...] = ()
    leader: int | None = None
    leader_epoch: int | None = None
    log_start_offset: int = -1
    log_append_time_ms: int = -1


Judge = Callable[[Batch], Verdict]


class _Appended(NamedTuple):
    first: int
    last: int
    offset: int
    max_timestamp_ms: int


class _Producer:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[_Appended] = deque(maxlen=_REMEMBERED)


class PartitionLog:
    """What was written to one partition. `start`: its first offset; `end`: the next one."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.start = 0
        self.end = 0
        self._producers: dict[int, _Producer] = {}

    def take(self, batch: Batch, without_state: int = 0) -> Verdict:
        """Append the batch if its sequence fits, recognize it if it is there, refuse it otherwise.

        `without_state`: the error code for a sequence above 0 of a producer without state; 0 accepts it.
        """
        if batch.producer_id < 0:
            return self._taken(batch)
        producer = self._producers.get(batch.producer_id)
        if producer is None:
            if without_state and batch.sequence != 0:
                return Verdict(without_state, log_start_offset=self.start)
            return self._taken(batch)
        if producer.epoch == batch.epoch:
            for known in producer.batches:
                if (known.first, known.last) == (batch.sequence, batch.last_sequence):
                    # The broker fills the append time with the batch's own time here.
                    return Verdict(0, known.offset, None, (), None, None, self.start, known.max_timestamp_ms)
            if batch.sequence != (producer.batches[-1].last + 1) % SEQUENCES:
                return Verdict(OUT_OF_ORDER_SEQUENCE_NUMBER, log_start_offset=self.start)
        elif batch.epoch < producer.epoch:
            return Verdict(INVALID_PRODUCER_EPOCH, log_start_offset=self.start)
        elif batch.sequence != 0:
            return Verdict(OUT_OF_ORDER_SEQUENCE_NUMBER, log_start_offset=self.start)
        return self._taken(batch)

    def append(self, batch: Batch) -> int:
        """Append a batch, whatever its sequence, and remember it; return the offset of its first record."""
        offset = self.end
        self.batches.append(batch.at(offset))
        self.end += batch.count
        if batch.producer_id >= 0:
            producer = self._producers.get(batch.producer_id)
            if producer is None or producer.epoch != batch.epoch:
                producer = self._producers[batch.producer_id] = _Producer(batch.epoch)
            producer.batches.append(_Appended(batch.sequence, batch.last_sequence, offset, batch.max_timestamp_ms))
        return offset

    def forget_producers(self) -> None:
        """Forget every producer's epoch and sequences, as after retention has deleted all they wrote."""
        self._producers.clear()

    def remember_less(self) -> None:
        """Forget all but the last batch of every producer, as a broker does that is started again."""
        for producer in self._producers.values():
            last = producer.batches[-1]
            producer.batches.clear()
            producer.batches.append(last)

    def delete_records(self, before: int) -> None:
        """Move the start of the log up to this offset; batches that lie before it are gone."""
        self.start = max(self.start, min(before, self.end))
        self.batches = [each for each in self.batches if each.base_offset + each.count > self.start]

    def _taken(self, batch: Batch) -> Verdict:
        return Verdict(0, self.append(batch), log_start_offset=self.start)
