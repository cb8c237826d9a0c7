"""`send_many`: all is checked before the first record is accepted; then it is `send`, one by one."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

from fastprod import errors, failures
from fastprod._pure import layout
from fastprod._pure.accumulator import TopicRoute
from fastprod._pure.checks import check_headers, header_size_of, size_of, timestamp_of
from fastprod._pure.delivery import FutureRecordMetadata
from fastprod._pure.placement import Placement
from fastprod._pure.record_batch import Record, frame_headers, frame_record, record_upper_bound
from fastprod._pure.send import OneByOne
from fastprod.batch_future import BatchFuture
from fastprod.columns import Columns, columns_of, serialized


class _Row(NamedTuple):
    record: Record
    sizes: tuple[int, int, int]
    partition: int | None
    ahead: bool = False  # the partition is what a partitioner of the caller's chose


class ProducerBase(OneByOne):
    """Holds `send` and `send_many`; the faces derive from it and call `_bind` once both planes
    exist."""

    def send_many(
        self,
        topic: str,
        values: Any,
        keys: Any = None,
        *,
        headers: Any = None,
        partition: Any = None,
        timestamp_ms: Any = None,
    ) -> BatchFuture:
        """Accept one record a value and return the BatchFuture of them all; see
        `KafkaProducer.send_many`."""
        given = columns_of(values, keys, headers, partition, timestamp_ms)
        if self._core.closing:
            self._begin_again()
        rows = self._checked(topic, given)
        route: Any = self._routes.get(topic) if type(topic) is str else None
        if route is None:
            route = self._engine.resolve_topic(topic, self._max_block_s)
        futures: list[FutureRecordMetadata | None] = [None] * len(rows)
        refusal: BaseException | None = None
        if isinstance(route, BaseException):
            refusal = route
        else:
            route.mark_used()
            self._choose_ahead(route, rows)
            refusal = self._place_all(route, rows, futures)
        return BatchFuture(Placement(topic, futures, refusal))

    def _checked(self, topic: str, given: Columns) -> list[_Row]:
        check_headers(given.shared_headers)
        for index, headers in enumerate(given.headers or ()):
            if headers is not None:
                try:
                    check_headers(headers)
                except TypeError as error:
                    raise failures.of_record(index, error) from None
        columns = serialized(given, topic, self._key_serializer, self._value_serializer)
        if columns.timestamps is None:
            columns = columns._replace(timestamp=timestamp_of(columns.timestamp))
        if columns.partitions is None:
            columns = columns._replace(partition=_number(columns.partition))
        shared = columns.shared_headers, frame_headers(columns.shared_headers)
        rows = []
        for index in range(len(columns.values)):
            try:
                rows.append(self._row(topic, given, columns, index, shared))
            except Exception as error:
                raise failures.of_record(index, error) from None
        return rows

    def _row(
        self,
        topic: str,
        given: Columns,
        columns: Columns,
        index: int,
        shared: tuple[list[Any], bytes],
    ) -> _Row:
        """One record, checked, but for whether its partition exists."""
        record = Record(None if given.keys is None else given.keys[index], given.values[index])
        key = None if columns.keys is None else columns.keys[index]
        value = columns.values[index]
        key_size, value_size = size_of("key", key), size_of("value", value)
        if key is None and value is None:
            raise failures.nothing_to_send()
        # What could change under our hands is copied.
        record.key_bytes = None if key is None else bytes(key)
        record.value_bytes = None if value is None else bytes(value)
        headers, framed = shared
        if columns.headers is not None:
            headers = columns.headers[index] or []
            framed = frame_headers(headers)
        record.framed = frame_record(record.key_bytes, record.value_bytes, framed)
        self._check_bound(topic, record_upper_bound(len(record.framed)))
        stamp = columns.timestamp if columns.timestamps is None else columns.timestamps[index]
        record.timestamp = timestamp_of(stamp)
        number = columns.partition if columns.partitions is None else columns.partitions[index]
        header_size = header_size_of(headers) if headers else -1
        return _Row(record, (key_size, value_size, header_size), _number(number))

    def _choose_ahead(self, route: TopicRoute, rows: list[_Row]) -> None:
        """Look whether the partitions that were named exist, and ask a partitioner of the caller's:
        what can be refused is refused before the first record is accepted."""
        for index, row in enumerate(rows):
            try:
                if row.partition is not None:
                    route, _ = self._explicit(route, row.partition, self._max_block_s)
                elif self._asks_ahead():
                    number = self._custom(route, row.record).index
                    rows[index] = row._replace(partition=number, ahead=True)
            except Exception as error:
                raise failures.of_record(index, error) from None

    def _asks_ahead(self) -> bool:
        """One that is told of new batches must be asked when the records before are where they
        belong."""
        return self._partition_mode == layout.PARTITION_CUSTOM and self._on_new_batch is None

    def _place_all(
        self, route: TopicRoute, rows: list[_Row], futures: list[FutureRecordMetadata | None]
    ) -> Exception | None:
        """An error before the first record was accepted is raised; after it, it is that of the
        records that are left, and returned."""
        for index, row in enumerate(rows):
            number = row.partition
            if row.ahead and number is not None and number >= route.partition_count:
                number = None  # gone by now: the partitioner is asked again
            try:
                outcome, place = self._place(route, number, row.record, self._max_block_s)
            except (errors.KafkaError, ValueError, TypeError) as error:
                if index == 0:
                    raise
                return failures.own(error)
            futures[index] = FutureRecordMetadata(outcome, place, row.record.timestamp, *row.sizes)
        return None


def _number(partition: Any) -> int | None:
    if partition is None:
        return None
    if type(partition) is bool:
        raise failures.bad_partition(partition)
    try:
        return operator.index(partition)
    except TypeError:
        raise failures.bad_partition(partition) from None
