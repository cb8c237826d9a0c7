"""The call that users make once a record: checks, serializers, the partition, the append."""

from __future__ import annotations

import operator
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from fastprod import failures
from fastprod._pure import layout
from fastprod._pure.accumulator import StickySlot, TopicRoute, append
from fastprod._pure.checks import check_headers, header_size_of, size_of, timestamp_of
from fastprod._pure.delivery import BatchOutcome, FutureRecordMetadata
from fastprod._pure.murmur2 import partition_for_key
from fastprod._pure.partition import Partition
from fastprod._pure.plane import DataPlane
from fastprod._pure.record_batch import (
    BytesLike,
    Header,
    Record,
    flat,
    frame_headers,
    frame_record,
    record_upper_bound,
)
from fastprod.types import TopicPartition

Serializer = Callable[[str, list[Header], Any], Any]
Partitioner = Callable[[str, Any, BytesLike | None, Any, BytesLike | None], int]

_NO_HEADERS = b"\x00"


class Engine(Protocol):
    """What `send` asks when it cannot go on by itself; see DESIGN.md."""

    def resolve_topic(self, topic: str, timeout_s: float) -> TopicRoute | BaseException: ...

    def refresh_partitions(self, topic: str, partition: int, timeout_s: float) -> TopicRoute: ...

    def on_control_thread(self) -> bool: ...

    def pump(self, seconds: float) -> None: ...


class _Unbound:
    """What a producer has before `_bind`, where nothing can be sent."""

    closing = True


