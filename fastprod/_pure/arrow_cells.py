"""What is in the columns of Arrow data (Arrow specification, "Columnar format"), as lists: bytes,
integers, headers; None for null. Nothing in the buffers is followed to where it cannot lead."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Final

from fastprod import arrow_failures, failures
from fastprod._pure.arrow import ArrowArray, check_array, child_of
from fastprod.arrow_types import Column

Headers = list[tuple[str, bytes | None]]

_MAX_INT32: Final = 0x7FFFFFFF
_MAX_INT64: Final = (1 << 63) - 1
_VIEW: Final = struct.Struct("=i4sii")  # size, first bytes, buffer, offset
_VIEW_INLINE: Final = 12  # bytes at most that lie in the view itself
_VIEW_INLINE_AT: Final = 4
_SIGNED: Final[dict[int, type[ctypes._SimpleCData[int]]]] = {
    1: ctypes.c_int8, 2: ctypes.c_int16, 4: ctypes.c_int32, 8: ctypes.c_int64,
}  # fmt: skip
_UNSIGNED: Final[dict[int, type[ctypes._SimpleCData[int]]]] = {
    1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64,
}  # fmt: skip


def column_of(column: Column, batch: ArrowArray) -> ArrowArray:
    """A column that has all of the batch's rows."""
    least = batch.offset + batch.length
    return child_of(batch, column.place, least, column.what, column.type)


def error_at(column: Column, index: int, error: Exception) -> Exception:
    """`error`, of an item that is a record's or an entry of something."""
    if column.of_records:
        return failures.of_record(index, error)
    return arrow_failures.at_entry(index, column.what, error)


def read_cells(
    column: Column, array: ArrowArray, start: int, count: int, first: int, field: str
) -> list[bytes | None]:
    """The items from `start` on. `first`: what errors count from; `field`: what too large an item
    is called."""
    if column.layout == "null":
        return [None] * count
    _check(column, array)
    if count == 0:
        return []
    if column.layout == "dictionary":
        return _coded(column, array, start, count, first, field)
    if not array.buffers[1] and (column.layout != "fixed" or column.width):
        raise _broken(column, "its second buffer is missing")
    start += array.offset
    valid = _validity(array, start, count)
    read = {"offsets": _by_offsets, "views": _by_view, "fixed": _of_one_size}[column.layout]
    cells = []
    for index in range(count):
        try:
            cells.append(read(column, array, start + index, field) if valid[index] else None)
        except Exception as error:
            raise error_at(column, first + index, error) from None
    return cells


def _check(column: Column, array: ArrowArray) -> None:
    buffers = {"offsets": 3, "views": -3}.get(column.layout, 2)
    children = 1 if column.layout == "lists" else 0
    check_array(array, column.what, column.type, buffers, children, column.width)
    if column.layout == "dictionary" and not array.dictionary:
        raise _broken(column, "its dictionary is missing")


def _broken(column: Column, how: str) -> Exception:
    return arrow_failures.broken(column.what, column.type, how)


def _validity(array: ArrowArray, start: int, count: int) -> list[bool]:
    """Which items are not null."""
    if array.null_count == 0 or not array.buffers[0] or count == 0:
        return [True] * count
    first_byte = start >> 3
    bits = ctypes.string_at(array.buffers[0] + first_byte, (start + count + 7 >> 3) - first_byte)
    begin = start & 7
    return [bool(bits[at >> 3] >> (at & 7) & 1) for at in range(begin, begin + count)]


def _integer_at(address: int, width: int, signed: bool, index: int) -> int:
    kind = (_SIGNED if signed else _UNSIGNED)[width]
    return kind.from_address(address + width * index).value


def _by_offsets(column: Column, array: ArrowArray, index: int, field: str) -> bytes:
    begin = _integer_at(array.buffers[1], column.width, True, index)
    end = _integer_at(array.buffers[1], column.width, True, index + 1)
    if begin < 0 or end < begin:
        raise _broken(column, f"its offsets go from {begin} to {end}")
    if end > begin and not array.buffers[2]:
        raise _broken(column, f"it has {end - begin} bytes in a buffer that is missing")
    if end - begin > _MAX_INT32:
        raise failures.too_long(field, end - begin)
    return ctypes.string_at(array.buffers[2] + begin, end - begin) if end > begin else b""


def _by_view(column: Column, array: ArrowArray, index: int, field: str) -> bytes:
    at = array.buffers[1] + _VIEW.size * index
    size, _, buffer, offset = _VIEW.unpack(ctypes.string_at(at, _VIEW.size))
    if 0 <= size <= _VIEW_INLINE:
        return ctypes.string_at(at + _VIEW_INLINE_AT, size)
    lengths = array.buffers[array.n_buffers - 1]  # here the lengths of the buffers are known
    if (
        size < 0
        or offset < 0
        or not lengths
        or not 0 <= buffer < array.n_buffers - 3
        or offset + size > _integer_at(lengths, 8, True, buffer)
        or not array.buffers[2 + buffer]
    ):
        how = f"a view of {size} bytes at {offset} of buffer {buffer} leads out of what is there"
        raise _broken(column, how)
    return ctypes.string_at(array.buffers[2 + buffer] + offset, size)


