"""Arrow data made by hand: what it takes to make it is released once, whatever happens, and data that breaks the format
is refused by both twins with the same words.

How long a buffer is the interface does not tell, so an array that claims more than its memory holds is not among these.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest
from test_send import TWINS, Rig

from fastprod._pure.arrow import ArrowArray, ArrowArrayStream, ArrowSchema, _Release

pytestmark = pytest.mark.native_only

_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
MANY = 2**62


class Maker:
    """Makes structures, keeps what they point to, and counts how often each is released."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.made: list[str] = []
        self.released: list[str] = []

    def releasing(self, kind: Any, name: str) -> Any:
        def release(address: int) -> None:
            self.released.append(name)
            kind.from_address(address).release = _Release()

        self.kept.append(_Release(release))
        return self.kept[-1]

    def pointers(self, kind: Any, items: Any) -> Any:
        found = (ctypes.POINTER(kind) * max(len(items), 1))(*[ctypes.pointer(item) for item in items if item])
        self.kept += [found, items]
        return found

    def schema(self, code: str, name: str = "", children: Any = (), dictionary: Any = None) -> ArrowSchema:
        made = ArrowSchema(format=code.encode(), name=name.encode(), n_children=len(children))
        made.children = ctypes.cast(self.pointers(ArrowSchema, children), ctypes.POINTER(ctypes.POINTER(ArrowSchema)))
        if dictionary is not None:
            made.dictionary = ctypes.pointer(dictionary)
        made.release = self.releasing(ArrowSchema, "child")
        self.kept += [made, dictionary]
        return made

    def array(self, length: int, buffers: Any = (), children: Any = (), dictionary: Any = None) -> ArrowArray:
        made = ArrowArray(length=length, n_buffers=len(buffers), n_children=len(children))
        made.children = ctypes.cast(self.pointers(ArrowArray, children), ctypes.POINTER(ctypes.POINTER(ArrowArray)))
        texts = [None if each is None else ctypes.create_string_buffer(each, max(len(each), 1)) for each in buffers]
        addresses = [None if text is None else ctypes.addressof(text) for text in texts]
        made.buffers = (ctypes.c_void_p * max(len(buffers), 1))(*addresses)
        if dictionary is not None:
            made.dictionary = ctypes.pointer(dictionary)
        made.release = self.releasing(ArrowArray, "child")
        self.kept += [made, dictionary, texts, made.buffers]
        return made

    def capsule(self, made: Any, name: str) -> Any:
        """A capsule of what was made, which counts from now on."""
        made.release = self.releasing(type(made), name)
        self.made.append(name)
        self.kept += [made, name.encode()]
        return _new_capsule(ctypes.addressof(made), self.kept[-1], None)


class Pair:
    """Offers an array."""

    def __init__(self, maker: Maker, schema: ArrowSchema, array: ArrowArray) -> None:
        self.capsules = maker.capsule(schema, "arrow_schema"), maker.capsule(array, "arrow_array")

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self.capsules


class Stream:
    """Offers a stream of batches; `fails`: at which of them, -1: at the schema."""

    def __init__(self, maker: Maker, schema: ArrowSchema, batches: list[ArrowArray], fails: int | None = None,
                 told: bytes | None = b"the disk is on fire") -> None:
        left = list(batches)

        def give(to: int, made: Any, name: str) -> int:
            made.release = maker.releasing(type(made), name)
            maker.made.append(name)
            ctypes.memmove(to, ctypes.addressof(made), ctypes.sizeof(made))
            return 0

        def get_schema(_: int, to: int) -> int:
            return errno.EIO if fails == -1 else give(to, schema, "schema")

        def get_next(_: int, to: int) -> int:
            if fails == len(batches) - len(left):
                return errno.EIO
            return give(to, left.pop(0), "batch") if left else 0

        fields = dict(ArrowArrayStream._fields_)
        stream = ArrowArrayStream(
            get_schema=fields["get_schema"](get_schema),
            get_next=fields["get_next"](get_next),
            # ctypes hands no bytes out of a callback, but addresses.
            get_last_error=ctypes.cast(self.telling(maker, told), fields["get_last_error"]),
        )
        self.capsule = maker.capsule(stream, "arrow_array_stream")

    @staticmethod
    def telling(maker: Maker, told: bytes | None) -> Any:
        maker.kept.append(None if told is None else ctypes.create_string_buffer(told))
        address = 0 if told is None else ctypes.addressof(maker.kept[-1])
        maker.kept.append(ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: address))
        return maker.kept[-1]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.capsule


