"""The twins agree on `send_arrow`, with each other and with `send_many` of the same records: whatever the types of the
columns, however they are sliced and cut into batches; and on what is wrong with data."""

from __future__ import annotations

import datetime
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastprod._core as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_send import SIX, TWINS, Rig

duckdb = pytest.importorskip("duckdb")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
pytestmark = pytest.mark.native_only

ASCII = st.text(st.characters(max_codepoint=127), max_size=40).map(str.encode)
CELLS = st.one_of(st.none(), ASCII)
NOW = 1_700_000_000_000
BYTE_TYPES = [
    pa.binary(), pa.large_binary(), pa.string(), pa.large_string(), pa.binary_view(), pa.string_view(),
    pa.dictionary(pa.int8(), pa.binary()), pa.dictionary(pa.uint16(), pa.string()),
    pa.dictionary(pa.int64(), pa.large_binary()),
]  # fmt: skip
INTEGER_TYPES = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
UNITS = {"s": 1000, "ms": 1, "us": 1000, "ns": 1_000_000}


def column(cells: list[bytes | None], kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        return column(cells, kind.value_type).cast(kind)
    text = kind in (pa.string(), pa.large_string(), pa.string_view())
    items = [None if cell is None else cell.decode() for cell in cells] if text else cells
    return pa.array(items, kind)


def outcome(rig: Rig, send: Any) -> Any:
    """What was returned or raised, and what was accepted, batch by batch."""
    try:
        future = send(rig.producer)
    except Exception as error:
        told: Any = (type(error).__name__, str(error))
    else:
        told = (len(future), [future._placement.sizes(index) for index in range(len(future))])
    return told, rig.end()


def both(data: Any, mode: int = native.PARTITION_MURMUR2, partitioner: Any = None, options: Any = None,
         **names: Any) -> Any:
    """What the twins, which must agree, make of `data`: an Arrow table, or a function that makes one for each."""
    found = []
    for twin in TWINS:
        rig = Rig(twin, mode=mode, partitioner=partitioner, **(options or {}))
        given = data() if callable(data) else data
        found.append(outcome(rig, lambda producer, given=given: producer.send_arrow("t", given, **names)))
    assert found[0] == found[1]
    return found[0]


def many(**columns: Any) -> Any:
    rig = Rig(native, mode=native.PARTITION_MURMUR2)
    return outcome(rig, lambda producer: producer.send_many("t", **columns))


def refusal(data: Any, **names: Any) -> tuple[str, str]:
    told, accepted = both(data, **names)
    assert accepted == []
    kind, text = told
    return kind, text


@st.composite
def rows(draw: Any) -> list[Any]:
    row = st.tuples(CELLS, ASCII, CELLS, st.one_of(st.none(), st.integers(0, SIX - 1)), st.integers(-(10**9), 10**9),
                    st.lists(st.tuples(st.text(max_size=5), CELLS), max_size=3))
    return draw(st.lists(row, max_size=30))


def cut(table: Any, points: list[int]) -> Any:
    """The table in batches that begin at these rows: slices, which share buffers."""
    edges = sorted({0, table.num_rows, *(point % (table.num_rows + 1) for point in points)})
    return pa.concat_tables([table.slice(begin, end - begin) for begin, end in itertools.pairwise(edges)]
                            or [table])


@settings(max_examples=150)
@given(st.data(), rows(), st.sampled_from(BYTE_TYPES), st.sampled_from(BYTE_TYPES), st.sampled_from(INTEGER_TYPES),
       st.sampled_from(sorted(UNITS)), st.lists(st.integers(0, 100), max_size=4), st.integers(0, 3))
def test_tables(data: Any, records: list[Any], key_type: Any, value_type: Any, integer_type: Any, unit: str,
                points: list[int], skip: int) -> None:
    """The headers of `send_many` have no null values: a column without them is compared with it."""
    keys, values, others, partitions, times, headers = (
        [list(each) for each in zip(*records, strict=True)] if records else [[]] * 6
    )
    table = pa.table({
        "key": column(keys, key_type), "value": column(values, value_type), "other": column(others, value_type),
        "partition": pa.array(partitions, integer_type),
        "time": pa.array(times, pa.timestamp(unit, data.draw(st.sampled_from([None, "UTC", "+02:00"])))),
        "map": pa.array(headers, pa.map_(pa.string(), pa.binary())),
        "list": pa.array([[dict(zip("kv", pair, strict=True)) for pair in each] for each in headers],
                         pa.large_list(pa.struct({"k": pa.large_string(), "v": pa.binary()}))),
    })  # fmt: skip
    table = cut(table.slice(min(skip, table.num_rows)), points)
    records = records[skip:]
    millis = [time * 1000 if unit == "s" else time // UNITS[unit] for time in times[skip:]]
    names = {"key": "key", "value": "value", "partition": "partition", "timestamp": "time"}
    told = both(table, headers=["value"], **names)
    assert told == many(
        values=values[skip:], keys=keys[skip:], partition=partitions[skip:], timestamp_ms=millis,
        headers=[[("value", value)] for value in values[skip:]],
    )
    both(table, headers=["other", "value", "key"], **names)
    assert both(table, headers="map", **names) == both(table, headers="list", **names)
    whole = [not any(value is None for _, value in each) for each in headers[skip:]]
    if all(whole):
        assert both(table, headers="map", **names) == many(
            values=values[skip:], keys=keys[skip:], partition=partitions[skip:], timestamp_ms=millis,
            headers=headers[skip:],
        )


@pytest.mark.parametrize("width", [0, 1, 16])
def test_fixed_size(width: int) -> None:
    cells = [bytes([65 + n]) * width for n in range(5)]
    table = pa.table({"v": pa.array([*cells, None], pa.binary(width)), "t": [NOW] * 6})[1:5]
    assert both(table, value="v", timestamp="t", key="v") == many(values=cells[1:], keys=cells[1:], timestamp_ms=NOW)


def test_null_codes_and_null_words_of_dictionaries() -> None:
    words = pa.array([b"zero", None, b"two"], pa.binary())
    codes = pa.DictionaryArray.from_arrays(pa.array([2, 1, None, 0], pa.int8()), words)
    table = pa.table({"k": codes, "v": pa.array([b"v"] * 4, pa.binary()), "t": [NOW] * 4})
    assert both(table, key="k", value="v", timestamp="t") == many(
        values=[b"v"] * 4, keys=[b"two", None, None, b"zero"], timestamp_ms=NOW
    )


def test_columns_of_nothing_but_nulls() -> None:
    table = pa.table({"k": pa.nulls(2), "v": [b"a", b"b"], "t": [NOW, NOW], "p": pa.nulls(2)})
    assert both(table, key="k", value="v", timestamp="t", partition="p") == many(
        values=[b"a", b"b"], keys=[None, None], timestamp_ms=NOW
    )


def test_struct_arrays_with_an_offset_and_without_a_stream() -> None:
    """The offsets of the rows and of each column add up."""
    values = [b"a", b"b", None, b"d"]
    maps = [[("h", b"%d" % n)] * n for n in range(4)]
    fields = {
        "v": pa.array([b"-", *values]).slice(1), "d": pa.array([b"-", *values]).dictionary_encode().slice(1),
        "k": pa.array(values, pa.binary_view()), "f": pa.array([b"k0", b"k1", b"k2", b"k3"], pa.binary(2)),
        "t": pa.array([-1, -1, *range(NOW, NOW + 4)]).slice(2), "p": pa.array([9, None, 1, 2, 3]).slice(1),
        "h": pa.array([None, *maps], pa.map_(pa.string(), pa.binary())).slice(1),
    }  # fmt: skip
    array = pa.StructArray.from_arrays(list(fields.values()), list(fields)).slice(1, 3)
    assert not hasattr(array, "__arrow_c_stream__")
    expected = {"partition": [1, 2, 3], "timestamp_ms": [NOW + 1, NOW + 2, NOW + 3]}
    names = {"value": "f", "partition": "p", "timestamp": "t"}
    fixed = [b"k1", b"k2", b"k3"]
    for key in ("v", "d", "k"):
        assert both(array, key=key, headers="h", **names) == many(
            values=fixed, keys=values[1:], headers=maps[1:], **expected
        )
    assert both(array, headers=["f"], **names) == many(
        values=fixed, headers=[[("f", each)] for each in fixed], **expected
    )


def test_without_records() -> None:
    for table in (pa.table({"v": pa.array([], pa.binary())}), pa.schema({"v": pa.binary()}).empty_table()):
        assert both(table, value="v", key="v", headers=["v"]) == ((0, []), [])


FRAME = {"k": ["a", "b", None], "v": ["x" * 30, "y", "z"], "t": [NOW, NOW + 1, NOW + 2]}
EXPECTED = {"keys": [b"a", b"b", None], "values": [b"x" * 30, b"y", b"z"], "timestamp_ms": FRAME["t"]}


def test_polars() -> None:
    frame = polars.DataFrame(FRAME).with_columns(polars.col("k").cast(polars.Categorical))
    parts = polars.concat([frame[:1], frame[1:]], rechunk=False)
    assert both(parts, key="k", value="v", timestamp="t") == many(**EXPECTED)


WITHOUT_PYARROW = """
import sys
sys.modules["pyarrow"] = None
import polars
from test_send import TWINS, Rig
for twin in TWINS:
    rig = Rig(twin)
    rig.producer.send_arrow("t", polars.DataFrame({"v": ["a", "b"]}), value="v")
    assert sum(batch[5] for batch in rig.end()) == 2
"""


def test_without_pyarrow() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_PYARROW], cwd=Path(__file__).parent, check=True)


