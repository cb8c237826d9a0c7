"""What a real leader does with sequences (ProducerAppendInfo of Apache Kafka), behind a FakeBroker.

Its log takes a batch only in sequence, recognizes the last five of a producer id and answers them again, and accepts
anything from an id it has no state of. Records named by `poison` are refused for good, as by a validator, and so are
batches larger than `largest` bytes, with MESSAGE_TOO_LARGE.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from typing import NamedTuple

from .fake_broker import Batch, FakeBroker, Produced, Refusal

TOO_LARGE, OUT_OF_ORDER, OLD_EPOCH, INVALID_RECORD = 10, 45, 47, 87
_SEQUENCES = 2**31
_REMEMBERED = 5


class _Appended(NamedTuple):
    first: int
    last: int
    offset: int


class _State:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: deque[_Appended] = deque(maxlen=_REMEMBERED)


class HonestLog:
    """Judges batches in the order in which it is asked."""

    def __init__(self, broker: FakeBroker, poison: bytes = b"", largest: int = 10**9) -> None:
        self._broker = broker
        self._poison = poison
        self._largest = largest
        self._states: dict[tuple[int, str, int], _State] = {}
        self._lock = threading.Lock()
        self.stamps: dict[tuple[str, int], list[tuple[int, int, int]]] = defaultdict(list)

    def answer(self, produced: Produced) -> None:
        """Answer a whole request honestly; for `FakeBroker.judge`."""
        produced.answer(self.judge)

    def judge(self, batch: Batch) -> Refusal:
        """Append the batch if it may be appended, and say what becomes of it."""
        with self._lock:
            if len(batch.data) > self._largest:
                return Refusal(TOO_LARGE)
            if self._poison and any(self._poison in (value or b"") for value in batch.values or ()):
                return Refusal(INVALID_RECORD)
            return self._append(batch)

    def _append(self, batch: Batch) -> Refusal:
        place = (batch.producer_id, batch.topic, batch.partition)
        state = self._states.get(place)
        last = (batch.sequence + batch.count - 1) % _SEQUENCES
        if state is not None:
            if batch.epoch < state.epoch:
                return Refusal(OLD_EPOCH)
            if batch.epoch > state.epoch and batch.sequence != 0:
                return Refusal(OUT_OF_ORDER)
            if batch.epoch == state.epoch:
                for known in state.batches:
                    if (known.first, known.last) == (batch.sequence, last):
                        return Refusal(0, known.offset)
                if batch.sequence != (state.batches[-1].last + 1) % _SEQUENCES:
                    return Refusal(OUT_OF_ORDER)
        if state is None or batch.epoch > state.epoch:
            state = self._states[place] = _State(batch.epoch)
        offset = self._broker.append(batch)
        state.batches.append(_Appended(batch.sequence, last, offset))
        self.stamps[batch.topic, batch.partition].append(batch.stamp)
        return Refusal(0, offset)
