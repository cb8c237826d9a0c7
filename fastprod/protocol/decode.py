"""From bytes to messages.

A message class is compiled once a version into a chain of closures. Bytes come from the network
and are believed in nothing: each length and each count is held against the bytes that remain
before anything of that size is made, so the memory and time spent are in proportion to the size
of the input. Whatever is wrong ends in Malformed, which knows where it was.
"""

import functools
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from fastprod.protocol.schema import BYTES, ArrayOf, Field, Primitive, WireType, fields_of


class Malformed(Exception):
    """Bytes that are not what the schema says: why, at which offset, in which field."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason, offset)
        self.reason = reason
        self.offset = offset
        self._path: list[str] = []

    def within(self, step: str) -> None:
        """Note the field or element around the place, innermost first."""
        self._path.append(step)

    @property
    def field(self) -> str:
        """The way to the field from outside, like `topics[3].name`."""
        return ".".join(reversed(self._path)).replace(".[", "[")


class Cursor:
    """A place in a buffer, and the end that nothing may read beyond."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.end = len(data)

    def take(self, size: int) -> int:
        """Step over `size` bytes and return where they begin."""
        begin = self.position
        if size > self.end - begin:
            raise Malformed(f"{size} bytes needed, {self.end - begin} left", begin)
        self.position = begin + size
        return begin


Reader: TypeAlias = Callable[[Cursor], Any]
# Where a value or a run of values goes among the fields, the names there, and what reads it.
_Step: TypeAlias = tuple[int | slice, tuple[str, ...], Reader]


def read_uvarint(cursor: Cursor) -> int:
    """Read an unsigned varint of at most 32 bits: 7 bits a byte, the lowest first."""
    begin = cursor.position
    if begin < cursor.end and cursor.data[begin] < 0x80:
        # Nearly all of them are one byte.
        cursor.position = begin + 1
        return cursor.data[begin]
    value = 0
    for shift in range(0, 35, 7):
        byte = cursor.data[cursor.take(1)]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 32:
                break
            return value
    raise Malformed("varint longer than 32 bits", begin)


@functools.cache
def struct_reader(message: type, version: int, flexible: bool) -> Reader:
    """Return what reads a message or a part of one, without header, in that version."""
    fields = fields_of(message, version)
    template = [field.default for field in fields]
    steps = _steps(fields, version, flexible)
    tagged = {
        field.tag: (index, field.name, _reader(field.wire_type, field.nullable, version, flexible))
        for index, field in enumerate(fields)
        if field.exists and field.tag is not None
    }
    make = message._make  # type: ignore[attr-defined]

    def read(cursor: Cursor) -> Any:
        values = template.copy()
        for where, names, reader in steps:
            try:
                values[where] = reader(cursor)
            except Malformed as malformed:
                if len(names) == 1:
                    malformed.within(names[0])
                raise
        if flexible:
            _read_tags(cursor, tagged, values)
        return make(values)

    return read


def _steps(fields: list[Field], version: int, flexible: bool) -> list[_Step]:
    """Return the readers of the untagged fields; neighbours of fixed size share one."""
    steps: list[_Step] = []
    run: list[tuple[int, Field, str]] = []

    def end_run() -> None:
        if run:
            names = tuple(field.name for _, field, _ in run)
            reader = _fixed_reader(names, [code for _, _, code in run])
            steps.append((slice(run[0][0], run[-1][0] + 1), names, reader))
            run.clear()

    for index, field in enumerate(fields):
        code = field.wire_type.code if isinstance(field.wire_type, Primitive) else None
        if field.exists and field.tag is None and code is not None:
            run.append((index, field, code))
            continue
        end_run()
        if field.exists and field.tag is None:
            reader = _reader(field.wire_type, field.nullable, version, flexible)
            steps.append((index, (field.name,), reader))
    end_run()
    return steps


def _fixed_reader(names: tuple[str, ...], codes: list[str]) -> Reader:
    """Return what reads neighbouring fields of fixed size as one tuple."""
    packed = struct.Struct(">" + "".join(codes))
    size, unpack = packed.size, packed.unpack_from

    def read(cursor: Cursor) -> tuple[Any, ...]:
        begin = cursor.position
        if size > cursor.end - begin:
            raise _cut_short(cursor, names, codes)
        cursor.position = begin + size
        return unpack(cursor.data, begin)

    return read


def _cut_short(cursor: Cursor, names: tuple[str, ...], codes: list[str]) -> Malformed:
    """Find the field of a run at which the bytes end."""
    for name, code in zip(names, codes, strict=True):
        try:
            cursor.take(struct.calcsize(">" + code))
        except Malformed as malformed:
            if len(names) > 1:
                malformed.within(name)
            return malformed
    raise AssertionError("the run fits after all")