def test_duckdb() -> None:
    query = (
        "select * from (values ('a'::blob, repeat('x', 30), {0}), ('b', 'y', {0} + 1), (null, 'z', {0} + 2)) r(k, v, t)"
    )
    with duckdb.connect() as connection:
        found = both(lambda: connection.sql(query.format(f"{NOW}::bigint")), key="k", value="v", timestamp="t")
    assert found == many(**EXPECTED)


def test_pandas() -> None:
    assert both(pandas.DataFrame(FRAME), key="k", value="v", timestamp="t") == many(**EXPECTED)


@pytest.mark.parametrize(("unit", "time", "expected"), [("us", -1, -1), ("us", 1999, 1), ("ns", -1_000_001, -2),
                                                       ("s", -(2**53), -(2**53) * 1000), ("ms", -5, -5)])
def test_times_are_rounded_down(unit: str, time: int, expected: int) -> None:
    table = pa.table({"v": [b"v"], "t": pa.array([time], pa.timestamp(unit))})
    assert both(table, value="v", timestamp="t") == many(values=[b"v"], timestamp_ms=expected)


def test_null_times_are_that_of_the_call() -> None:
    table = pa.table({"v": [b"v"] * 2, "k": [b"k"] * 2, "t": pa.array([None, NOW], pa.timestamp("ms"))})
    for twin in TWINS:
        rig = Rig(twin)
        begun = int(datetime.datetime.now().timestamp() * 1000)
        rig.producer.send_arrow("t", table, value="v", key="k", timestamp="t")
        ((_, _, _, _, base, count, _),) = rig.end()
        assert (count, base >= begun) == (2, True)


def test_a_partitioner_of_the_caller_s_is_given_bytes() -> None:
    asked = []

    def choose(*arguments: Any) -> int:
        asked.append(arguments)
        return len(arguments[3])

    table = pa.table({"k": ["a", None, "c"], "v": ["", "y", "zz"], "p": [None, None, 5], "t": [NOW] * 3})
    _, batches = both(table, mode=native.PARTITION_CUSTOM, partitioner=choose, key="k", value="v", partition="p",
                      timestamp="t")
    assert [(batch[1], batch[5]) for batch in batches] == [(0, 1), (1, 1), (5, 1)]
    assert asked == [("t", b"a", b"a", b"", b""), ("t", None, None, b"y", b"y")] * 2


GOOD = {"k": pa.array([b"a", b"b", b"c"]), "v": pa.array([b"x", b"y", b"z"])}


@pytest.mark.parametrize(("columns", "names", "kind", "words"), [
    ({}, {"value": "w"}, "ValueError", ["value='w'", "'k', 'v'"]),
    ({}, {"value": None}, "TypeError", ["value", "name of a column"]),
    ({}, {"value": "v", "partition": 3}, "TypeError", ["partition", "name of a column", "3"]),
    ({}, {"value": "v", "headers": {"a": b"b"}}, "TypeError", ["headers", "dict"]),
    ({"x": pa.array([1.0] * 3)}, {"value": "x"}, "TypeError", ["value", "'x'", "float64", "binary", "Cast"]),
    ({"x": pa.array([[b"a"]] * 3)}, {"value": "x"}, "TypeError", ["'x'", "list<binary>"]),
    ({"x": pa.array([1, 2, 3]).dictionary_encode()}, {"value": "x"}, "TypeError", ["dictionary of column 'x'"]),
    ({"x": pa.array([True] * 3)}, {"value": "v", "partition": "x"}, "TypeError", ["partition", "bool", "integer"]),
    ({"x": pa.array([1] * 3, pa.int32())}, {"value": "v", "timestamp": "x"}, "TypeError", ["int32", "timestamp"]),
    ({"x": pa.array([datetime.date(2024, 1, 1)] * 3)}, {"value": "v", "timestamp": "x"}, "TypeError", ["date32"]),
    ({"x": pa.array([0, 6, 0])}, {"value": "v", "partition": "x"}, "ValueError", ["Record 1", "partition 6", "0 to 5"]),
    ({"x": pa.array([0, 0, -1])}, {"value": "v", "partition": "x"}, "ValueError", ["Record 2", "partition -1"]),
    ({"x": pa.array([2**64 - 1] * 3, pa.uint64())}, {"value": "v", "partition": "x"}, "ValueError",
     ["Record 0", str(2**64 - 1)]),
    ({"x": pa.array([b"a", None, None])}, {"value": "x"}, "ValueError", ["Record 1", "key or value"]),
    ({"x": pa.array([b"a", None, b""]), "y": pa.array([None, None, b"b"])}, {"value": "x", "key": "y"}, "ValueError",
     ["Record 1", "both are None"]),
    ({"x": pa.array([b"a", b"a" * 30_000, b""])}, {"value": "x"}, "MessageSizeTooLargeError",
     ["Record 1", "max_request_size=20000"]),
    ({"x": pa.array([b"a", b"a" * 30_000, b""])}, {"value": "v", "headers": ["x"]}, "MessageSizeTooLargeError",
     ["Record 1", "max_request_size=20000"]),
    ({"x": pa.array([0, 2**62, 0], pa.timestamp("s"))}, {"value": "v", "timestamp": "x"}, "ValueError",
     ["Record 1", "timestamp[s]", str(2**62)]),
    ({"x": pa.array([[("a", b"")], None, [(b"\xff", b"")]], pa.map_(pa.binary(), pa.binary()))},
     {"value": "v", "headers": "x"}, "TypeError", ["names in column 'x'", "binary", "utf8"]),
    ({"x": pa.array([[b"a"]] * 3)}, {"value": "v", "headers": "x"}, "TypeError", ["'x'", "list<binary>", "map<utf8"]),
    ({"x": pa.array([[{"k": "a", "v": b""}], [{"k": None, "v": b""}], None])}, {"value": "v", "headers": "x"},
     "ValueError", ["Record 1", "without a name"]),
])  # fmt: skip
def test_bad_tables(columns: Any, names: Any, kind: str, words: list[str]) -> None:
    found, text = refusal(pa.table({**GOOD, **columns}), **names)
    assert found == kind
    assert [word for word in words if word not in text] == []


