"""Write the generated part of docs/api.md: every public name, as its signature and docstring tell it.

    python .ci/api_page.py            prints it
    python .ci/api_page.py --write    puts it between the markers of docs/api.md

It is read from the Python twin: the compiled one has the same names and words (tests/unit/test_public_surface.py), and
no annotations. A test holds the page against what this prints.
"""

from __future__ import annotations

import ast
import builtins
import enum
import importlib
import inspect
import operator
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["FASTPROD_BACKEND"] = "pure"  # before it is read

from fastprod import config, errors

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"
BEGIN, END = "<!-- reference:begin -->\n", "<!-- reference:end -->"

# What stands on the page, in this order: a heading, the module, and its names (with those that they lead to).
SECTIONS: list[tuple[str, str, tuple[str, ...]]] = [
    ("Producer", "fastprod", ("KafkaProducer", "close_on_sigterm")),
    ("Results of one record", "fastprod", ("FutureRecordMetadata", "RecordMetadata", "TopicPartition")),
    ("Results of many records", "fastprod", ("BatchFuture", "BatchMetadata")),
    ("What was not delivered", "fastprod.types", ("UndeliveredRecord",)),
    ("Statistics", "fastprod.stats", ("ProducerStats", "Tally", "BrokerStats", "LatencyHistogram", "TopicStats")),
    ("Looking for what is wrong", "fastprod.diagnosis", ("Diagnosis", "AddressReport", "Check")),
    ("Serializers", "fastprod.serializers", ("Serializer", "DefaultSerializer", "StringSerializer", "JsonSerializer")),
    (
        "Partitioners", "fastprod.partitioners",
        (
            "Partitioner", "Cluster", "DefaultPartitioner", "RandomPartitioner", "RoundRobinPartitioner",
            "StickyPartitioner",
        ),
    ),
    ("Errors", "fastprod.errors", ("for_code", "is_retriable")),
    (
        "For tests", "fastprod.testing",
        (
            "KafkaBroker", "FaultProxy", "PlannedFault", "Tap", "Request", "ScriptedBroker", "scripted.script.Rule",
            "Pending", "scripted.script.Shape", "scripted.script.Refusal", "Batch", "Record", "Verdict", "Api",
            "BrokerError", "MissingExtraError",
        ),
    ),
]  # fmt: skip
# What programs do not make themselves.
HANDED_OUT = {"FutureRecordMetadata", "BatchFuture", "Pending", "PlannedFault", "Rule", "Cluster"}
# Modules whose docstring opens their section.
INTRODUCED = {"fastprod.serializers", "fastprod.partitioners", "fastprod.errors", "fastprod.testing"}
# What only the threads of a double call.
FOR_ITS_THREADS = {
    "ScriptedBroker": {
        "answers", "came", "complain", "failed", "find_topic", "happened", "held", "partition", "response",
    },
    "PlannedFault": {"forget", "strike"},
    "FaultProxy": {"forget"},
}
OPERATORS = {
    ("BatchFuture", "__len__"): "len(future)",
    ("BatchFuture", "__getitem__"): "future[i]",
    ("LatencyHistogram", "__sub__"): "histogram - earlier",
}
# What tells a class that consists of fields.
FORMS = {"_fields": "NamedTuple", "__dataclass_fields__": "dataclass", "__total__": "TypedDict, total=False"}
NAMED: set[str] = {name for name in dir(builtins) if name.endswith("Error")}


def page() -> str:
    NAMED.update(name for _, _, chosen in SECTIONS for name in chosen)
    NAMED.update(errors.__all__)
    lines: list[str] = []
    for heading, home, chosen in SECTIONS:
        module = importlib.import_module(home)
        lines += [f"## {heading}", ""]
        if home in INTRODUCED:
            lines += [prose(module), ""]
        for name in chosen:
            lines += entry(name.rpartition(".")[2], operator.attrgetter(name)(module))
    return "\n".join([*lines, "## Options", "", config.markdown_table(), ""])


def entry(name: str, thing: Any) -> list[str]:
    if not isinstance(thing, type):
        return [f"### {name}", "", *code(signature(name, thing)), prose(thing), ""]
    lines = [f"### {name}", "", *code(declaration(name, thing)), prose(thing), ""]
    for member, defined in members(name, thing):
        function = getattr(defined, "__func__", defined)
        heading = OPERATORS.get((name, member), f"{name}.{member}")
        told = signature(member, function) if not isinstance(defined, property) else f"{member}{result(defined.fget)}"
        told = told if (name, member) not in OPERATORS else f"{heading}{result(function)}"
        lines += [f"#### {heading}", "", *code(told), prose(function, thing, member), ""]
    for attribute, text in attributes(thing):
        lines += [f"#### {name}.{attribute}", "", text, ""]
    return lines


