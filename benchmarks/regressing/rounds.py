"""The suite of both sides in turn, A B B A A B ...: what drifts on the machine meets both alike."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from regressing.build import NotMeasured, Side

Times = dict[str, float]
"""Seconds by benchmark."""


def measured(
    sides: tuple[Side, Side], rounds: int, options: list[str], folder: Path, tell: Callable[[str], None]
) -> list[tuple[Times, Times]]:
    """Return each round's times of both sides. `options` are pytest's; NotMeasured where a suite fails."""
    found = []
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        order = sides if number % 2 == 0 else sides[::-1]
        times = {side.name: times_of(side, options, folder) for side in order}
        found.append((times[sides[0].name], times[sides[1].name]))
    return found


def times_of(side: Side, options: list[str], folder: Path) -> Times:
    """Run a side's suite once and return the fastest round of each benchmark.

    Whatever else happens on the machine only ever adds to a time, so the fastest is what changes least by itself.
    """
    report, settings = folder / "report.json", folder / "pytest.ini"
    # Not the revision's own settings: they ask for plugins that its tests need, and its benchmarks do not.
    settings.write_text("[pytest]\n", encoding="ascii")
    command = [
        *(str(side.python), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-c", str(settings), "--rootdir", str(side.tree), str(side.tree / "benchmarks")),
        *("--benchmark-only", f"--benchmark-json={report}", *options),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("PYTHONPATH", None)
    # Not from the tree: its sources, which are not compiled, would be taken for the package.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    if done.returncode:
        raise NotMeasured(f"the benchmarks of {side.name} failed\n{done.stdout}{done.stderr}")
    found = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    return {each["fullname"].rpartition("/")[2]: each["stats"]["min"] for each in found}
