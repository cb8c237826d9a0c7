"""Which columns of Arrow data `send_arrow` takes, and how their items lie in memory. What is in them the twins read.

Types are known by their format strings (Arrow specification, "The Arrow C data interface"), layouts by the columnar
format's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fastprod import arrow_failures

DEPTH: Final = 5
"""Levels of a schema that matter: the table, a map, its entry, name or value, a dictionary of these."""


class Field(NamedTuple):
    """A field of a schema."""

    name: str
    format: str
    children: tuple[Field, ...]
    dictionary: Field | None


class Column(NamedTuple):
    """A column, or what is in one, and how its items lie."""

    what: str
    """In words, for errors."""
    type: str
    place: int
    """Among the children of what it is in."""
    layout: str
    """`null`, `offsets`, `views`, `fixed`, `integers`, `dictionary` (its `inner` is one column) or `lists` (`inner`:
    names and values)."""
    width: int
    """Bytes of an offset, a code, an integer or an item of fixed size."""
    signed: bool = True
    inner: tuple[Column, ...] = ()
    of_records: bool = True
    """An item is a record's."""
    multiplier: int = 1
    """Of timestamps: milliseconds are item * multiplier // divisor."""
    divisor: int = 1


class Plan(NamedTuple):
    """What is to be read for a call."""

    value: Column
    key: Column | None
    header_map: Column | None
    headers: tuple[tuple[bytes, Column], ...]
    """Names and columns."""
    partition: Column | None
    timestamp: Column | None


_INTEGERS: Final[Mapping[str, tuple[str, int, bool]]] = {
    "c": ("int8", 1, True), "C": ("uint8", 1, False), "s": ("int16", 2, True), "S": ("uint16", 2, False),
    "i": ("int32", 4, True), "I": ("uint32", 4, False), "l": ("int64", 8, True), "L": ("uint64", 8, False),
}  # fmt: skip
_BYTES: Final[Mapping[str, tuple[str, str, int]]] = {
    "n": ("null", "null", 0), "z": ("binary", "offsets", 4), "Z": ("large_binary", "offsets", 8),
    "u": ("utf8", "offsets", 4), "U": ("large_utf8", "offsets", 8), "vz": ("binary_view", "views", 16),
    "vu": ("utf8_view", "views", 16),
}  # fmt: skip
_TEXT: Final = frozenset({"u", "U", "vu"})
_LISTS: Final[Mapping[str, tuple[str, int]]] = {"+m": ("map", 4), "+l": ("list", 4), "+L": ("large_list", 8)}
_UNITS: Final[Mapping[str, tuple[str, int, int]]] = {
    "tss:": ("s", 1000, 1), "tsm:": ("ms", 1, 1), "tsu:": ("us", 1, 1000), "tsn:": ("ns", 1, 1_000_000),
}  # fmt: skip
_OTHERS: Final[Mapping[str, str]] = {
    "b": "bool", "e": "float16", "f": "float32", "g": "float64", "tdD": "date32", "tdm": "date64", "+s": "struct",
    "+r": "run_end_encoded", "+vl": "list_view", "+vL": "large_list_view", "tts": "time32[s]", "ttm": "time32[ms]",
    "ttu": "time64[us]", "ttn": "time64[ns]", "tDs": "duration[s]", "tDm": "duration[ms]", "tDu": "duration[us]",
    "tDn": "duration[ns]", "tiM": "interval[months]", "tiD": "interval[days, time]",
    "tin": "interval[month, day, nano]",
}  # fmt: skip
_PREFIXES: Final[Mapping[str, str]] = {
    "d:": "decimal", "+w:": "fixed_size_list", "+ud:": "dense_union", "+us:": "sparse_union",
}  # fmt: skip

_WANTED_BYTES: Final = (
    "binary, large_binary, binary_view, utf8, large_utf8, utf8_view, fixed_size_binary, or a dictionary of one of these"
)
_WANTED_MAP: Final = "map<utf8, binary>, or a list of structs of these two"
_WANTED_TEXT: Final = "utf8, large_utf8, utf8_view, or a dictionary of one of these"


def plan(table: Field, value: Any, key: Any, headers: Any, partition: Any, timestamp: Any) -> Plan:
    """The columns by these names. TypeError for what is no name or no type for the purpose, ValueError for a name that
    no column has, or several have."""
    if table.format != "+s" or table.dictionary is not None:
        raise arrow_failures.not_a_table(type_name(table))
    header_map, header_columns = _headers(table, headers)
    return Plan(
        _bytes_column(table, "value", value),
        None if key is None else _bytes_column(table, "key", key),
        header_map,
        header_columns,
        None if partition is None else _integers(table, "partition", partition),
        None if timestamp is None else _times(table, "timestamp", timestamp),
    )


