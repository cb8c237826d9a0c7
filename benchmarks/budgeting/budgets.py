"""What may be spent: `benchmarks/budgets.toml`, a table for each pair of Python and compiler."""

from __future__ import annotations

import platform
import re
import tomllib
from importlib import import_module
from pathlib import Path

# The counts of two runs of the same code differ by less; a slower one is a change.
SLACK = 0.03
FILE = Path(__file__).resolve().parent.parent / "budgets.toml"
_COMPILER = re.compile(rb"(GCC): \([^)]*\) ([\d.]+)|(clang) version ([\d.]+)")


def pair() -> str:
    """Return the name of what runs: the interpreter with its compiler, the extension's compiler, the processor."""
    extension = import_module("fastprod._core").__file__ or ""
    python = f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})"
    return f"{python}, extension by {compiler_of(Path(extension).read_bytes())}, {platform.machine()}"


def compiler_of(binary: bytes) -> str:
    """Return the compiler that an ELF binary names in its comments; clang's come beside those of its C library."""
    found = {(match[1] or match[3], match[2] or match[4]) for match in _COMPILER.finditer(binary)}
    if not found:
        return "an unknown compiler"
    name, version = max(found, key=lambda each: each[0] == b"clang")
    return f"{name.decode()} {version.decode()}"


def budgets_of(name: str, text: str) -> dict[str, int] | None:
    """Return the budgets by workload that the file's text has for this pair, None where it has none."""
    budgets: dict[str, int] | None = tomllib.loads(text).get(name)
    return budgets


def is_over(instructions: float, budget: int) -> bool:
    """Whether it is more than the budget and the slack."""
    return instructions > budget * (1 + SLACK)