def binary(maker: Maker, cells: list[bytes], **others: Any) -> ArrowArray:
    ends = [0, *itertools.accumulate(map(len, cells))]
    made = maker.array(len(cells), [None, ints("i", *ends), b"".join(cells)])
    for name, value in others.items():
        setattr(made, name, value)
    return made


def schema_of(maker: Maker, code: str = "z") -> ArrowSchema:
    return maker.schema("+s", children=[maker.schema(code, "v")])


def batch_of(maker: Maker, *cells: bytes) -> ArrowArray:
    return maker.array(len(cells), [None], [binary(maker, list(cells))])


def attempt(twin: Any, data: Any, **names: Any) -> Any:
    rig = Rig(twin)
    try:
        return len(rig.producer.send_arrow("t", data, **{"value": "v", **names})), rig.end()[0][5]
    except Exception as error:
        assert rig.end() == []
        return type(error).__name__, str(error)


def both(make: Callable[[Maker], Any], **names: Any) -> Any:
    """What both twins say to what `make` makes; all of it was released once."""
    found = []
    for twin in TWINS:
        maker = Maker()
        found.append(attempt(twin, make(maker), **names))
        assert sorted(maker.released) == sorted(maker.made)
    assert found[0] == found[1]
    return found[0]


def test_a_stream_is_read_to_its_end() -> None:
    assert both(lambda m: Stream(m, schema_of(m), [batch_of(m, b"a", b"b"), batch_of(m), batch_of(m, b"c")])) == (3, 3)


def test_an_array() -> None:
    assert both(lambda m: Pair(m, schema_of(m), batch_of(m, b"a", b"b"))) == (2, 2)


@pytest.mark.parametrize("fails", [-1, 0, 1, 2])
def test_a_stream_that_fails(fails: int) -> None:
    kind, text = both(lambda m: Stream(m, schema_of(m), [batch_of(m, b"a"), batch_of(m, b"b")], fails))
    assert kind == "RuntimeError"
    doing = "its schema" if fails < 0 else f"record batch {fails}"
    assert f"{doing}: the disk is on fire (errno 5, Input/output error)" in text


def test_a_stream_that_fails_without_a_word() -> None:
    assert "does not say why" in both(lambda m: Stream(m, schema_of(m), [], 0, None))[1]


@pytest.mark.parametrize(("code", "names"), [("i", {}), ("z", {"value": "w"}), ("z", {"key": "k"})])
def test_what_is_refused_is_released(code: str, names: Any) -> None:
    both(lambda m: Stream(m, schema_of(m, code), [batch_of(m, b"a")]), **names)
    both(lambda m: Pair(m, schema_of(m, code), batch_of(m, b"a")), **names)


def test_too_large_a_record_in_a_later_batch() -> None:
    kind, text = both(lambda m: Stream(m, schema_of(m), [batch_of(m, b"a"), batch_of(m, b"b" * 30_000)]))
    assert (kind, "Record 1: " in text) == ("MessageSizeTooLargeError", True)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("kind", [Stream, Pair])
def test_used_twice(twin: Any, kind: Any) -> None:
    maker = Maker()
    batch = batch_of(maker, b"a")
    data = kind(maker, schema_of(maker), [batch] if kind is Stream else batch)
    assert attempt(twin, data) == (1, 1)
    assert "was used" in attempt(twin, data)[1]
    assert sorted(maker.released) == sorted(maker.made)


@pytest.mark.parametrize("given", [None, 1, (1, 2), ()])
def test_what_are_no_capsules(given: Any) -> None:
    class Other:
        def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
            return given

    class OtherStream(Other):
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return given

    for data in (Other(), OtherStream()):
        first, second = (attempt(twin, data) for twin in TWINS)
        assert first == second
        assert first[0] == "TypeError"


def ints(code: str, *numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}{code}", *numbers)


def view(size: int, buffer: int, offset: int) -> bytes:
    return struct.pack("=i4sii", size, b"abcd", buffer, offset)


