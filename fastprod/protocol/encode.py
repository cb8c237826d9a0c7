"""From messages to bytes. A message class is compiled once a version into a chain of closures."""

import functools
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from fastprod import errors
from fastprod.protocol.schema import BYTES, ArrayOf, Field, Primitive, WireType, fields_of

Writer: TypeAlias = Callable[[bytearray, Any], None]


class Unfit(Exception):
    """A value that its field cannot hold: why, and in which field."""

    def __init__(self, reason: str, field: str) -> None:
        super().__init__(reason, field)
        self.reason = reason
        self.field = field


def write_uvarint(out: bytearray, value: int) -> None:
    """Append an unsigned varint: 7 bits a byte, the lowest first."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


@functools.cache
def struct_writer(message: type, version: int, flexible: bool) -> Writer:
    """Return what writes a message or a part of one, without header, in that version."""
    fields = fields_of(message, version)
    writers = [
        (index, field, _writer(field.wire_type, field.nullable, version, flexible))
        for index, field in enumerate(fields)
        if field.exists
    ]
    untagged = [each for each in writers if each[1].tag is None]
    tagged = sorted((each for each in writers if each[1].tag is not None), key=lambda each: each[1].tag or 0)
    missing = [(index, field) for index, field in enumerate(fields) if not field.exists and not field.ignorable]

    def write(out: bytearray, value: Any) -> None:
        for index, field in missing:
            if value[index] != field.default:
                raise errors.UnsupportedVersionError(
                    f"{message.__name__}.{field.name} = {value[index]!r} cannot be said in version {version};"
                    f" leave it at {field.default!r} or use a broker that knows a newer version."
                )
        for index, field, writer in untagged:
            _write_field(out, field, writer, value[index])
        if flexible:
            _write_tags(out, [each for each in tagged if value[each[0]] != each[1].default], value)

    return write


def _write_field(out: bytearray, field: Field, writer: Writer, value: Any) -> None:
    try:
        writer(out, value)
    except Unfit as unfit:
        raise Unfit(unfit.reason, f"{field.name}.{unfit.field}".rstrip(".")) from None
    except (struct.error, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise Unfit(f"{value!r}: {error}", field.name) from None


def _write_tags(out: bytearray, present: list[tuple[int, Field, Writer]], value: Any) -> None:
    """Append the tagged fields that differ from their defaults, by rising number (KIP-482)."""
    write_uvarint(out, len(present))
    for index, field, writer in present:
        body = bytearray()
        _write_field(body, field, writer, value[index])
        write_uvarint(out, field.tag or 0)
        write_uvarint(out, len(body))
        out += body


def _writer(wire_type: WireType, nullable: bool, version: int, flexible: bool) -> Writer:
    if isinstance(wire_type, ArrayOf):
        write_count = _length_writer(">i", nullable, flexible)
        return _array_writer(write_count, _writer(wire_type.element, False, version, flexible))
    if not isinstance(wire_type, Primitive):
        return struct_writer(wire_type, version, flexible)
    if wire_type.code == "16s":
        return _write_uuid
    if wire_type.code is not None:
        return _fixed_writer(wire_type.code)
    if wire_type is BYTES:
        return _bytes_writer(_length_writer(">i", nullable, flexible))
    return _string_writer(_length_writer(">h", nullable, flexible))


def _length_writer(code: str, nullable: bool, flexible: bool) -> Callable[[bytearray, int | None], None]:
    """Return what writes a length or count, None for null; see decode._length_reader."""
    packed = struct.Struct(code)

    def write(out: bytearray, length: int | None) -> None:
        if length is None and not nullable:
            raise Unfit("null is not allowed in this version", "")
        if flexible:
            write_uvarint(out, 0 if length is None else length + 1)
        else:
            out += packed.pack(-1 if length is None else length)

    return write


def _fixed_writer(code: str) -> Writer:
    packed = struct.Struct(">" + code)

    def write(out: bytearray, value: Any) -> None:
        out += packed.pack(value)

    return write


def _write_uuid(out: bytearray, value: bytes) -> None:
    # struct would silently cut or pad.
    if len(value) != 16:
        raise Unfit(f"a uuid has 16 bytes, not {len(value)}", "")
    out += value


def _string_writer(write_length: Callable[[bytearray, int | None], None]) -> Writer:
    def write(out: bytearray, value: str | None) -> None:
        if value is None:
            write_length(out, None)
            return
        encoded = value.encode()
        if len(encoded) > 0x7FFF:
            # Kafka keeps this bound in flexible versions too.
            raise Unfit(f"a string has at most 32767 bytes of UTF-8, not {len(encoded)}", "")
        write_length(out, len(encoded))
        out += encoded

    return write


def _bytes_writer(write_length: Callable[[bytearray, int | None], None]) -> Writer:
    def write(out: bytearray, value: bytes | None) -> None:
        write_length(out, None if value is None else len(value))
        out.extend(value or b"")

    return write


def _array_writer(write_count: Callable[[bytearray, int | None], None], write_element: Writer) -> Writer:
    def write(out: bytearray, value: tuple[Any, ...] | None) -> None:
        write_count(out, None if value is None else len(value))
        for element in value or ():
            write_element(out, element)

    return write
