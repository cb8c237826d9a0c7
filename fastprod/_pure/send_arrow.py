"""`send_arrow`: the columns of Arrow data become lists; the rest is `send_many`'s."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastprod import arrow_types
from fastprod._pure.send_many import ManyAtOnce
from fastprod.batch_future import BatchFuture
from fastprod.columns import Columns

if TYPE_CHECKING:
    from fastprod._pure.arrow import ArrowTable


class ProducerBase(ManyAtOnce):
    """Holds `send`, `send_many` and `send_arrow`; the faces derive from it and call `_bind` once
    both planes exist."""

    def send_arrow(
        self,
        topic: str,
        data: Any,
        *,
        value: str,
        key: str | None = None,
        headers: str | Sequence[str] | None = None,
        partition: str | None = None,
        timestamp: str | None = None,
    ) -> BatchFuture:
        """Accept one record a row of Arrow data for delivery and return the BatchFuture of them all
        at once.

        topic: str. data: what offers `__arrow_c_stream__` or `__arrow_c_array__`: tables, record
        batches and data frames of PyArrow, Polars, DuckDB and pandas. A stream is read to its end,
        all its batches are one call. The other arguments are names of its columns. value, key:
        (large_)binary, (large_)utf8, views of these, fixed-size binary, or a dictionary of one of
        these; a null is a null, and not both may be. headers: a `map<utf8, binary>` (or list of
        structs of two; a null map is no headers), or a list of columns, whose names become the
        headers'; a header's value may be null. partition: any integers; null: the partitioner
        chooses. timestamp: `timestamp[*]`, rounded down to milliseconds since 1970-01-01 UTC, or
        int64 in milliseconds; null: the time of the call.

        Serializers are not applied: the columns hold what the records shall hold, and a partitioner
        of the caller's is given bytes. All is checked before the first record is accepted.
        TypeError: data without Arrow, a column of another type; ValueError: no such column, a
        partition there is none of, nulls as key and value, data that breaks Arrow's format;
        MessageSizeTooLargeError; RuntimeError with the words of a stream that fails. Then nothing
        was sent. After that, `send_many` tells what happens. How long buffers are is not told by
        the interface: a wrong length is believed, as everybody has to.
        """
        from fastprod._pure.arrow import ArrowTable  # ctypes: only who needs it pays for it

        if self._core.closing:
            self._begin_again()
        table = ArrowTable()
        try:
            table.open(data)
            plan = arrow_types.plan(table.table(), value, key, headers, partition, timestamp)
            table.read_all()
            columns = _columns(table, plan)
            return self._accepted(topic, self._rows(topic, columns, columns))
        finally:
            table.release()


def _columns(table: ArrowTable, plan: arrow_types.Plan) -> Columns:
    from fastprod._pure import arrow_cells as cells

    columns: Any = ([], [], [], [], [])
    values, keys, headers, times, partitions = columns
    now = time.time_ns() // 1_000_000
    for batch in table.batches:
        first, start, count = len(values), batch.offset, batch.length
        cells.check_rows(batch, first)
        column = cells.column_of(plan.value, batch)
        values += cells.read_cells(plan.value, column, start, count, first, "value")
        if plan.key is not None:
            column = cells.column_of(plan.key, batch)
            keys += cells.read_cells(plan.key, column, start, count, first, "key")
        if plan.header_map is not None:
            headers += cells.read_header_map(plan.header_map, batch, first)
        elif plan.headers:
            headers += cells.read_headers(plan.headers, batch, first)
        if plan.timestamp is not None:
            column = cells.column_of(plan.timestamp, batch)
            times += cells.read_times(plan.timestamp, column, start, count, first, now)
        if plan.partition is not None:
            column = cells.column_of(plan.partition, batch)
            partitions += cells.read_integers(plan.partition, column, start, count)
    return Columns(
        values,
        None if plan.key is None else keys,
        headers if plan.headers or plan.header_map is not None else None,
        [],
        None,
        None if plan.partition is None else partitions,
        now,
        None if plan.timestamp is None else times,
    )
