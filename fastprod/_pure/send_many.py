"""`send_many`: all is checked before the first record is accepted; then it is `send`, one by one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from fastprod import errors, failures
from fastprod._pure import layout
from fastprod._pure.accumulator import TopicRoute
from fastprod._pure.checks import check_headers, header_size_of, size_of, timestamp_of
from fastprod._pure.delivery import FutureRecordMetadata
from fastprod._pure.placement import Placement
from fastprod._pure.record_batch import (
    BytesLike,
    Record,
    frame_headers,
    frame_record,
    record_upper_bound,
)
from fastprod._pure.send import OneByOne
from fastprod.batch_future import BatchFuture
from fastprod.columns import Columns, columns_of, serialized


class _Row(NamedTuple):
    record: Record
    sizes: tuple[int, int, int]
    partition: int | None
    ahead: bool = False  # the partition is what a partitioner of the caller's chose


class ManyAtOnce(OneByOne):
    """Holds `send_many`, and what it shares with `send_arrow`."""

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
        """Accept one record a value for delivery and return the BatchFuture of them all at once.

        topic: str. values: a sequence or iterable of what the value serializer takes, or of bytes,
        bytearray, memoryview or None without one. keys: None, or as many of them. headers: None, a
        list of (str, bytes) tuples for all, or one such list (or None) a record. partition,
        timestamp_ms: None, an int for all, or one a record; without a time it is that of the call.
        Records of a partition are written in the order of the call.

        All is checked before the first record is accepted, so a bad item raises TypeError,
        ValueError or MessageSizeTooLargeError that name its index, and nothing was sent. Where
        buffer_memory is full it waits as `send` does, up to max_block_ms for each new batch. If
        that runs out, or the producer is closed, before the first record was accepted, it raises
        what `send` raises; after it, the records that were not accepted fail in the BatchFuture and
        the others go on.
        """
        given = columns_of(values, keys, headers, partition, timestamp_ms)
        if self._core.closing:
            self._begin_again()
        return self._accepted(topic, self._checked(topic, given))

    def _accepted(self, topic: str, rows: list[_Row]) -> BatchFuture:
        """The future of the records, which are in batches now."""
        route: Any = self._routes.get(topic) if type(topic) is str else None
        if route is None:
            timeout_s = 0.0 if self._core.host.is_inside() else self._max_block_s
            route = self._engine.resolve_topic(topic, timeout_s)
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
        _each(check_headers, given.headers or ())
        columns = serialized(given, topic, self._key_serializer, self._value_serializer)
        return self._rows(topic, given, columns)

    def _rows(self, topic: str, given: Columns, columns: Columns) -> list[_Row]:
        """Everything of the records, but for whether their partitions exist; column by column.
        `columns`: what serializers have made of those that were given."""
        count = len(given.values)
        value_sizes = _each(partial(size_of, "value"), columns.values)
        values = _each(_frozen, columns.values)
        keys, key_sizes = [None] * count, [-1] * count
        if columns.keys is not None:
            key_sizes = _each(partial(size_of, "key"), columns.keys)
            keys = _each(_frozen, columns.keys)
        for index in range(count):
            if keys[index] is None and values[index] is None:
                raise failures.of_record(index, failures.nothing_to_send())
        headers = columns.headers or [columns.shared_headers] * count
        framed = _each(frame_headers, headers)
        records = []
        for index in range(count):
            record = Record(given.keys and given.keys[index], given.values[index])
            record.key_bytes, record.value_bytes = keys[index], values[index]
            record.framed = frame_record(keys[index], values[index], framed[index])
            records.append(record)
        _each(lambda each: self._check_bound(topic, record_upper_bound(len(each.framed))), records)
        now = timestamp_of(columns.timestamp)
        stamps = columns.timestamps or [now] * count
        times = _each(lambda each: now if each is None else timestamp_of(each), stamps)
        only = _number(columns.partition)
        numbers = _each(_number, columns.partitions or [only] * count)
        rows = []
        for index, record in enumerate(records):
            record.timestamp = times[index]
            header_size = header_size_of(headers[index]) if headers[index] else -1
            sizes = key_sizes[index], value_sizes[index], header_size
            rows.append(_Row(record, sizes, numbers[index]))
        return rows

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
                outcome, place = self._put(route, number, row.record, self._max_block_s)
            except (errors.KafkaError, ValueError, TypeError) as error:
                if index == 0:
                    raise
                return failures.own(error.with_traceback(None))  # its frames hold this producer
            futures[index] = FutureRecordMetadata(outcome, place, row.record.timestamp, *row.sizes)
        return None


def _each(check: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """What `check` makes of each; its error says of which record it is."""
    results = []
    for index, item in enumerate(items):
        try:
            results.append(check(item))
        except Exception as error:
            raise failures.of_record(index, error) from None
    return results


def _frozen(data: BytesLike | None) -> bytes | None:
    """What could change under our hands is copied."""
    return None if data is None else bytes(data)


def _number(partition: Any) -> int | None:
    if partition is None:
        return None
    if type(partition) is bool:
        raise failures.bad_partition(partition)
    try:
        return operator.index(partition)
    except TypeError:
        raise failures.bad_partition(partition) from None
