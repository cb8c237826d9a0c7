"""The sentences of what is wrong with Arrow data, stated once for both twins.

Every function returns the exception, it does not raise it. `what` is a column, or a part of one, in words.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

MAX_RECORDS = 0x7FFFFFFF


def not_arrow(data: object) -> Exception:
    return TypeError(
        "data must offer __arrow_c_stream__ or __arrow_c_array__, as tables and data frames of PyArrow, Polars, DuckDB "
        f"and pandas do, not {type(data).__name__}: {data!r:.80}; for columns in lists there is send_many."
    )


def not_capsules(method: str, wanted: str, given: object) -> Exception:
    return TypeError(f"data.{method}() must return {wanted}, not {given!r:.80}")


def used_before(name: str) -> Exception:
    return ValueError(f"The {name} that data has given was used or released before: ask for a new one.")


def stream_failed(doing: str, code: int, told: str) -> Exception:
    return RuntimeError(
        f"The Arrow stream failed to give {doing}: {told or 'it does not say why'} "
        f"(errno {code}, {os.strerror(code)}). Nothing of the call was sent."
    )


def not_a_table(type_name: str) -> Exception:
    return TypeError(f"data must have named columns, as tables and struct arrays have; it is an array of {type_name}.")


def not_a_name(argument: str, given: object) -> Exception:
    return TypeError(
        f"{argument} must be the name of a column, not {type(given).__name__}: {given!r:.80}; what shall be in the "
        "records stands in the data's columns."
    )


def not_header_names(given: object) -> Exception:
    return TypeError(
        "headers must be the name of a column of maps or a list of names of columns, not "
        f"{type(given).__name__}: {given!r:.80}"
    )


def no_such_column(argument: str, name: str, names: Sequence[str]) -> Exception:
    there = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    return ValueError(f"{argument}={name!r}: there is no such column in data. It has {there or 'none'}.")


def ambiguous_column(argument: str, name: str, count: int) -> Exception:
    return ValueError(f"{argument}={name!r}: {count} columns of data have that name; rename those that are not meant.")


def wrong_type(argument: str, what: str, type_name: str, wanted: str) -> Exception:
    return TypeError(f"{argument}: {what} is of type {type_name}; it must be {wanted}. Cast it before it is sent.")


def broken(what: str, type_name: str, how: str) -> Exception:
    return ValueError(f"{what} ({type_name}) breaks the Arrow format: {how}. It is a fault of what made the data.")


def at_entry(index: int, what: str, error: Exception) -> Exception:
    """Of what is in a dictionary or a map, which has a count of its own."""
    error.args = (f"Entry {index} of {what}: {error.args[0]} Nothing of the call was sent.",)
    return error


def too_many_records() -> Exception:
    return ValueError(f"data has more than the {MAX_RECORDS} records that a call takes; send it in several calls.")


def null_record() -> Exception:
    return ValueError("The whole row is null; leave it out.")


def null_header(what: str) -> Exception:
    return ValueError(f"{what}: a header without a name; give it one or leave it out.")


def header_name_not_utf8(what: str, name: bytes) -> Exception:
    return ValueError(f"{what}: a header's name must be UTF-8, not {name!r:.80}")


def time_out_of_range(what: str, type_name: str, value: int) -> Exception:
    return ValueError(f"{what} ({type_name}): {value} does not fit Kafka's signed 64 bits of milliseconds.")