class OneByOne:
    """Holds `send`, and what it shares with `send_many`."""

    _core: Any = _Unbound

    def _bind(
        self,
        plane: DataPlane,
        engine: Engine,
        key_serializer: Serializer | None,
        value_serializer: Serializer | None,
        partition_mode: int,
        partitioner: Partitioner | None,
        compression_name: str | None,
    ) -> None:
        """`compression_name` only explains; the codec itself is in the plane's options."""
        plane.engine = engine
        self._core = plane.core
        self._routes = plane.routes
        self._engine = engine
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        self._partition_mode = partition_mode
        self._partitioner = partitioner
        self._on_new_batch: Callable[[str, int], object] | None = getattr(
            partitioner, "on_new_batch", None
        )
        self._compression_name = compression_name
        self._max_request_size = plane.core.options.max_request_size
        self._buffer_memory = plane.core.options.buffer_memory
        self._max_block_s = plane.core.options.max_block_ms / 1000

    def _begin_again(self) -> None:
        """Bind to new planes where there is a reason to (a forked child), or raise
        IllegalStateError."""
        raise failures.closed()

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[Header] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> FutureRecordMetadata:
        """Accept one record for delivery and return its FutureRecordMetadata at once.

        topic: str. value, key: what the serializers take, or bytes, bytearray, memoryview or None
        without one (not both None; an empty key is a key). headers: a list of (str, bytes) tuples.
        partition: int, or None to let the partitioner choose. timestamp_ms: int, milliseconds since
        1970-01-01 UTC, or None for now.

        Raises at once: IllegalStateError when closed; TypeError or ValueError for bad arguments;
        MessageSizeTooLargeError above max_request_size; KafkaTimeoutError when the topic is unknown
        or buffer_memory is full for max_block_ms (the record was not accepted). Everything that
        happens to an accepted record arrives through the future.
        """
        if self._core.closing:
            self._begin_again()
        if value is None and key is None:
            raise failures.nothing_to_send()
        if headers is None:
            headers = []
        else:
            check_headers(headers)
        record = Record(key, value)
        if self._key_serializer is not None:
            record.key_bytes = self._key_serializer(topic, headers, key)
        if self._value_serializer is not None:
            record.value_bytes = self._value_serializer(topic, headers, value)
        key_size = size_of("key", record.key_bytes)
        value_size = size_of("value", record.value_bytes)
        inside = self._core.host.is_inside()
        timeout_s = 0.0 if inside else self._max_block_s
        route = self._routes.get(topic) if type(topic) is str else None
        if route is None:
            began = time.monotonic()
            resolved = self._engine.resolve_topic(topic, timeout_s)
            if isinstance(resolved, BaseException):
                return FutureRecordMetadata.failed_with(topic, -1, resolved)
            route = resolved
            timeout_s = max(0.0, timeout_s - (time.monotonic() - began))
        if partition is None:
            target, slot = (None, None) if inside else self._choose(route, record)
        else:
            route, target = self._explicit(route, partition, timeout_s)
            slot = None
        headers = list(headers)  # only now: a serializer may have added to the list
        framed = frame_record(
            flat(record.key_bytes),
            flat(record.value_bytes),
            frame_headers(headers) if headers else _NO_HEADERS,
        )
        self._check_bound(topic, record_upper_bound(len(framed)))
        record.framed = framed
        record.timestamp = timestamp_ms = timestamp_of(timestamp_ms)
        header_size = header_size_of(headers) if headers else -1
        place = None
        if target is not None and not inside and not self._core.late:
            place = append(self._core, route, target, slot, record, timeout_s)
        if place is None:
            place = self._put(route, partition, record, timeout_s)
        route.mark_used()
        return FutureRecordMetadata(
            place[0], place[1], timestamp_ms, key_size, value_size, header_size
        )

    def _put(
        self, route: TopicRoute, number: int | None, record: Record, timeout_s: float
    ) -> tuple[BatchOutcome, int]:
        """Place the record, behind those that were sent in the middle of something. In the middle
        of something itself it waits for nothing, and its outcome is only promised."""
        core = self._core
        if not core.host.is_inside():
            if core.late:
                core.place_late()
            return self._place(route, number, record, timeout_s)
        if number is None and self._partition_mode == layout.PARTITION_CUSTOM:
            number = self._custom(route, record).index  # the caller's code: under no lock of ours
        promised = BatchOutcome(core.host, TopicPartition(route.topic, -1))
        core.put_late(partial(self._place_late, promised, route, number, record))
        return promised, 0

    def _place_late(
        self, promised: BatchOutcome, route: TopicRoute, number: int | None, record: Record
    ) -> None:
        """Keep the promise. The core's lock is held, so the batch cannot end meanwhile."""
        if promised.done or promised.children is not None:
            return
        try:
            outcome, index = self._place(route, number, record, 0.0)
            promised.split([outcome], [-index])
        except BaseException as error:
            if promised.children is None:
                # What a signal's handler raises may have come when the record was accepted.
                maybe_written = not isinstance(error, Exception)
                promised.error = failures.flagged(failures.own(error), maybe_written)
                if promised.finish():
                    self._core.call_back(promised, 0)
            if not isinstance(error, Exception):
                raise

    def _place(
        self, route: TopicRoute, number: int | None, record: Record, timeout_s: float
    ) -> tuple[BatchOutcome, int]:
        """Choose a partition and append the record there; when the sticky slot moves, or the
        partition vanishes, before that is done, choose again until it sticks."""
        deadline = time.monotonic() + timeout_s
        while True:
            rest_s = max(0.0, deadline - time.monotonic())
            slot = None
            if number is None:
                target, slot = self._choose(route, record)
            else:
                route, target = self._explicit(route, number, rest_s)
            place = append(self._core, route, target, slot, record, rest_s)
            if place is not None:
                return place

    def _check_bound(self, topic: str, bound: int) -> None:
        if bound > self._max_request_size:
            raise failures.record_too_large(topic, bound, self._max_request_size)
        if bound > self._buffer_memory:
            raise failures.record_exceeds_buffer(topic, bound, self._buffer_memory)

    def _explicit(
        self, route: TopicRoute, partition: Any, timeout_s: float
    ) -> tuple[TopicRoute, Partition]:
        """A partition the caller named; metadata is asked once more when it does not exist."""
        if type(partition) is bool:
            raise failures.bad_partition(partition)
        try:
            number = operator.index(partition)
        except TypeError:
            raise failures.bad_partition(partition) from None
        partitions = route.partitions
        if not 0 <= number < len(partitions):
            route = self._engine.refresh_partitions(route.topic, number, timeout_s)
            partitions = route.partitions
            if not 0 <= number < len(partitions):
                raise failures.partition_out_of_range(route.topic, number, len(partitions))
        return route, partitions[number]

    def _choose(self, route: TopicRoute, record: Record) -> tuple[Partition, StickySlot | None]:
        """The partition of a record that names none, and the sticky slot if it came from there."""
        mode = self._partition_mode
        key = record.key_bytes
        if key is None and mode in (layout.PARTITION_DEFAULT, layout.PARTITION_STICKY):
            slot = route.sticky_slot()
            return slot.partition, slot
        partitions = route.partitions
        if mode in (layout.PARTITION_DEFAULT, layout.PARTITION_MURMUR2, layout.PARTITION_RANDOM):
            if key is None and mode == layout.PARTITION_RANDOM:
                return route.uniform(), None
            return partitions[partition_for_key(key or b"", len(partitions))], None
        if mode == layout.PARTITION_STICKY:
            slot = route.sticky_slot()
            return slot.partition, slot
        if mode == layout.PARTITION_ROUND_ROBIN:
            return route.round_robin(), None
        if mode == layout.PARTITION_CRC32:
            return partitions[zlib.crc32(flat(key) or b"") % len(partitions)], None
        chosen = self._custom(route, record)
        if key is None and self._on_new_batch is not None and not _has_room(chosen, record):
            # The partitioner may move on (KIP-480), and is asked again because it is this very
            # record that is to go there.
            self._on_new_batch(route.topic, chosen.index)
            chosen = self._custom(route, record)
        return chosen, None

    def _custom(self, route: TopicRoute, record: Record) -> Partition:
        assert self._partitioner is not None
        chosen = self._partitioner(
            route.topic, record.key, record.key_bytes, record.value, record.value_bytes
        )
        partitions = route.partitions
        try:
            number = -1 if type(chosen) is bool else operator.index(chosen)
        except TypeError:
            number = -1
        if not 0 <= number < len(partitions):
            raise failures.bad_partitioner_result(route.topic, chosen, len(partitions))
        return partitions[number]


def _has_room(partition: Partition, record: Record) -> bool:
    """Whether the record would go into an open batch. Its headers are not counted: they are framed
    later, and this only decides when a partitioner is told of a new batch; so it needs no lock."""
    size = layout.BATCH_HEADER + layout.RECORD_OVERHEAD
    size += len(record.key_bytes or b"") + len(record.value_bytes or b"")
    try:
        tail = partition.queue[-1]
    except IndexError:
        return False
    return tail.accepts and len(tail.records) + size <= tail.limit
