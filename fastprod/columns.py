"""The arguments of `send_many`, brought into shape: columns as long as the values. What is in them the twins check."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from fastprod import failures

Serializer = Callable[[str, list[Any], Any], Any]

_TEXT: Final = (bytes, bytearray, memoryview, str)


class Columns(NamedTuple):
    """Lists of our own: nobody else changes them."""

    values: list[Any]
    keys: list[Any] | None
    headers: list[Any] | None
    """One list a record; None: all have `shared_headers`."""
    shared_headers: list[Any]
    partition: Any
    """Of all records, where there is no column of them."""
    partitions: list[Any] | None
    timestamp: Any
    """Of all records, where there is no column of them."""
    timestamps: list[Any] | None


def columns_of(values: Any, keys: Any, headers: Any, partition: Any, timestamp_ms: Any) -> Columns:
    """TypeError for what is no column, ValueError for one of another length."""
    value_column = _column("values", values)
    count = len(value_column)
    shared, own = _headers(headers, count)
    partition, partitions = _number_or_column("partition", partition, count)
    timestamp, timestamps = _number_or_column("timestamp_ms", timestamp_ms, count)
    return Columns(
        value_column,
        None if keys is None else _even("keys", _column("keys", keys), count),
        own,
        shared,
        partition,
        partitions,
        timestamp,
        timestamps,
    )


def serialized(
    columns: Columns, topic: str, key_serializer: Serializer | None, value_serializer: Serializer | None
) -> Columns:
    """The columns with what the serializers make of them; each record's headers are a list of its own, to which a
    serializer may add."""
    if key_serializer is None and value_serializer is None:
        return columns
    count = len(columns.values)
    given = columns.headers or [columns.shared_headers] * count
    headers = [list(each) for each in given]
    keys, values = columns.keys, columns.values
    index = 0
    try:
        if key_serializer is not None:
            raw = keys or [None] * count
            keys = []
            for index in range(count):
                keys.append(key_serializer(topic, headers[index], raw[index]))
        if value_serializer is not None:
            raw = values
            values = []
            for index in range(count):
                values.append(value_serializer(topic, headers[index], raw[index]))
    except Exception as error:
        error.add_note(f"record {index} of send_many: nothing was sent")
        raise
    return columns._replace(keys=keys, values=values, headers=headers if any(headers) else None, shared_headers=[])


def _column(name: str, column: Any) -> list[Any]:
    if isinstance(column, _TEXT):
        raise failures.not_a_column(name, column)
    if hasattr(column, "tolist"):  # array, numpy: Python's own ints, not theirs
        column = column.tolist()
    try:
        return list(column)
    except TypeError:
        if hasattr(column, "__iter__"):
            raise  # a generator's own
        raise failures.not_a_column(name, column) from None


def _even(name: str, column: list[Any], count: int) -> list[Any]:
    if len(column) != count:
        raise failures.uneven_column(name, len(column), count)
    return column


def _number_or_column(name: str, given: Any, count: int) -> tuple[Any, list[Any] | None]:
    if given is None or isinstance(given, _TEXT):
        return given, None
    try:
        operator.index(given)
    except TypeError:
        if not hasattr(given, "__iter__"):
            return given, None  # not a number either: the twin says so
        return None, _even(name, _column(name, given), count)
    return given, None


def _headers(given: Any, count: int) -> tuple[list[Any], list[Any] | None]:
    """(those of all records, those of each one)."""
    if given is None:
        return [], None
    if isinstance(given, dict):  # which would be taken for a column of its keys
        raise failures.headers_not_a_list(given)
    column = _column("headers", given)
    if all(isinstance(each, tuple) for each in column):
        if not isinstance(given, list):
            raise failures.headers_not_a_list(given)
        return column, None
    return [], [_own(each) for each in _even("headers", column, count)]


def _own(headers: Any) -> Any:
    return [] if headers is None else list(headers) if isinstance(headers, list) else headers