def _of_one_size(column: Column, array: ArrowArray, index: int, field: str) -> bytes:
    if column.width == 0:
        return b""
    return ctypes.string_at(array.buffers[1] + column.width * index, column.width)


def _coded(
    column: Column, array: ArrowArray, start: int, count: int, first: int, field: str
) -> list[bytes | None]:
    """By a dictionary; a null may be in either."""
    words_array: ArrowArray = array.dictionary.contents
    (words_column,) = column.inner
    known = words_array.length
    if words_column.layout == "null":
        what, type_name = words_column.what, words_column.type
        check_array(words_array, what, type_name, words_array.n_buffers, 0, 0)
    else:
        _check(words_column, words_array)
    if not array.buffers[1]:
        raise _broken(column, "its second buffer is missing")
    if known > _MAX_INT32:
        raise _broken(words_column, f"{known} entries")
    words = read_cells(words_column, words_array, 0, known, 0, field)
    cells = []
    for index, code in enumerate(_integers(column, array, start, count)):
        if code is not None and not 0 <= code < known:
            error = _broken(column, f"code {code} of a dictionary of {known}")
            raise error_at(column, first + index, error)
        cells.append(None if code is None else words[code])
    return cells


def _integers(column: Column, array: ArrowArray, start: int, count: int) -> Iterator[int | None]:
    start += array.offset
    for index, valid in enumerate(_validity(array, start, count)):
        if valid:
            yield _integer_at(array.buffers[1], column.width, column.signed, start + index)
        else:
            yield None


def read_integers(
    column: Column, array: ArrowArray, start: int, count: int
) -> list[int | None]:
    """Partitions."""
    if column.layout == "null":
        return [None] * count
    _check(column, array)
    if count and not array.buffers[1]:
        raise _broken(column, "its second buffer is missing")
    return list(_integers(column, array, start, count))


def read_times(
    column: Column, array: ArrowArray, start: int, count: int, first: int, now: int
) -> list[int]:
    """In milliseconds, rounded down as clocks are."""
    times = []
    for index, time in enumerate(read_integers(column, array, start, count)):
        if time is None:
            times.append(now)
            continue
        scaled = time * column.multiplier
        if not -_MAX_INT64 - 1 <= scaled <= _MAX_INT64:
            error = arrow_failures.time_out_of_range(column.what, column.type, time)
            raise failures.of_record(first + index, error)
        times.append(scaled // column.divisor)
    return times


def read_headers(
    columns: tuple[tuple[bytes, Column], ...], batch: ArrowArray, first: int
) -> list[Headers]:
    """Of columns of values; a null is a header whose value is null."""
    names = [name.decode() for name, _ in columns]
    values = [
        read_cells(column, column_of(column, batch), batch.offset, batch.length, first, "header")
        for _, column in columns
    ]
    return [list(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def read_header_map(column: Column, batch: ArrowArray, first: int) -> list[Headers]:
    """A null map is no headers, a null value a header whose value is null."""
    lists = column_of(column, batch)
    _check(column, lists)
    pairs = child_of(lists, 0, 0, column.what, column.type)
    check_array(pairs, column.what, "struct", 1, 2, 0)
    if batch.length == 0:
        return []
    if not lists.buffers[1]:
        raise _broken(column, "its second buffer is missing")
    start = batch.offset + lists.offset
    at = [
        _integer_at(lists.buffers[1], column.width, True, start + row)
        for row in range(batch.length + 1)
    ]
    for row in range(batch.length):
        if not 0 <= at[row] <= at[row + 1] <= pairs.length:
            error = _broken(column, f"its offsets go from {at[row]} to {at[row + 1]} of {pairs.length}")
            raise failures.of_record(first + row, error)
    if at[-1] - at[0] > _MAX_INT32:
        raise _broken(column, f"{at[-1] - at[0]} entries")
    names, values = (_side(each, pairs, at[0], at[-1]) for each in column.inner)
    there = _validity(pairs, pairs.offset + at[0], at[-1] - at[0])
    rows: list[Headers] = []
    for row, valid in enumerate(_validity(lists, start, batch.length)):
        entries = range(at[row] - at[0], at[row + 1] - at[0]) if valid else range(0)
        try:
            rows.append(
                [(_name(column, names[i] if there[i] else None), values[i]) for i in entries]
            )
        except ValueError as error:
            raise failures.of_record(first + row, error) from None
    return rows


def _side(column: Column, pairs: ArrowArray, low: int, end: int) -> list[bytes | None]:
    """Names or values, from the entry `low` on."""
    side = child_of(pairs, column.place, pairs.offset + end, column.what, column.type)
    return read_cells(column, side, pairs.offset + low, end - low, low, "header")


def _name(column: Column, name: bytes | None) -> str:
    if name is None:
        raise arrow_failures.null_header(column.what)
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise arrow_failures.header_name_not_utf8(column.what, name) from None


def check_rows(batch: ArrowArray, first: int) -> None:
    """A struct array may have rows that are null as a whole."""
    for row, valid in enumerate(_validity(batch, batch.offset, batch.length)):
        if not valid:
            raise failures.of_record(first + row, arrow_failures.null_record())
