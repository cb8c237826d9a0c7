"""A revision, built from nothing: its files, and an environment of its own that it is installed in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent


class NotMeasured(Exception):
    """Something that has to work before anything can be compared did not."""


class Side(NamedTuple):
    """What can be measured: the interpreter that has the package, and the folder with the benchmarks' source."""

    name: str
    python: Path
    tree: Path


def commit_of(revision: str) -> str:
    """Return the commit's full name; NotMeasured where there is no such."""
    return _run(
        "git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", what=revision
    ).strip()


def built(name: str, commit: str, folder: Path) -> Side:
    """Unpack the commit below `folder` and install it, compiled, with what its benchmarks need."""
    tree, environment = folder / name, folder / f"{name}-environment"
    tree.mkdir()
    archive = folder / f"{name}.tar"
    _run("git", "-C", str(ROOT), "archive", "--output", str(archive), commit, what=f"unpacking {name}")
    _run("tar", "-xf", str(archive), "-C", str(tree), what=f"unpacking {name}")
    _run(sys.executable, "-m", "venv", str(environment), what=f"making an environment for {name}")
    python = environment / "bin" / "python"
    _run(str(python), "-m", "pip", "install", "--quiet", f"{tree}[bench]", what=f"installing {name}")
    return Side(name, python, tree)


def _run(*command: str, what: str) -> str:
    """Return what it printed; NotMeasured with what it said where it fails."""
    environment = {**os.environ, "FASTPROD_REQUIRE_NATIVE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise NotMeasured(f"{what}: {' '.join(command)} ended with {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout
