"""The Arrow C data interface: structures that others have filled, ours to release (Arrow
specification, "The Arrow C data interface", "The Arrow C stream interface", "The Arrow PyCapsule
interface")."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from typing import Any, Final

from fastprod import arrow_failures
from fastprod.arrow_types import DEPTH, Field

_MAX_INT64: Final = (1 << 63) - 1
_MAX_INT32: Final = 0x7FFFFFFF


class ArrowSchema(Structure):
    """Names, types and order of the members are the specification's."""

    format: bytes | None
    name: bytes | None
    n_children: int
    children: Any
    dictionary: Any
    release: Any


class ArrowArray(Structure):
    length: int
    null_count: int
    offset: int
    n_buffers: int
    n_children: int
    buffers: Any
    children: Any
    dictionary: Any
    release: Any


class ArrowArrayStream(Structure):
    get_schema: Any
    get_next: Any
    get_last_error: Any
    release: Any


_Release = ctypes.CFUNCTYPE(None, c_void_p)

ArrowSchema._fields_ = [
    ("format", c_char_p),
    ("name", c_char_p),
    ("metadata", c_void_p),
    ("flags", c_int64),
    ("n_children", c_int64),
    ("children", POINTER(POINTER(ArrowSchema))),
    ("dictionary", POINTER(ArrowSchema)),
    ("release", _Release),
    ("private_data", c_void_p),
]
ArrowArray._fields_ = [
    ("length", c_int64),
    ("null_count", c_int64),
    ("offset", c_int64),
    ("n_buffers", c_int64),
    ("n_children", c_int64),
    ("buffers", POINTER(c_void_p)),
    ("children", POINTER(POINTER(ArrowArray))),
    ("dictionary", POINTER(ArrowArray)),
    ("release", _Release),
    ("private_data", c_void_p),
]
ArrowArrayStream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)),
    ("get_next", ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)),
    ("get_last_error", ctypes.CFUNCTYPE(c_char_p, c_void_p)),
    ("release", _Release),
    ("private_data", c_void_p),
]