def type_name(field: Field) -> str:
    """As the specification writes it, near enough."""
    code = field.format
    if field.dictionary is not None:
        return f"dictionary<{type_name(field._replace(dictionary=None))}, {type_name(field.dictionary)}>"
    if code in _LISTS:
        return f"{_LISTS[code][0]}<{', '.join(map(type_name, _items(field)))}>"
    for table in (_INTEGERS, _BYTES):
        if code in table:
            return table[code][0]
    if code in _OTHERS:
        return _OTHERS[code]
    if code.startswith("w:"):
        return f"fixed_size_binary({code[2:]})"
    if code[:4] in _UNITS:
        return f"timestamp[{_UNITS[code[:4]][0]}{', ' * bool(code[4:])}{code[4:]}]"
    for prefix, name in _PREFIXES.items():
        if code.startswith(prefix):
            return f"{name}({code[len(prefix):]})"
    return f"unknown ({code!r:.40})"


def _items(field: Field) -> tuple[Field, ...]:
    """What is in a map is told without the struct around it."""
    if field.format == "+m" and field.children:
        return field.children[0].children
    return field.children


def _named(table: Field, argument: str, name: Any) -> tuple[int, Field]:
    if not isinstance(name, str):
        raise arrow_failures.not_a_name(argument, name)
    places = [place for place, field in enumerate(table.children) if field.name == name]
    if not places:
        raise arrow_failures.no_such_column(argument, name, [field.name for field in table.children])
    if len(places) > 1:
        raise arrow_failures.ambiguous_column(argument, name, len(places))
    return places[0], table.children[places[0]]


def _bytes_column(table: Field, argument: str, name: Any) -> Column:
    place, field = _named(table, argument, name)
    return _bytes(argument, f"column {name!r}", place, field, _WANTED_BYTES, of_records=True)


def _bytes(argument: str, what: str, place: int, field: Field, wanted: str, of_records: bool) -> Column:
    if field.dictionary is not None:
        return _dictionary(argument, what, place, field, wanted, of_records)
    code = field.format
    if code in _BYTES and (wanted is not _WANTED_TEXT or code in _TEXT):
        name, layout, width = _BYTES[code]
        return Column(what, name, place, layout, width, of_records=of_records)
    if code.startswith("w:") and code[2:].isdecimal() and wanted is not _WANTED_TEXT:
        width = int(code[2:13])
        if len(code) < 13 and width <= 0x7FFFFFFF:
            return Column(what, type_name(field), place, "fixed", width, of_records=of_records)
    raise arrow_failures.wrong_type(argument, what, type_name(field), wanted)


def _dictionary(argument: str, what: str, place: int, field: Field, wanted: str, of_records: bool) -> Column:
    assert field.dictionary is not None
    if field.format not in _INTEGERS or field.dictionary.dictionary is not None:
        raise arrow_failures.wrong_type(argument, what, type_name(field), wanted)
    _, width, signed = _INTEGERS[field.format]
    words = _bytes(argument, f"the dictionary of {what}", 0, field.dictionary, wanted, of_records=False)
    return Column(what, type_name(field), place, "dictionary", width, signed, (words,), of_records)


def _integers(table: Field, argument: str, name: Any) -> Column:
    place, field = _named(table, argument, name)
    what = f"column {name!r}"
    if field.dictionary is None and field.format in _INTEGERS:
        told, width, signed = _INTEGERS[field.format]
        return Column(what, told, place, "integers", width, signed)
    if field.dictionary is None and field.format == "n":
        return Column(what, "null", place, "null", 0)
    raise arrow_failures.wrong_type(argument, what, type_name(field), "an integer type (null: the partitioner chooses)")


def _times(table: Field, argument: str, name: Any) -> Column:
    place, field = _named(table, argument, name)
    what = f"column {name!r}"
    if field.dictionary is None:
        if field.format in ("l", "n"):
            return _integers(table, argument, name)
        if field.format[:4] in _UNITS:
            _, multiplier, divisor = _UNITS[field.format[:4]]
            told = type_name(field)
            return Column(what, told, place, "integers", 8, multiplier=multiplier, divisor=divisor)
    wanted = "timestamp, or int64 in milliseconds (null: now)"
    raise arrow_failures.wrong_type(argument, what, type_name(field), wanted)


def _headers(table: Field, given: Any) -> tuple[Column | None, tuple[tuple[bytes, Column], ...]]:
    if given is None:
        return None, ()
    if isinstance(given, str):
        return _header_map(table, given), ()
    if not isinstance(given, (list, tuple)):
        raise arrow_failures.not_header_names(given)
    columns = [_bytes_column(table, f"headers[{index}]", name) for index, name in enumerate(given)]
    return None, tuple((name.encode(), column) for name, column in zip(given, columns, strict=True))


def _header_map(table: Field, name: str) -> Column:
    place, field = _named(table, "headers", name)
    what = f"column {name!r}"
    pair = field.children[0] if len(field.children) == 1 else None
    if field.dictionary is not None or field.format not in _LISTS or pair is None or pair.format != "+s":
        raise arrow_failures.wrong_type("headers", what, type_name(field), _WANTED_MAP)
    if pair.dictionary is not None or len(pair.children) != 2:
        raise arrow_failures.wrong_type("headers", what, type_name(field), _WANTED_MAP)
    names = _bytes("headers", f"the names in {what}", 0, pair.children[0], _WANTED_TEXT, of_records=False)
    values = _bytes("headers", f"the values in {what}", 1, pair.children[1], _WANTED_BYTES, of_records=False)
    return Column(what, type_name(field), place, "lists", _LISTS[field.format][1], inner=(names, values))
