"""The language in which messages are declared, and its translation into fields.

A message is a NamedTuple; the class is the table of all its versions. Each field has a wire type
(`Int32`, `String`, `Array[...]`, another NamedTuple), a default, and where needed the versions
that it exists in:

    class Broker(NamedTuple):
        node_id: Int32 = 0
        rack: Annotated[String | None, since(1)] = None

`X | None` is nullable in all versions, or from `nullable_since(n)` on. `tag(n)` makes it a tagged
field. `IGNORABLE` fields are left out silently in versions that lack them; any other field that
is set away from its default there is an error. Source of all of it: the message definitions of
Apache Kafka and their README; flexible versions and tags are KIP-482.

What stands in an `Annotated` is told apart by identity: `typing` keeps hints, and gives one for
another whose parts are equal. (Dataclasses would tell them apart as well, and take longer to
import than all messages.)
"""

import types
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fastprod.protocol.versions import Api

T = TypeVar("T")


class Primitive:
    """A wire type. `code` is its struct format, None where the length varies."""

    __slots__ = ("code", "name")

    def __init__(self, name: str, code: str | None) -> None:
        self.name = name
        self.code = code


STRING = Primitive("string", None)
BYTES = Primitive("bytes", None)

Bool: TypeAlias = Annotated[bool, Primitive("bool", "?")]
Int8: TypeAlias = Annotated[int, Primitive("int8", "b")]
Int16: TypeAlias = Annotated[int, Primitive("int16", "h")]
Int32: TypeAlias = Annotated[int, Primitive("int32", "i")]
Int64: TypeAlias = Annotated[int, Primitive("int64", "q")]
# A uuid stays 16 bytes: it is compared, stored and sent again, and seldom shown.
Uuid: TypeAlias = Annotated[bytes, Primitive("uuid", "16s")]
String: TypeAlias = Annotated[str, STRING]
Bytes: TypeAlias = Annotated[bytes, BYTES]
Array: TypeAlias = tuple[T, ...]

ZERO_UUID = bytes(16)


class _Existence:
    __match_args__ = __slots__ = ("first", "last")

    def __init__(self, first: int, last: int | None) -> None:
        self.first = first
        self.last = last


class _Nullability:
    __match_args__ = __slots__ = ("first",)

    def __init__(self, first: int) -> None:
        self.first = first


class _Tag:
    __match_args__ = __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class _Ignorable:
    __slots__ = ()


def since(version: int) -> _Existence:
    """The field exists from that version on."""
    return _Existence(version, None)


def between(first: int, last: int) -> _Existence:
    """The field exists in these versions, both included."""
    return _Existence(first, last)


def nullable_since(version: int) -> _Nullability:
    """The field may be null from that version on."""
    return _Nullability(version)


def tag(number: int) -> _Tag:
    """The field is a tagged one with that number."""
    return _Tag(number)


IGNORABLE = _Ignorable()


class ArrayOf:
    """The wire type of an array."""

    __slots__ = ("element",)

    def __init__(self, element: "WireType") -> None:
        self.element = element


WireType: TypeAlias = Primitive | ArrayOf | type


class Field(NamedTuple):
    """One field of a message as it is in one version."""

    name: str
    wire_type: WireType
    default: Any
    exists: bool
    nullable: bool
    tag: int | None
    ignorable: bool


_apis: dict[type, Api] = {}


def message_of(api: Api) -> Callable[[type[T]], type[T]]:
    """Class decorator: the message is the request or the response of that API."""

    def register(message: type[T]) -> type[T]:
        _apis[message] = api
        return message

    return register


def api_of(message: type) -> Api:
    """Return the API that a message class belongs to."""
    return _apis[message]


def fields_of(message: type, version: int) -> list[Field]:
    """Return the fields of a message class in the order of the wire, as they are in that version."""
    hints = get_type_hints(message, include_extras=True)
    defaults = message._field_defaults  # type: ignore[attr-defined]
    return [_field(name, hint, defaults[name], version) for name, hint in hints.items()]


def _field(name: str, hint: Any, default: Any, version: int) -> Field:
    wire_type, nullable, markers = _parse(hint)
    exists, ignorable = True, False
    tag_number: int | None = None
    for marker in markers:
        match marker:
            case _Existence(first, last):
                exists = first <= version and (last is None or version <= last)
            case _Nullability(first):
                nullable = nullable and version >= first
            case _Tag(number):
                tag_number = number
            case _Ignorable():
                ignorable = True
    return Field(name, wire_type, default, exists, nullable, tag_number, ignorable)


def _parse(hint: Any) -> tuple[WireType, bool, tuple[Any, ...]]:
    """Return a hint's wire type, whether it is nullable, and its markers."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *metadata = get_args(hint)
        primitives = [each for each in metadata if isinstance(each, Primitive)]
        markers = tuple(each for each in metadata if not isinstance(each, Primitive))
        if primitives:
            return primitives[0], False, markers
        wire_type, nullable, more = _parse(inner)
        return wire_type, nullable, (*more, *markers)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not types.NoneType)
        wire_type, _, markers = _parse(inner)
        return wire_type, True, markers
    if origin is tuple:
        wire_type, _, markers = _parse(get_args(hint)[0])
        return ArrayOf(wire_type), False, markers
    return hint, False, ()