def test_the_row_is_that_of_the_whole_call() -> None:
    table = pa.table({"v": pa.array([b"a", b"b", None, b"d"])})
    kind, text = refusal(pa.concat_tables([table[:2], table[2:]]), value="v")
    assert kind == "ValueError"
    assert text.startswith("Record 2:")


def test_names_of_two_columns() -> None:
    table = pa.table([GOOD["k"], GOOD["v"]], names=["v", "v"])
    assert refusal(table, value="v")[1].startswith("value='v': 2 columns")


def test_rows_that_are_null() -> None:
    array = pa.StructArray.from_arrays([GOOD["v"]], ["v"], mask=pa.array([False, False, True]))
    assert refusal(array, value="v")[1].startswith("Record 2: The whole row is null")


def test_header_names_that_are_not_utf8() -> None:
    names = pa.Array.from_buffers(pa.string(), 3, pa.array([b"\xc3\xa9", b"\xc3", b"c"]).buffers())
    table = pa.table({**GOOD, "h": pa.MapArray.from_arrays([0, 1, 2, 3], names, GOOD["v"])})
    kind, text = refusal(table, value="v", headers="h")
    assert (kind, text[:9]) == ("ValueError", "Record 1:")
    assert "UTF-8" in text


@pytest.mark.parametrize("data", [None, [b"a"], b"a", pa.array([b"a"]), pa.chunked_array([[b"a"]])])
def test_what_is_no_table(data: Any) -> None:
    kind, text = refusal(data, value="v")
    assert kind == "TypeError"
    assert "named columns" in text or "__arrow_c_stream__" in text


def test_a_reader_that_raises() -> None:
    """In the middle of its batches, which PyArrow tells as an errno and words."""
    table = pa.table({"v": [b"a", b"b"]})

    def batches() -> Any:
        yield from table.to_batches()
        raise LookupError("the next page is gone")

    kind, text = refusal(lambda: pa.RecordBatchReader.from_batches(table.schema, batches()), value="v")
    assert kind == "RuntimeError"
    assert "record batch 1" in text
    assert "the next page is gone" in text


def test_a_stream_s_own_exception_goes_through() -> None:
    class Raises:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            raise LookupError("mine")

    assert refusal(Raises(), value="v") == ("LookupError", "mine")


def test_serializers_are_not_applied_and_closed_producers_refuse() -> None:
    table = pa.table({"v": [b"v"], "t": [NOW]})
    for twin in TWINS:
        rig = Rig(twin, value_serializer=lambda *_: 1 / 0)
        assert len(rig.producer.send_arrow("t", table, value="v", timestamp="t")) == 1
        assert rig.end()[0][3] == many(values=[b"v"], timestamp_ms=NOW)[1][0][3]
        with pytest.raises(Exception, match="already closed"):
            rig.producer.send_arrow("t", table, value="v")
