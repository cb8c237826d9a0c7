"""`compare.py` works: one short round on a real broker, so that no part of it rots unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMPARE = Path(__file__).resolve().parent / "compare.py"
CONTENDERS = {
    "ceiling",
    "fastprod-callback",
    "fastprod-futures",
    "pure-callback",
    "pure-futures",
    "confluent-callback",
    "aiokafka",
    "kafka-python",
}
CLIENTS_BESIDE_A_THREAD = {"fastprod-send", "confluent-send"}


@pytest.mark.timeout(0)
def test_a_quick_comparison_counts_every_record(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Every contender has a row and no run is void. How fast it was is no matter: the machine may be busy."""
    record_property("real_broker", "yes")
    report = tmp_path / "report.json"
    command = [sys.executable, str(COMPARE), "--quick", "--pure", "--cpu-bound", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VOID" not in done.stdout
    rows = {line.split(" ")[0] for line in done.stdout.splitlines()}
    assert rows >= CONTENDERS | CLIENTS_BESIDE_A_THREAD
    found = json.loads(report.read_text(encoding="utf-8"))
    (only_round,) = found["rounds"]
    assert set(only_round) == CONTENDERS
    assert all(run["records"] and run["seconds"] > 0 and not run["void"] for run in only_round.values())
    for measured in found["cpu_bound"].values():
        assert set(measured) == CLIENTS_BESIDE_A_THREAD
        assert all(run["records"] and not run["void"] for (one,) in measured.values() for run in one.values())
