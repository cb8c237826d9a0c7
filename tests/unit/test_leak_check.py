"""The check that every test goes through finds what a test leaves behind, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# A finished future is a batch of its own. Nobody waits the whole time that a busy machine would be given.
PROGRAM = """
import leaks, pytest
from fastprod import FutureRecordMetadata, errors
leaks._PATIENCE_S = 0.2
kept = []

def future():
    return FutureRecordMetadata.failed_with("t", 0, errors.KafkaError("no"))

@pytest.fixture(scope="module")
def wide():
    return future()

@pytest.fixture
def narrow():
    return future()

def test_fixtures(wide, narrow): pass
def test_a_ring():
    with pytest.raises(errors.KafkaError) as caught:
        future().get()
def test_that_keeps_one(): kept.append(future())
def test_after_it(): pass
def test_that_fails():
    mine = future()
    assert mine.succeeded()
def test_that_lets_it_go(wide): kept.clear()
"""


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PROGRAM, encoding="ascii")
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "conftest", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    told = re.findall(r"^(ERROR|FAILED|PASSED) test_it.py::(\w+)", done.stdout, re.MULTILINE)
    # The one that keeps something has passed, and then its check has not.
    well = ["test_fixtures", "test_a_ring", "test_that_keeps_one", "test_after_it", "test_that_lets_it_go"]
    bad = [("ERROR", "test_that_keeps_one"), ("FAILED", "test_that_fails")]
    assert sorted(told) == sorted([*(("PASSED", each) for each in well), *bad]), done.stdout
    assert re.search(r"test_that_keeps_one leaves behind: \{'batches of fastprod\._\w+': 1", done.stdout)