# The format of the column; its array; what is said.
BROKEN: dict[str, tuple[str, Callable[[Maker], ArrowArray], str]] = {
    "offsets decrease": ("z", lambda m: m.array(2, [None, ints("i", 0, 5, 3), b"abcde"]), "Record 1: .* from 5 to 3"),
    "an offset is negative": ("z", lambda m: m.array(2, [None, ints("i", -4, 0, 3), b"abc"]), "from -4 to 0"),
    "large offsets decrease": ("Z", lambda m: m.array(2, [None, ints("q", 0, 2**40, 3), b"abc"]), "1099511627776"),
    "an offset leads to the end of the world": (
        "Z", lambda m: m.array(2, [None, ints("q", 0, 1, 2**63 - 1), b"abc"]), "Record 1: The value has 9223372036"),
    "offsets wrap": ("Z", lambda m: m.array(2, [None, ints("q", 0, 1, -(2**63)), b"abc"]), "from 1 to -9223372036"),
    "no offsets": ("z", lambda m: m.array(2, [None, None, b"abc"]), "second buffer is missing"),
    "no bytes": ("z", lambda m: m.array(2, [None, ints("i", 0, 0, 3), None]), "Record 1: .*3 bytes in a buffer"),
    "null_count is negative": ("z", lambda m: binary(m, [b"a", b"b"], null_count=-2), "null_count -2"),
    "null_count is too large": ("z", lambda m: binary(m, [b"a", b"b"], null_count=3), "null_count 3 of 2"),
    "no bitmap": ("z", lambda m: binary(m, [b"a", b"b"], null_count=1), "without a validity bitmap"),
    "length is negative": ("z", lambda m: binary(m, [b"a", b"b"], length=-1), "length -1, and 2 are needed"),
    "length is huge": ("z", lambda m: binary(m, [b"a", b"b"], length=MANY), f"length {MANY}"),
    "offset is huge": ("z", lambda m: binary(m, [b"a", b"b"], offset=MANY), f"at offset {MANY}"),
    "offset is negative": ("z", lambda m: binary(m, [b"a", b"b"], offset=-1), "offset -1"),
    "offset and length wrap": ("z", lambda m: binary(m, [b"a"] * 2, offset=2**63 - 2, length=2**63 - 1), "no memory"),
    "too short": ("z", lambda m: binary(m, [b"a"]), "length 1, and 2 are needed"),
    "two buffers": ("z", lambda m: m.array(2, [None, ints("i", 0, 1, 2)]), "2 buffers instead of 3"),
    "no list of buffers": ("z", lambda m: binary(m, [b"a", b"b"], buffers=None), "missing"),
    "children": ("z", lambda m: m.array(2, [None, ints("i", 0, 1, 2), b"ab"], [binary(m, [b"a"])]), "1 children"),
    "released": ("z", lambda m: binary(m, [b"a", b"b"], release=_Release()), "was released"),
    "a view past its buffer": (
        "vz", lambda m: m.array(2, [None, view(3, 0, 0) + view(13, 0, 1), b"x" * 13, ints("q", 13)]),
        "Record 1: .*13 bytes at 1 of buffer 0"),
    "a view of another buffer": (
        "vu", lambda m: m.array(2, [None, view(13, 1, 0) * 2, b"x" * 13, ints("q", 13)]), "buffer 1"),
    "a negative view": (
        "vz", lambda m: m.array(2, [None, view(-1, 0, 0) * 2, b"x" * 13, ints("q", 13)]), "view of -1 bytes"),
    "a view at a negative offset": (
        "vz", lambda m: m.array(2, [None, view(13, 0, -1) * 2, b"x" * 13, ints("q", 13)]), "at -1"),
    "views without lengths": ("vz", lambda m: m.array(2, [None, view(3, 0, 0) * 2]), "2 buffers instead of 3"),
    "no items of fixed size": ("w:4", lambda m: m.array(2, [None, None]), "second buffer is missing"),
    "items of enormous size": (
        "w:2147483647", lambda m: binary(m, [b"a", b"b"], n_buffers=2, offset=2**33), "no memory"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_broken_columns(what: str) -> None:
    code, make, words = BROKEN[what]
    kind, text = both(lambda m: Stream(m, schema_of(m, code), [m.array(2, [None], [make(m)])]))
    assert kind in ("ValueError", "MessageSizeTooLargeError")
    assert "column 'v'" in text or "The value has" in text
    with pytest.raises(ValueError, match=words):
        raise ValueError(text)


@pytest.mark.parametrize(("code", "words"), [
    (2, "code 2 of a dictionary of 2"), (-1, "code -1 of a dictionary of 2"), (2**63 - 1, "code 92233720368547758"),
])  # fmt: skip
def test_codes_that_lead_out_of_the_dictionary(code: int, words: str) -> None:
    def make(m: Maker) -> Any:
        column = m.schema("l", "v", dictionary=m.schema("z"))
        codes = m.array(2, [None, ints("q", 0, code)], dictionary=binary(m, [b"a", b"b"]))
        return Pair(m, m.schema("+s", children=[column]), m.array(2, [None], [codes]))

    kind, text = both(make)
    assert (kind, text[:9], words in text) == ("ValueError", "Record 1:", True)


@pytest.mark.parametrize(("words_array", "told"), [
    (None, "its dictionary is missing"),
    (lambda m: m.array(2, [None, ints("i", 0, 2, 1), b"ab"]), "Entry 1 of the dictionary of column 'v'"),
    (lambda m: binary(m, [b"a"], length=MANY // 16), "entries"),
])  # fmt: skip
def test_broken_dictionaries(words_array: Any, told: str) -> None:
    def make(m: Maker) -> Any:
        column = m.schema("c", "v", dictionary=m.schema("z"))
        codes = m.array(1, [None, b"\0"], dictionary=words_array and words_array(m))
        return Pair(m, m.schema("+s", children=[column]), m.array(1, [None], [codes]))

    kind, text = both(make)
    assert (kind, told in text) == ("ValueError", True)


@pytest.mark.parametrize(("ends", "told"), [
    ((0, 2, 1), "Record 1: .*from 2 to 1"), ((-1, 0, 1), "Record 0: .*from -1"), ((0, 1, 3), "to 3 of 2"),
])  # fmt: skip
def test_maps_that_lead_out_of_their_entries(ends: tuple[int, ...], told: str) -> None:
    def make(m: Maker) -> Any:
        pair = m.schema("+s", children=[m.schema("u"), m.schema("z")])
        schema = m.schema("+s", children=[m.schema("z", "v"), m.schema("+m", "h", [pair])])
        pairs = m.array(2, [None], [binary(m, [b"a", b"b"]), binary(m, [b"1", b"2"])])
        maps = m.array(2, [None, ints("i", *ends)], [pairs])
        return Pair(m, schema, m.array(2, [None], [binary(m, [b"v", b"w"]), maps]))

    kind, text = both(make, headers="h")
    assert kind == "ValueError"
    with pytest.raises(ValueError, match=told):
        raise ValueError(text)


@pytest.mark.parametrize("change", [{"length": -1}, {"length": MANY}, {"offset": -1}, {"null_count": -5},
                                    {"n_buffers": 0}, {"n_children": 3}, {"n_children": 0}, {"children": None},
                                    {"null_count": 1}])
def test_broken_batches(change: Any) -> None:
    def changed(m: Maker) -> ArrowArray:
        batch = batch_of(m, b"a", b"b")
        for name, value in change.items():
            setattr(batch, name, value)
        return batch

    assert both(lambda m: Stream(m, schema_of(m), [changed(m)]))[0] == "ValueError"


def test_more_records_than_a_call_takes() -> None:
    """Counted before a byte of them is looked at."""
    kind, text = both(lambda m: Stream(m, schema_of(m), [batch_of(m, b"a"), m.array(2**31 - 1, [None], [
        binary(m, [b"a"], length=2**31 - 1)])]))
    assert (kind, "2147483647 records" in text) == ("ValueError", True)


@pytest.mark.parametrize("change", [{"n_children": -1}, {"children": None}, {"format": None}])
def test_broken_schemas(change: Any) -> None:
    def changed(m: Maker) -> ArrowSchema:
        schema = schema_of(m)
        for name, value in change.items():
            setattr(schema, name, value)
        return schema

    assert "schema" in both(lambda m: Stream(m, changed(m), [batch_of(m, b"a")]))[1]


def test_empty_columns_need_no_buffers() -> None:
    assert both(lambda m: Stream(m, schema_of(m), [
        m.array(0, [None], [m.array(0, [None, None, None])]), batch_of(m, b"a")])) == (1, 1)
