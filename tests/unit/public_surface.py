"""Prints, as JSON, what a program can see of fastprod: names, signatures, docstrings. The twin is `FASTPROD_BACKEND`'s.

Public is what stands in the `__all__` of fastprod or of one of its public modules, each member of it without an
underscore, and the classes that their annotations name.
"""

from __future__ import annotations

import ast
import collections
import importlib
import inspect
import json
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Any

ROOTS = ("fastprod", "fastprod.testing")
# Methods with underscores whose docstrings are looked at as well.
OPERATORS = {"__getitem__", "__init__", "__len__", "__sub__"}
# What an annotation may name is public, but for what is handed to plugins of the project's own.
INTERNAL = re.compile(r"fastprod\.(_|control|testing\._|testing\.scripted\.(?!script\.Rule)|batch_future\.Placement)")


def surface() -> dict[str, Any]:
    """Everything by its dotted name."""
    found: dict[str, Any] = {}
    left = collections.deque((name, importlib.import_module(name)) for name in ROOTS)
    seen: set[int] = set()
    while left:
        name, thing = left.popleft()
        if id(thing) in seen or INTERNAL.match(name):
            continue
        seen.add(id(thing))
        if isinstance(thing, types.ModuleType):
            found[name] = {"kind": "module", "doc": doc_of(thing)}
            left += [(f"{name}.{each}", getattr(thing, each)) for each in thing.__all__]
        elif isinstance(thing, type):
            found[name] = {"kind": "class", "doc": own_doc(thing), "fields": list(getattr(thing, "_fields", ()))}
            for member, *defined in members(thing):
                found[f"{name}.{member}"] = described(*defined)
            left += [(f"{each.__module__}.{each.__qualname__}", each) for each in classes_named_by(thing)]
        elif callable(thing):
            found[name] = described(thing)
        else:
            found[name] = {"kind": "value"}
    return found


def members(kind: type) -> Iterator[tuple[str, Any, str]]:
    """(name, what it is, what its classes above say of it) of each public member, inherited ones as well; those of a
    class that is not ours are somebody else's."""
    for name in sorted(dir(kind)):
        if name.startswith("_") and name not in OPERATORS:
            continue
        found = [vars(base)[name] for base in kind.__mro__ if name in vars(base) and is_ours(base)]
        if found and is_ours(found[0]) and name not in getattr(kind, "_fields", ()):
            yield name, found[0], " ".join(map(doc_of, found[1:]))


def is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "fastprod")).partition(".")[0] == "fastprod"


def described(thing: Any, above: str = "") -> dict[str, Any]:
    thing = getattr(thing, "__func__", thing)  # of a static or class method
    if inspect.isroutine(thing):
        return {
            "kind": "method", "doc": doc_of(thing), "above": above, "parameters": parameters(thing),
            "raises": raised(thing),
        }  # fmt: skip
    if inspect.isdatadescriptor(thing):
        return {"kind": "property", "doc": doc_of(thing)}
    return {"kind": "value"}


def doc_of(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split())


def own_doc(kind: type) -> str:
    return " ".join((vars(kind).get("__doc__") or "").split())


def parameters(function: Any) -> list[list[str]]:
    """[name, kind, default] of each. `self` has no kind: it is as good by its place alone, as a method of C has it."""
    found = []
    for each in inspect.signature(function).parameters.values():
        default = "" if each.default is each.empty else repr(each.default)
        found.append([each.name, "" if each.name in ("self", "cls") else each.kind.name, default])
    return found


def raised(function: Any) -> list[str]:
    """The exceptions that the function itself raises by their names; of a compiled one nothing is known."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return []
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    names = [ast.unparse(call.func).rpartition(".")[2] for call in calls if isinstance(call, ast.Call)]
    return sorted({name for name in names if name[0].isupper()})


def classes_named_by(kind: type) -> Iterator[type]:
    """The classes of ours that its fields, and its methods' arguments and results, are said to be of."""
    for _, member, _ in members(kind):
        function = getattr(member, "fget", getattr(member, "__func__", member))
        if isinstance(function, types.FunctionType):
            yield from looked_up(function.__annotations__, function.__globals__)
    yield from looked_up(inspect.get_annotations(kind), vars(importlib.import_module(kind.__module__)))


def looked_up(annotations: dict[str, Any], namespace: dict[str, Any]) -> Iterator[type]:
    text = " ".join(inspect.formatannotation(each) for each in annotations.values())
    for name in re.findall(r"\w+", text):
        found = namespace.get(name)
        if isinstance(found, type) and is_ours(found):
            yield found


if __name__ == "__main__":
    print(json.dumps(surface(), indent=1, sort_keys=True))
