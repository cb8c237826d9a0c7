"""`compare.py` works: short rounds, so that no part of it rots unseen. How fast anybody was is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMPARE = Path(__file__).resolve().parent / "compare.py"
CONTENDERS = {
    "ceiling",
    "fastprod-callback",
    "fastprod-futures",
    "pure-callback",
    "pure-futures",
    "confluent-callback",
    "confluent-batch",
    "aiokafka",
    "kafka-python",
}
CLIENTS_BESIDE_A_THREAD = {"fastprod-send", "confluent-send"}


def compared(folder: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """What a short comparison prints, and its JSON. No run may be void."""
    report, plot = folder / "report.json", folder / "plot.svg"
    command = [sys.executable, str(COMPARE), "--quick", *options, "--json", str(report), "--plot", str(plot)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VOID" not in done.stdout
    found = json.loads(report.read_text(encoding="utf-8"))
    words = " ".join(element.text or "" for element in ElementTree.parse(plot).iter())
    for name in found["cases"][0]["rounds"][0]:
        assert name in words
    assert found["machine"]["CPU"] in words
    return done.stdout, found


@pytest.mark.timeout(0)
def test_a_quick_comparison_counts_every_record(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Every contender has passed the checking mode and has a row."""
    record_property("real_broker", "yes")
    printed, found = compared(tmp_path, "--pure", "--cpu-bound")
    rows = {line.split(" ")[0] for line in printed.splitlines()}
    assert rows >= CONTENDERS | CLIENTS_BESIDE_A_THREAD
    (only_round,) = found["cases"][0]["rounds"]
    assert set(only_round) >= CONTENDERS
    assert all(run["records"] and run["seconds"] > 0 and not run["void"] for run in only_round.values())
    for measured in found["cpu_bound"].values():
        assert set(measured) == CLIENTS_BESIDE_A_THREAD
        assert all(run["records"] and not run["void"] for (one,) in measured.values() for run in one.values())


@pytest.mark.timeout(0)
def test_a_quick_comparison_on_the_sink(tmp_path: Path) -> None:
    """Two cases, on a server without a broker."""
    names = ["memcpy-crc", "c-limit", "fastprod-futures"]
    printed, found = compared(tmp_path, "--sink", "--partitions", "1,60", "--only", ",".join(names))
    assert "60 partitions" in printed
    for measured in found["cases"]:
        (only_round,) = measured["rounds"]
        assert set(only_round) == set(names)
        assert all(run["stored_bytes"] > 100 * run["records"] for run in only_round.values())


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("mode", "figure", "cases"),
    [("--latency", "latency_ms", 2), ("--memory", "queued_rss", 1)],
    ids=["latency", "memory"],
)
def test_one_by_one_and_queued(tmp_path: Path, mode: str, figure: str, cases: int) -> None:
    """Alone and beside a busy thread the one, while the server stands still the other."""
    printed, found = compared(tmp_path, "--sink", mode, "--only", "fastprod-futures,confluent-callback")
    assert len(found["cases"]) == cases
    for measured in found["cases"]:
        assert all(run[figure] for one in measured["rounds"] for run in one.values())
    assert (found["arrival"] is not None) == (mode == "--latency")
    if found["arrival"]:
        assert [measured["case"]["busy"] for measured in found["arrival"]["cases"]] == [0, 2]
        for measured in found["arrival"]["cases"]:
            assert all(run["latency_ms"] and not run["void"] for one in measured["rounds"] for run in one.values())
        assert "p99 of arrival beside threads" in printed
