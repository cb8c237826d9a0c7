"""The error catalogue as a reader uses it: by class, then by what the message says."""

from __future__ import annotations

import re
from typing import NamedTuple

from .pages import DOCS, as_pattern, tables_of

PAGE = DOCS / "errors.md"
_NAME = re.compile(r"`(\w+)`(?: (\w+))?")


class Entry(NamedTuple):
    """What the catalogue says of a class. `kafka_name`, `batch`: of a broker's code only."""

    name: str
    code: int | None
    kafka_name: str | None
    meaning: str
    retriable: str
    batch: str | None
    advice: str | None


class Saying(NamedTuple):
    """What it says of a message, `...` standing for anything."""

    heading: str
    message: str
    happened: str
    advice: str


def entries() -> list[Entry]:
    found = []
    for table in tables_of(PAGE):
        for row in table.rows:
            if "Error" in row:
                named = _NAME.fullmatch(row["Error"])
                assert named, row["Error"]
                code = int(row["Code"]) if "Code" in row else None
                advice = row.get("What to do")
                batch = row.get("A batch with it")
                found.append(
                    Entry(named[1], code, named[2], row["Meaning"], row["Retriable"], batch, advice)
                )
    return found


def sayings() -> list[Saying]:
    return [
        Saying(table.heading, row["The message says"].strip("`"), row["What happened"], row["What to do"])
        for table in tables_of(PAGE)
        for row in table.rows
        if "The message says" in row
    ]


def about(text: str) -> list[Saying]:
    """What a reader finds who looks up an error's text: "[Error 7] Class: message"."""
    named = re.match(r"(?:\[Error -?\d+\] )?(\w+): ", text)
    assert named, text
    return [each for each in sayings() if each.heading == named[1] and as_pattern(each.message).search(text)]
