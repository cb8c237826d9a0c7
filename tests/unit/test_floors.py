"""A file imports only what lies below it, and nothing goes round in a circle."""

from __future__ import annotations

import ast
import importlib.util
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytestmark = pytest.mark.native_only

# Longest prefix wins. The floors are told in DESIGN.md.
FLOORS = {
    "fastprod.errors": 0, "fastprod.types": 0, "fastprod.stats": 0, "fastprod.diagnosis": 0, "fastprod._version": 0,
    "fastprod.refusal": 0, "fastprod.unforked": 0,
    "fastprod.batch_future": 1, "fastprod.columns": 1, "fastprod.arrow_types": 1, "fastprod.arrow_failures": 1,
    "fastprod.failures": 1, "fastprod.config": 1, "fastprod.compression": 1, "fastprod.partitioners": 1,
    "fastprod.serializers": 1, "fastprod.addresses": 1, "fastprod.call_forms": 1, "fastprod.codecs": 1,
    "fastprod.decompression": 1, "fastprod.option_kinds": 1, "fastprod.option_rules": 1, "fastprod.waiting": 1,
    "fastprod._pure": 2, "fastprod._core": 2, "fastprod._backend": 2,
    "fastprod.protocol": 3,
    "fastprod.control": 4,
    "fastprod.control.producer": 6,
    "fastprod.faces": 7, "fastprod.testing": 7,
    "fastprod.cli": 8, "fastprod.__main__": 8, "fastprod": 8,
}

# What is imported inside a function, when it is first called, and why that is no edge of the picture.
DEFERRED = {
    ("fastprod.partitioners", "fastprod._backend"),  # called by hand, a partitioner hashes with the twin's murmur2
    ("fastprod.errors.behaviour", "fastprod.errors"),  # unpickling looks an unknown code's class up
}


def package() -> Path:
    spec = importlib.util.find_spec("fastprod")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path, package()): path for path in sorted(package().rglob("*.py"))}


def floor(module: str) -> int:
    name = module
    while name not in FLOORS or (name == "fastprod" and name != module):
        assert "." in name, f"{module} has no floor: name it in FLOORS"
        name = name.rpartition(".")[0]
    return FLOORS[name]


def imported(module: str) -> set[str]:
    """The modules of ours that a file imports anywhere but for type checkers alone."""
    tree = ast.parse(FILES[module].read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in FILES else node.module for name in whole)
    ours = {name for name in found if name.partition(".")[0] == "fastprod"} - {module}
    return {name for name in ours if (module, name) not in DEFERRED}


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_file_imports_only_what_lies_below(module: str) -> None:
    above = {name for name in imported(module) if floor(name) > floor(module)}
    # The package's __init__ hands names out lazily and is imported by everything without harm.
    assert above - {"fastprod"} == set()


def test_the_compiled_twin_imports_only_what_lies_below() -> None:
    """Its fragments are one module. An installed package does not have them."""
    source = Path(__file__).parents[2] / "fastprod"
    fragments = [source / "_core.pyx", *(source / "_native").glob("*.pxi")]
    found = [
        (module, name)
        for fragment in fragments
        for module, names in re.findall(r"^\s*from (\S+) import ([\w, ]+)", fragment.read_text(), re.MULTILINE)
        for name in re.findall(r"\w+", names)
        if module.partition(".")[0] == "fastprod"
    ]
    asked = {f"{module}.{name}" if f"{module}.{name}" in FILES else module for module, name in found}
    assert {"fastprod.failures", "fastprod.types"} <= asked
    assert {name for name in asked if floor(name) > floor("fastprod._core")} == set()
    text = "".join(fragment.read_text() for fragment in fragments)
    assert text.count("import fastprod") == 0, "which this test does not read"


def test_design_tells_these_floors() -> None:
    table = (package() / "DESIGN.md").read_text().partition("| Floor | Files | Holds |")[2].partition("\n\n")[0]
    told = {
        file: int(number)
        for number, files in re.findall(r"^\| (\d) \| ([^|]+) \|", table, re.MULTILINE)
        for file in re.findall(r"`([\w/.*]+)`", files)
    }

    def floors_told(place: str) -> set[int]:
        matching = [name for name in told if fnmatch(place, f"{name}*" if name.endswith("/") else name)]
        longest = max(map(len, matching), default=0)
        return {told[name] for name in matching if len(name) == longest}

    places = {module: FILES[module].relative_to(package()).as_posix() for module in FILES}
    assert {module: floors_told(place) for module, place in places.items()} == {each: {floor(each)} for each in FILES}


def test_no_imports_in_a_circle() -> None:
    edges = {module: imported(module) & set(FILES) - {"fastprod"} for module in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        if module not in done:
            for name in sorted(edges[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())
