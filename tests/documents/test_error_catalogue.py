"""docs/errors.md holds every error of the code, and what it says of each is so."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import fastprod
from fastprod import errors
from fastprod.control.verdict import Action, BatchFacts, Rules, Verdict, judge
from fastprod.errors.broker_table import BROKER_ERRORS
from fastprod.errors.table import ALIASES, CLIENT_ERRORS, ErrorRow

from .catalogue import PAGE, Entry, Saying, entries, sayings
from .pages import tables_of

# The page is the same for both twins, and so are the sentences.
pytestmark = pytest.mark.native_only

TEXT = PAGE.read_text(encoding="utf-8")
SOURCES = sorted(Path(fastprod.__file__).parent.rglob("*.py"))
NO_ERROR = "NoError"
# What the page says of verdicts.
BATCH = {
    Action.RETRY: "sent again",
    Action.FAIL: "fails",
    Action.SPLIT: "split",
    Action.SUCCEED: "counts as written",
    Action.FATAL: "ends the producer",
}
# Raised inside, and never handed to a caller as they are.
INTERNAL = {
    ("NodeNotReadyError", "The connection to ... is not ready."): "requests wait for the connection",
    ("RebootstrapRequiredError", "A broker asked us to start over."): "the reason in a line of the log",
    ("MetadataEmptyBrokerList", "A metadata response names no broker."): "a cause; its row is in the table of classes",
    ("CorrelationIdError", "the answer has correlation id ..."): "a line of diagnose()",
}


def row_of(name: str) -> ErrorRow:
    return next(row for row in (*CLIENT_ERRORS, *BROKER_ERRORS) if row.name == name)


def retriable(row: ErrorRow) -> str:
    if row.invalid_metadata:
        return "yes, new metadata first"
    return "yes" if row.retriable else "no"


def verdict_on(code: int) -> Verdict:
    """Of the first answer to a batch of two records, by the rules of a default producer."""
    facts = BatchFacts(error_code=code, record_count=2, attempts=1, created=0.0, base_sequence=0)
    return judge(facts, Rules(retries=10, delivery_timeout_s=120.0, idempotent=True), now=1.0)


class TestClasses:
    def test_each_is_there_once(self) -> None:
        named = [each.name for each in entries()]
        every = [row.name for row in (*CLIENT_ERRORS, *BROKER_ERRORS) if row.name != NO_ERROR]
        assert sorted(named) == sorted(every)

    def test_the_code_that_is_no_error_and_the_aliases_are_told(self) -> None:
        assert f"Code 0 (`{NO_ERROR}` {row_of(NO_ERROR).message}) is no error at all: Success." in TEXT
        flat = " ".join(TEXT.split())
        for alias, target in ALIASES.items():
            assert f"`{alias}` is `{target}`" in flat

    @pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
    def test_what_is_said_of_it_is_so(self, entry: Entry) -> None:
        row = row_of(entry.name)
        is_brokers = row in BROKER_ERRORS
        assert (entry.code, entry.kafka_name) == ((row.code, row.message) if is_brokers else (None, None))
        assert entry.meaning == row.description
        assert entry.retriable == retriable(row)
        cls = getattr(errors, entry.name)
        assert (cls.retriable, cls.invalid_metadata) == (row.retriable, row.invalid_metadata)
        if entry.code is not None:
            assert entry.batch == BATCH[verdict_on(entry.code).action]

    def test_each_says_what_to_do(self) -> None:
        """In its row, or once for the whole table: those that are no concern of a producer."""
        for table in tables_of(PAGE):
            for row in table.rows:
                assert all(row.values()), row
                if "Error" in row:
                    assert "What to do" in row or "to do" in section(table.heading), row

    def test_codes_that_may_be_in_the_log_are_listed(self) -> None:
        (listed,) = re.findall(r"fails after an answer of ([-\d, ]+ or \d+) may be in the log", " ".join(TEXT.split()))
        told = {int(number) for number in re.findall(r"-?\d+", listed)}
        assert told == {row.code for row in BROKER_ERRORS if row.code is not None and verdict_on(row.code).unknown}

    def test_those_that_are_said_to_be_never_raised_are_not(self) -> None:
        kept = {each.name for each in entries() if each.code is None and each.advice is None}
        others = {row.name for row in CLIENT_ERRORS} - kept
        named = {name for name, _ in raised()}
        assert kept
        assert not kept & named
        # Bases, and what is made from a broker's code or is a kind of another one.
        bases = {base for row in (*CLIENT_ERRORS, *BROKER_ERRORS) for base in row.bases}
        assert others - named - bases == {"UnrecognizedBrokerError", "IncompatibleBrokerVersion"}


def section(heading: str) -> str:
    """What stands under a heading."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


# Messages


def template(node: ast.expr) -> str | None:
    """The text of a string in the code, `...` for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "..." for part in node.values]
        return "".join(map(str, parts))
    return None


@functools.cache
def trees() -> list[ast.Module]:
    """The package, but for the table of errors itself."""
    return [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES if path.parent.name != "errors"]


def raised() -> list[tuple[str, str | None]]:
    """Each place that makes an error by the name of its class, and its text where it stands there."""
    found = []
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                if isinstance(of, ast.Name) and of.id == "errors" and node.func.attr[0].isupper():
                    found.append((node.func.attr, template(node.args[0]) if node.args else None))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "refusal":
                found.append(("KafkaConfigurationError", template(node.args[0])))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "errors":
                found.append((node.attr, None))
    return found


def covers(saying: str, text: str) -> bool:
    """Whether the pieces of `saying` between its `...` are in `text`, in that order."""
    at = 0
    for piece in map(str.strip, saying.split("...")):
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class Made(NamedTuple):
    name: str
    text: str


def ancestors(name: str) -> set[str]:
    bases = row_of(name).bases
    return {*bases, *(each for base in bases for each in ancestors(base))}


# Without a word of its own a message is what others said.
MADE = sorted({Made(name, text) for name, text in raised() if text and re.search("[a-z]", text)})
STRINGS = {template(node) for tree in trees() for node in ast.walk(tree) if isinstance(node, ast.expr)} - {None}


@pytest.mark.parametrize("made", MADE, ids=lambda made: f"{made.name}: {made.text[:40]}")
def test_messages_of_the_code_are_on_the_page(made: Made) -> None:
    if made in INTERNAL:
        return
    sections = {made.name, *ancestors(made.name)}
    assert any(each.heading in sections and covers(each.message, made.text) for each in sayings()), (
        f"docs/errors.md has no row for this message under '### {made.name}'"
    )


@pytest.mark.parametrize("saying", sayings(), ids=lambda saying: saying.message[:40])
def test_messages_on_the_page_are_in_the_code(saying: Saying) -> None:
    assert any(covers(saying.message, text) for text in STRINGS if text)


def test_what_is_internal_still_is_there() -> None:
    assert set(INTERNAL) <= set(MADE)
