"""A reader at work: what a page's block says is done, in a folder of its own, against a Kafka that was started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import symtable
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# What the pages call the reader's Kafka.
ADDRESS = "localhost:9092"
PATIENCE_S = 200
# Names that a piece of a program uses and does not make: a reader has them from the program around it.
GIVEN = {
    "KafkaProducer": "from fastprod import KafkaProducer",
    "KafkaBroker": "from fastprod.testing import KafkaBroker",
    "errors": "from fastprod import errors",
    "producer": f"""
from fastprod import KafkaProducer
producer = KafkaProducer(bootstrap_servers="{ADDRESS}")
producer.send("orders", b"one").get(timeout=30)
""",
}


def unmade_names(program: str) -> list[str]:
    """The global names that a program uses without making them."""
    top = symtable.symtable(program, "program", "exec")
    made = {each.get_name() for each in top.get_symbols() if each.is_assigned() or each.is_imported()}
    builtins = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)
    used: set[str] = set()

    def look(table: symtable.SymbolTable) -> None:
        for each in table.get_symbols():
            if each.is_referenced() and (table is top or each.is_global()):
                used.add(each.get_name())
            if each.is_declared_global() and each.is_assigned():
                made.add(each.get_name())
        for child in table.get_children():
            look(child)

    look(top)
    return sorted(used - made - set(builtins) - {"__file__", "__name__"})


def whole(program: str) -> str:
    """A program with what it is given in front of it."""
    missing = unmade_names(program)
    unknown = [name for name in missing if name not in GIVEN]
    assert not unknown, f"the block uses {unknown} and neither makes nor imports them"
    return "\n".join([*(GIVEN[name] for name in missing), program])


def save(program: str, folder: Path, servers: str) -> Path:
    """Write a program where its first line says, and return the file."""
    named = re.match(r"# ([\w.]+\.py)\b", program)
    file = folder / (named[1] if named else "program.py")
    file.write_text(whole(program).replace(ADDRESS, servers), encoding="utf-8")
    return file


def run_program(program: str, folder: Path, servers: str) -> str:
    """Run a program and return what it printed."""
    return finish([sys.executable, str(save(program, folder, servers))], folder)


def run_command(command: str, folder: Path, servers: str) -> str:
    """Run a command in a shell, where `fastprod` is the one of this Python, and return what it printed."""
    shell = shutil.which("bash")
    assert shell
    return finish([shell, "-euo", "pipefail", "-c", command.replace(ADDRESS, servers)], folder)


def finish(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def commands_of(text: str) -> list[str]:
    """The commands of a shell block, each on one line."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def sessions_of(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, those behind `$ `, and what each prints."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert not parts[0], "a console block begins with a command"
    yield from zip(parts[1::2], parts[2::2], strict=True)


def topics_in(programs: Iterable[str]) -> set[str]:
    """What may be names of topics in programs and commands."""
    return {name for program in programs for name in re.findall(r"[\"' ]([a-z][\w-]*)\b", program)}