def _read_tags(cursor: Cursor, tagged: dict[int, tuple[int, str, Reader]], values: list[Any]) -> None:
    """Read the tagged fields at the end of a structure; of a repeated one the last counts."""
    count_at = cursor.position
    count = read_uvarint(cursor)
    if count == 0:
        return
    if 2 * count > cursor.end - cursor.position:
        raise Malformed(f"{count} tagged fields announced, {cursor.end - cursor.position} bytes left", count_at)
    for _ in range(count):
        number = read_uvarint(cursor)
        size = read_uvarint(cursor)
        begin = cursor.take(size)
        if number not in tagged:
            # A newer broker may know more than we do (KIP-482).
            continue
        index, name, reader = tagged[number]
        outer_end = cursor.end
        cursor.position, cursor.end = begin, begin + size
        try:
            values[index] = reader(cursor)
            if cursor.position != cursor.end:
                raise Malformed(f"{cursor.end - cursor.position} bytes too many in a tagged field", cursor.position)
        except Malformed as malformed:
            malformed.within(name)
            raise
        cursor.end = outer_end


def _reader(wire_type: WireType, nullable: bool, version: int, flexible: bool) -> Reader:
    if isinstance(wire_type, ArrayOf):
        return _array_reader(wire_type.element, nullable, version, flexible)
    if not isinstance(wire_type, Primitive):
        return struct_reader(wire_type, version, flexible)
    if wire_type.code is not None:
        fixed = _fixed_reader(("",), [wire_type.code])
        return lambda cursor: fixed(cursor)[0]
    if wire_type is BYTES:
        return _bytes_reader(_length_reader(">i", nullable, flexible))
    return _string_reader(_length_reader(">h", nullable, flexible))


def _length_reader(code: str, nullable: bool, flexible: bool) -> Reader:
    """Return what reads a length or count; None is null.

    Classic: a signed integer, -1 for null. Compact: an unsigned varint of length + 1, 0 for null.
    """
    packed = struct.Struct(code)

    def check_null(length: int, begin: int) -> None:
        if length < -1 or not nullable:
            raise Malformed(f"length {length}" if length < -1 else "null where null is not allowed", begin)

    def read_compact(cursor: Cursor) -> int | None:
        begin = cursor.position
        length = read_uvarint(cursor) - 1
        if length >= 0:
            return length
        check_null(length, begin)
        return None

    def read_classic(cursor: Cursor) -> int | None:
        begin = cursor.take(packed.size)
        length: int = packed.unpack_from(cursor.data, begin)[0]
        if length >= 0:
            return length
        check_null(length, begin)
        return None

    return read_compact if flexible else read_classic


def _string_reader(length_of: Reader) -> Reader:
    def read(cursor: Cursor) -> str | None:
        length = length_of(cursor)
        if length is None:
            return None
        begin = cursor.take(length)
        try:
            return cursor.data[begin : begin + length].decode()
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8", begin + error.start) from None

    return read


def _bytes_reader(length_of: Reader) -> Reader:
    def read(cursor: Cursor) -> bytes | None:
        length = length_of(cursor)
        if length is None:
            return None
        begin = cursor.take(length)
        return cursor.data[begin : begin + length]

    return read


def _array_reader(element: WireType, nullable: bool, version: int, flexible: bool) -> Reader:
    count_of = _length_reader(">i", nullable, flexible)
    smallest = max(_smallest(element, version, flexible), 1)

    def bounded_count(cursor: Cursor) -> int | None:
        begin = cursor.position
        count: int | None = count_of(cursor)
        left = cursor.end - cursor.position
        if count is not None and count * smallest > left:
            raise Malformed(f"{count} elements announced, {left} bytes left", begin)
        return count

    if isinstance(element, Primitive) and element.code is not None and len(element.code) == 1:
        return _fixed_array_reader(bounded_count, element.code)
    read_element = _reader(element, False, version, flexible)

    def read(cursor: Cursor) -> tuple[Any, ...] | None:
        count = bounded_count(cursor)
        if count is None:
            return None
        elements: list[Any] = []
        try:
            for _ in range(count):
                elements.append(read_element(cursor))
        except Malformed as malformed:
            malformed.within(f"[{len(elements)}]")
            raise
        return tuple(elements)

    return read


def _fixed_array_reader(bounded_count: Reader, code: str) -> Reader:
    size = struct.calcsize(">" + code)
    # Replica lists are short and there are many: their formats are kept.
    short = [struct.Struct(f">{count}{code}") for count in range(8)]

    def read(cursor: Cursor) -> tuple[Any, ...] | None:
        count = bounded_count(cursor)
        if count is None:
            return None
        packed = short[count] if count < len(short) else struct.Struct(f">{count}{code}")
        return packed.unpack_from(cursor.data, cursor.take(count * size))

    return read


def _smallest(wire_type: WireType, version: int, flexible: bool) -> int:
    """Return how many bytes a value takes at least."""
    if isinstance(wire_type, ArrayOf):
        return 1 if flexible else 4
    if isinstance(wire_type, Primitive):
        if wire_type.code is not None:
            return struct.calcsize(">" + wire_type.code)
        if flexible:
            return 1
        return 4 if wire_type is BYTES else 2
    fields = [field for field in fields_of(wire_type, version) if field.exists and field.tag is None]
    return sum(_smallest(field.wire_type, version, flexible) for field in fields) + flexible
