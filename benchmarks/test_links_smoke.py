"""`links.py` works: a short round, so that no part of it rots unseen. How fast anybody was is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from linking.java import outcome
from linking.job import CONTENDERS, Outcome
from linking.model import evenly, spread, waiting, waits

LINKS = Path(__file__).resolve().parent / "links.py"


@pytest.mark.timeout(0)
def test_a_quick_round_counts_every_record(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    record_property("real_broker", "yes")
    written = tmp_path / "links.json"
    names = ["fastprod-0", "fastprod-5", "java-0", "java-5-1MB"]
    options = ["--quick", "--links", "none,20", "--rates", "0,5000", "--only", ",".join(names)]
    command = [sys.executable, str(LINKS), *options, "--json", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VOID" not in done.stdout
    cases = json.loads(written.read_text(encoding="utf-8"))["cases"]
    assert [(case["delay_ms"], case["rate"]) for case in cases] == [(None, None), (None, 5000), (20, None), (20, 5000)]
    for case in cases:
        (only_round,) = case["rounds"]
        assert set(only_round) == set(names)
        for run in only_round.values():
            # Every record takes a round trip, and the proxy sees each request of those that go through it.
            assert run["outcome"]["p50_ms"] >= (case["delay_ms"] or 0)
            assert (run["in_request"] >= 1) is (case["delay_ms"] is not None)


def test_what_kafkas_own_tool_says() -> None:
    """As 4.3.1 prints it."""
    said = (
        "6000 records sent, 1858.160421 records/sec (0.18 MB/sec), 162.84 ms avg latency, 1747.00 ms max latency, "
        "167 ms 50th, 278 ms 95th, 347 ms 99th, 396 ms 99.9th.\n"
        "3000 steady state records sent, 2487.562189 records/sec (0.24 MB/sec), 98.33 ms avg latency, "
        "224.00 ms max latency, 78 ms 50th, 187 ms 95th, 188 ms 99th, 224 ms 99.9th.\n"
    )
    assert outcome(said) == Outcome(2487.562189, 98.33, 78, 188)
    assert outcome("") is None


def test_the_model_knows_what_a_stream_and_a_lone_record_wait() -> None:
    """Requests at a fifth's distance: a tenth on average. A lone record waits as long as the rule says."""
    average, p99 = waits(evenly, 100)
    assert 0.09 <= average <= 0.11
    assert 0.19 <= p99 <= 0.21
    # Five requests are gone at once, and what comes then waits for the first answer.
    average, p99 = waits(waiting(0.005), 1000)
    assert average > 0.4
    assert p99 > 0.9
    average, p99 = waits(spread(0.005), 1000)
    assert average < 0.12
    assert p99 < 0.22
    assert waits(spread(0.005), 0.1)[1] <= 0.006


def test_every_contender_has_its_name() -> None:
    assert all(name == one.name for name, one in CONTENDERS.items())
