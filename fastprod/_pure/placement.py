"""Where the records of one call went: a future each. The compiled twin keeps runs of them instead."""

from __future__ import annotations

from array import array
from collections.abc import Callable

from fastprod._pure.delivery import FutureRecordMetadata, deadline_after


class Placement:
    """What a BatchFuture looks at; see `fastprod.batch_future.Placement`."""

    __slots__ = ("_first_pending", "_futures", "_refusal", "topic")

    def __init__(
        self, topic: str, futures: list[FutureRecordMetadata | None], refusal: BaseException | None
    ) -> None:
        """`futures`: None for a record that was not accepted, because of `refusal`."""
        self.topic = topic
        self._futures = futures
        self._refusal = refusal
        self._first_pending = 0

    def __len__(self) -> int:
        return len(self._futures)

    def pending(self) -> FutureRecordMetadata | None:
        for index in range(self._first_pending, len(self._futures)):
            future = self._futures[index]
            if future is not None and not future.is_done:
                return future
            self._first_pending = index + 1
        return None

    def watch(self, record: FutureRecordMetadata, function: Callable[[object], object]) -> bool:
        return record._watch(function)

    def wait(self, timeout: float | None) -> None:
        deadline = deadline_after(timeout)
        for future in self._futures:
            if future is not None:
                future._wait(timeout, deadline)

    def sizes(self, index: int) -> tuple[int, int, int]:
        future = self._futures[index]
        assert future is not None  # it has failed, and so has no metadata
        return future._sizes

    def collect(self) -> tuple[array[int], array[int], array[int], dict[int, BaseException]]:
        count = len(self._futures)
        partitions, offsets = array("i", [-1]) * count, array("q", [-1]) * count
        timestamps = array("q", [-1]) * count
        failed: dict[int, BaseException] = {}
        for index, future in enumerate(self._futures):
            if future is None:
                assert self._refusal is not None
                failed[index] = self._refusal
            elif (error := future.exception) is not None:
                failed[index] = error
            else:
                metadata = future.value
                partitions[index] = metadata.partition
                offsets[index] = metadata.offset
                timestamps[index] = metadata.timestamp
        return partitions, offsets, timestamps, failed