_pointer_in: Final = ctypes.PYFUNCTYPE(c_void_p, ctypes.py_object, c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid: Final = ctypes.PYFUNCTYPE(c_int, ctypes.py_object, c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)


class ArrowTable:
    """What `data` has given: its schema and all its batches, moved here, and released once,
    whatever happens."""

    def __init__(self) -> None:
        self._schema = ArrowSchema()
        self._stream = ArrowArrayStream()
        self.batches: list[ArrowArray] = []

    def release(self) -> None:
        """Does nothing the second time."""
        for each in (*reversed(self.batches), self._schema, self._stream):
            if each.release:
                each.release(ctypes.addressof(each))
                each.release = _Release()
        self.batches = []

    def open(self, data: Any) -> None:
        """Take the schema, and what comes with it."""
        if hasattr(data, "__arrow_c_stream__"):
            self._open_stream(data.__arrow_c_stream__())
        elif hasattr(data, "__arrow_c_array__"):
            self._open_array(data.__arrow_c_array__())
        else:
            raise arrow_failures.not_arrow(data)

    def _open_stream(self, capsule: Any) -> None:
        if not _is_valid(capsule, b"arrow_array_stream"):
            wanted = "a capsule of an arrow_array_stream"
            raise arrow_failures.not_capsules("__arrow_c_stream__", wanted, capsule)
        _move(capsule, b"arrow_array_stream", self._stream)
        code = self._stream.get_schema(
            ctypes.addressof(self._stream), ctypes.addressof(self._schema)
        )
        if code:
            self._schema.release = _Release()  # it is not ours, whatever it looks like
            raise self._failure("its schema", code)

    def _open_array(self, pair: Any) -> None:
        if (
            type(pair) is not tuple
            or len(pair) != 2
            or not _is_valid(pair[0], b"arrow_schema")
            or not _is_valid(pair[1], b"arrow_array")
        ):
            wanted = "a tuple of capsules of an arrow_schema and an arrow_array"
            raise arrow_failures.not_capsules("__arrow_c_array__", wanted, pair)
        array = ArrowArray()
        _check_unused(pair[0], b"arrow_schema", ArrowSchema)
        _move(pair[1], b"arrow_array", array)
        self.batches.append(array)
        _move(pair[0], b"arrow_schema", self._schema)

    def _failure(self, doing: str, code: int) -> Exception:
        told = self._stream.get_last_error(ctypes.addressof(self._stream)) or b""
        return arrow_failures.stream_failed(doing, code, told.decode("utf-8", "replace"))

    def read_all(self) -> None:
        """Take the batches, and check that they can be."""
        while self._stream.release:
            batch = ArrowArray()
            code = self._stream.get_next(ctypes.addressof(self._stream), ctypes.addressof(batch))
            if code:
                raise self._failure(f"record batch {len(self.batches)}", code)
            if not batch.release:
                break
            self.batches.append(batch)
        count = 0
        for batch in self.batches:
            check_array(batch, "data", "struct", 1, self._schema.n_children, 0)
            if batch.length > arrow_failures.MAX_RECORDS - count:
                raise arrow_failures.too_many_records()
            count += batch.length

    def table(self) -> Field:
        """The schema."""
        return _field_of(self._schema, DEPTH)


def _check_unused(capsule: Any, name: bytes, kind: type[Any]) -> Any:
    given = kind.from_address(_pointer_in(capsule, name))
    if not given.release:
        raise arrow_failures.used_before(name.decode())
    return given


def _move(capsule: Any, name: bytes, to: Structure) -> None:
    """What the capsule holds is ours from now on."""
    given = _check_unused(capsule, name, type(to))
    ctypes.memmove(ctypes.addressof(to), ctypes.addressof(given), ctypes.sizeof(to))
    given.release = _Release()


def check_array(
    array: ArrowArray, what: str, type_name: str, buffers: int, children: int, width: int
) -> None:
    """That what an array says of itself can be: all that comes after counts on it. `width`: bytes
    an item has; `buffers`: how many, negative: at least.

    How long the buffers are is not told by the interface: a length or an offset that is not true
    is not seen."""
    room = _MAX_INT64 // max(width, 1) - 1
    how = None
    if not array.release:
        how = "it was released"
    elif array.length < 0 or array.offset < 0 or array.null_count < -1:
        how = f"length {array.length}, offset {array.offset}, null_count {array.null_count}"
    elif array.null_count > array.length:
        how = f"null_count {array.null_count} of {array.length}"
    elif array.length + array.offset > room:
        how = f"no memory is large enough for length {array.length} at offset {array.offset}"
    elif array.n_buffers != buffers and not (
        buffers < 0 and -buffers <= array.n_buffers <= _MAX_INT32
    ):
        how = f"{array.n_buffers} buffers instead of {abs(buffers)}"
    elif array.n_children != children:
        how = f"{array.n_children} children instead of {children}"
    elif (buffers and not array.buffers) or (children and not array.children):
        how = "its buffers or children are missing"
    elif buffers and array.null_count > 0 and not array.buffers[0]:
        how = f"null_count {array.null_count} without a validity bitmap"
    if how is not None:
        raise arrow_failures.broken(what, type_name, how)


def child_of(array: ArrowArray, place: int, least: int, what: str, type_name: str) -> ArrowArray:
    """A child that has at least so many items."""
    if not array.children[place]:
        raise arrow_failures.broken(what, type_name, "it is missing")
    child: ArrowArray = array.children[place].contents
    if child.length < least:
        raise arrow_failures.broken(what, type_name, f"length {child.length}, and {least} are needed")
    return child


def _field_of(schema: ArrowSchema, depth: int) -> Field:
    what = "the schema of data"
    if not schema.release or schema.format is None:
        raise arrow_failures.broken(what, "schema", "a field or its format is missing")
    if schema.n_children < 0 or (schema.n_children and not schema.children):
        how = f"{schema.n_children} children that are not there"
        raise arrow_failures.broken(what, "schema", how)
    children: tuple[Field, ...] = ()
    dictionary = None
    if depth > 1:
        children = tuple(
            _field_at(schema.children[place], depth - 1) for place in range(schema.n_children)
        )
        dictionary = _field_at(schema.dictionary, depth - 1) if schema.dictionary else None
    name = (schema.name or b"").decode("utf-8", "replace")
    return Field(name, schema.format.decode("utf-8", "replace"), children, dictionary)


def _field_at(pointer: Any, depth: int) -> Field:
    if not pointer:
        how = "a field or its format is missing"
        raise arrow_failures.broken("the schema of data", "schema", how)
    return _field_of(pointer.contents, depth)
