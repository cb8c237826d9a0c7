"""Memory does not grow with the number of records. `growth.py` does the same for 60 million, by command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastprod.testing import KafkaBroker

from .growth import PARTS, RETENTION, growth

pytestmark = pytest.mark.native_only

SCRIPT = Path(__file__).with_name("growth.py")
RECORDS = 3_000_000


def test_three_million_records(kafka_broker: KafkaBroker) -> None:
    kafka_broker.create_topic("growth", 4, RETENTION)
    command = [sys.executable, str(SCRIPT), "--records", str(RECORDS), "--topic", "growth"]
    run = subprocess.run(
        [*command, "--servers", kafka_broker.bootstrap_servers], capture_output=True, text=True, check=True
    )
    report = json.loads(run.stdout)
    print([round(each / 2**20, 1) for each in report["peaks"]])
    assert len(report["peaks"]) == PARTS
    assert min(report["peaks"]) > 0
    # How many buffers of a megabyte are in use at a time is chance, and 2 % of so little memory are less than one. A
    # leak of three bytes a record would be more than this.
    half = PARTS // 2
    assert max(report["peaks"][half:]) - max(report["peaks"][:half]) < 4 << 20
    assert sum(kafka_broker.end_offset("growth", partition) for partition in range(4)) == RECORDS


def test_growth_is_seen() -> None:
    flat = [100] * 10
    assert growth(flat, 5) == 0
    assert growth([*flat[:9], 103], 5) == pytest.approx(0.03)
    assert growth([50, *flat[:9]], 5) == 0
