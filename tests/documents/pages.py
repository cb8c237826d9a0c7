"""The pages a reader has, and the code blocks and tables in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_FENCE = re.compile(r"( *)(`{3,}|~{3,})[ ]*(\w*)(.*)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its page, the line of its fence, and what stands between it and the block before it."""

    page: str
    line: int
    language: str
    text: str
    gap: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def follows(self) -> bool:
        """Whether it comes right after the block before it: as what that one prints."""
        return not _COMMENT.sub("", self.gap).strip()


class Table(NamedTuple):
    """A table under a heading; a row is its cells by the names of their columns."""

    heading: str
    rows: list[dict[str, str]]


def blocks_of(page: Path) -> list[Block]:
    return list(_blocks(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8").splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    gap: list[str] = []
    # What begins a page follows nothing.
    gap.append("the page begins")
    at = 0
    while at < len(lines):
        fence = _FENCE.fullmatch(lines[at])
        if fence is None:
            gap.append(lines[at])
            at += 1
            continue
        indent, ticks, language, _ = fence.groups()
        end = next(
            (each for each in range(at + 1, len(lines)) if lines[each].strip() == ticks), None
        )
        assert end is not None, f"{page}:{at + 1}: the block has no end"
        inside = [line.removeprefix(indent) for line in lines[at + 1 : end]]
        yield Block(page, at + 1, language, "\n".join(inside) + "\n", "\n".join(gap))
        gap = []
        at = end + 1


def marked(page: Path, name: str) -> list[Block]:
    """The blocks of a page between the marks of that name."""
    text = page.read_text(encoding="utf-8")
    _, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
    inside, end, _ = rest.partition(f"<!-- {name}:end -->")
    assert begin, f"{page.name} has no mark {name}:begin"
    assert end, f"{page.name} has no mark {name}:end"
    return list(_blocks(page.name, inside.splitlines()))


def tables_of(page: Path) -> list[Table]:
    heading = ""
    found: list[Table] = []
    columns: list[str] | None = None
    in_block = False
    for line in page.read_text(encoding="utf-8").splitlines():
        in_block ^= line.startswith("```")
        if in_block:
            continue
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = None
        elif columns is None:
            columns = _cells(line)
            found.append(Table(heading, []))
        elif not set(line) <= set("|- :"):
            found[-1].rows.append(dict(zip(columns, _cells(line), strict=True)))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def as_pattern(written: str) -> re.Pattern[str]:
    """`written` with `...` for anything."""
    return re.compile(".*".join(re.escape(part) for part in written.split("...")), re.DOTALL)