def members(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Methods and properties in the order of the source, those of bases that are not on the page first."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        on_page = base.__name__ in NAMED and "scripted" not in base.__module__  # whose Cluster is another one
        if base.__module__.startswith("fastprod") and (base is kind or not on_page):
            found.update(vars(base))
    for member, defined in found.items():
        known = isinstance(defined, property | staticmethod | classmethod) or inspect.isfunction(defined)
        public = not member.startswith("_") or (name, member) in OPERATORS
        if public and known and member not in FOR_ITS_THREADS.get(name, ()):
            yield member, defined


def attributes(kind: type) -> Iterator[tuple[str, str]]:
    """(name, words) of each attribute behind which a docstring stands, in the class or its constructor."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    for block in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)):
        for before, after in zip(block.body, block.body[1:], strict=False):
            target = before.target if isinstance(before, ast.AnnAssign) else None
            told = after.value if isinstance(after, ast.Expr) else None
            if target is not None and isinstance(told, ast.Constant) and isinstance(told.value, str):
                yield ast.unparse(target).removeprefix("self."), markdown(inspect.cleandoc(told.value))


def declaration(name: str, kind: type) -> str:
    """How a class is made, or what a tuple or record of fields consists of."""
    if issubclass(kind, enum.Enum):
        values = [f"    {each.name} = {each.value}" for each in kind]
        return "\n".join([f"class {name}({kind.__base__.__name__})", *values])
    if issubclass(kind, Exception) or name in HANDED_OUT:
        return f"class {name}"
    own = vars(kind)
    form = [form for mark, form in FORMS.items() if mark in own]
    if form:
        noted = inspect.get_annotations(kind).items()
        fields = [f"    {field}: {written(each)}{preset(own, field)}" for field, each in noted]
        return "\n".join([f"class {name}({form[0]})", *fields])
    if kind.__init__ is object.__init__:
        return f"class {name}"
    return "class " + signature(name, kind.__init__).removesuffix(" -> None")


def preset(own: Any, field: str) -> str:
    return f" = {own[field]!r}" if field in own and not inspect.isdatadescriptor(own[field]) else ""


def signature(name: str, function: Any) -> str:
    found = inspect.signature(function)
    listed = [each for each in found.parameters.values() if each.name not in ("self", "cls")]
    parts: list[str] = []
    for each in listed:
        if each.kind is each.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        text = f"{stars}{each.name}" + ("" if each.annotation is each.empty else f": {written(each.annotation)}")
        default = each.default.name if isinstance(each.default, enum.Enum) else repr(each.default)
        parts.append(text if each.default is each.empty else f"{text} = {default}")
        if each.kind is each.POSITIONAL_ONLY:
            parts.append("/")
    one_line = f"{name}({', '.join(parts)}){result(function)}"
    if len(one_line) <= 100:
        return one_line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result(function)}"


def result(function: Any) -> str:
    told = inspect.signature(function).return_annotation
    return "" if told is inspect.Signature.empty else f" -> {written(told)}"


def written(annotation: Any) -> str:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text.strip("'\""))


def code(text: str) -> list[str]:
    return ["```text", text, "```", ""]


def prose(thing: Any, kind: type | None = None, member: str = "") -> str:
    doc = inspect.getdoc(thing)
    for base in kind.__mro__ if kind is not None and not doc else ():
        doc = doc or inspect.getdoc(getattr(base, member, None))
    return markdown(doc or "")


def markdown(doc: str) -> str:
    """A docstring as Markdown: names as code, sections of arguments as lists."""
    lines: list[str] = []
    inside = False
    for line in doc.splitlines():
        if re.fullmatch(r"(Args|Raises|Attributes|Returns):", line):
            inside = True
            lines += [f"{line}", ""]
        elif inside and re.match(r"    \w[\w, ]*: ", line):
            name, _, text = line.strip().partition(": ")
            lines.append(f"- `{name}`: {text}")
        elif inside and line.startswith("    "):
            lines.append(f"  {line.strip()}" if lines[-1] else line.strip())
        elif line.startswith("* ") and lines and lines[-1] and not lines[-1].startswith(("* ", "  ")):
            lines += ["", line]
        else:
            inside = inside and not line.strip()
            lines.append(line)
    return "\n".join(as_code(line) for line in lines)


def as_code(line: str) -> str:
    """What is a name by its looks is shown as one, outside of what is code already."""
    parts = re.split(r"(`[^`]*`)", line)
    for number in range(0, len(parts), 2):
        text = parts[number].replace("<", "&lt;")
        parts[number] = re.sub(r"(?<![\w.\"])\w+(?![\w(])", lambda found: quoted(found.group()), text)
    return "".join(parts)


def quoted(word: str) -> str:
    return f"`{word}`" if re.search(r"\w_\w", word) or word in NAMED else word


def main() -> None:
    text = page()
    if "--write" not in sys.argv:
        print(text)
        return
    before, _, rest = PAGE.read_text(encoding="ascii").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}", encoding="ascii")


if __name__ == "__main__":
    main()
